#include "relay/splices.h"

#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ALL_EVENTS (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET)
#define FAILED_EVENTS (EPOLLERR | EPOLLHUP)
#define OF_THE_CALLER (1ull << 63)
#define GENERATION_SHIFT 32
#define GENERATIONS (1u << 31)
#define NS_PER_MS 1000000u

int splices_open(struct splices *splices)
{
    memset(splices, 0, sizeof *splices);
    splices->epoll = epoll_create1(EPOLL_CLOEXEC);
    return splices->epoll < 0 ? -1 : 0;
}

void splices_close(struct splices *splices)
{
    for (uint32_t i = 0; i < splices->count; i++) {
        splices_end(splices, i, true);
        free(splices->all[i]);
    }
    pipe_pool_close(&splices->pool);
    free(splices->all);
    close(splices->epoll);
    memset(splices, 0, sizeof *splices);
    splices->epoll = -1;
}

static void report(struct splices *splices, const struct splice *splice, enum splice_news news, int error)
{
    splices->reports[splices->report_count++] = (struct splice_report){splice->number, news, error};
}

/* --- the set --- */

int splices_watch(struct splices *splices, int fd, uint32_t bit)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = OF_THE_CALLER | bit};
    return epoll_ctl(splices->epoll, EPOLL_CTL_ADD, fd, &event);
}

int splices_watch_end(struct splices *splices, struct splice *splice, uint32_t index)
{
    uint64_t which = (uint64_t)splice->generation << GENERATION_SHIFT | splice->number << 1 | index;
    struct epoll_event event = {.events = ALL_EVENTS, .data.u64 = which};
    struct splice_end *end = &splice->ends[index];
    if (end->is_watched)
        return 0;
    end->is_watched = epoll_ctl(splices->epoll, EPOLL_CTL_ADD, end->fd, &event) == 0;
    return end->is_watched ? 0 : -1;
}

static struct splice *make(struct splices *splices)
{
    struct splice *made = splices->free;
    if (made != NULL) {
        splices->free = made->next;
        return made;
    }
    if (splices->count == splices->room) {
        uint32_t room = splices->room ? 2 * splices->room : 64;
        struct splice **all = realloc(splices->all, room * sizeof *all);
        if (all == NULL)
            return NULL;
        splices->all = all;
        splices->room = room;
    }
    made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->number = splices->count;
        splices->all[splices->count++] = made;
    }
    return made;
}

struct splice *splices_find(const struct splices *splices, uint32_t number)
{
    struct splice *splice = number < splices->count ? splices->all[number] : NULL;
    return splice == NULL || splice->stage == SPLICE_FREE ? NULL : splice;
}

int64_t splices_begin(struct splices *splices, int near, bool is_unix)
{
    struct splice *splice = make(splices);
    if (splice == NULL) {
        if (near >= 0)
            close(near);
        errno = ENOMEM;
        return -1;
    }
    uint32_t number = splice->number, generation = (splice->generation + 1) % GENERATIONS;
    *splice = (struct splice){.number = number, .generation = generation, .stage = SPLICE_BEGUN};
    splice->ends[0] = (struct splice_end){.fd = near, .is_unix = is_unix};
    splice->ends[1] = (struct splice_end){.fd = -1};
    for (uint32_t i = 0; i < 2; i++)
        splice->directions[i].pipe = (struct pipe_ends){-1, -1, 0};
    if (near >= 0 && splices_watch_end(splices, splice, 0) < 0) {
        int error = errno;
        splices_end(splices, number, true);
        errno = error;
        return -1;
    }
    return number;
}

/* --- connections that have something to move, the longest waiting first --- */

static void add_soon(struct splices *splices, struct splice *splice)
{
    if (splice->is_soon)
        return;
    splice->is_soon = true;
    splice->next = NULL;
    if (splices->soon == NULL)
        splices->soon = splice;
    else
        splices->soon_last->next = splice;
    splices->soon_last = splice;
}

static void remove_soon(struct splices *splices, struct splice *splice)
{
    struct splice **at = &splices->soon, *before = NULL;
    while (*at != splice) {
        before = *at;
        at = &before->next;
    }
    *at = splice->next;
    if (splices->soon_last == splice)
        splices->soon_last = before;
    splice->is_soon = false;
}

static void close_end(struct splice_end *end, bool is_reset)
{
    const struct linger how = {is_reset, 0}; /* without it, a killed process's kernel would reset, too */
    if (end->fd < 0)
        return;
    if (!end->is_unix)
        setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &how, sizeof how);
    close(end->fd);
    end->fd = -1;
}

void splices_end(struct splices *splices, uint32_t number, bool is_reset)
{
    struct splice *splice = splices_find(splices, number);
    if (splice == NULL)
        return;
    splice->stage = SPLICE_FREE;
    if (splice->is_soon)
        remove_soon(splices, splice);
    for (uint32_t i = 0; i < 2; i++) {
        close_end(&splice->ends[i], is_reset);
        pipe_pool_give_back(&splices->pool, &splice->directions[i].pipe);
    }
    splice->next = splices->resting;
    splices->resting = splice;
}

static void end_with(struct splices *splices, struct splice *splice, int error)
{
    report(splices, splice, SPLICE_NEWS_OVER, error);
    splices_end(splices, splice->number, error != 0);
}

/* --- one connection --- */

static void fail(struct splices *splices, struct splice *splice, struct splice_end *end, int error)
{
    if (error == 0 || end->failed != 0)
        return;
    end->failed = error;
    end->readable = end->has_ended = true;
    report(splices, splice, SPLICE_NEWS_LINGERS, error);
}

/* Bytes that the peer has not acknowledged. */
static bool has_unsent(const struct splice_end *end)
{
    int count = 0;
    return !end->is_unix && ioctl(end->fd, SIOCOUTQ, &count) == 0 && count > 0;
}

static int settled(const struct splice *splice)
{
    for (uint32_t i = 0; i < 2; i++)
        if (splice->ends[i].failed && splice->directions[i].half == DIRECTION_ENDED && !has_unsent(&splice->ends[!i]))
            return splice->ends[i].failed;
    return -1;
}

int splices_settle(struct splices *splices, uint32_t number)
{
    const struct splice *splice = splices_find(splices, number);
    return splice == NULL ? -1 : settled(splice);
}

/* Move what can be moved; go on soon if there is more than a fair share. */
static void pump(struct splices *splices, struct splice *splice)
{
    struct splice_end *ends = splice->ends;
    struct direction *directions = splice->directions;
    bool has_more = false;
    for (uint32_t i = 0; i < 2; i++) {
        bool is_last = directions[!i].half == DIRECTION_ENDED;
        enum outcome outcome = direction_move(&directions[i], &splices->pool, &ends[i], &ends[!i], is_last);
        int error = errno;
        if (outcome == NO_PIPE) {
            end_with(splices, splice, error);
            return;
        }
        if (outcome == SOURCE_FAILED) {
            fail(splices, splice, &ends[i], error);
            directions[i].half = DIRECTION_DRAINING; /* an error is the source's end, too */
        } else if (outcome == SINK_FAILED) {
            fail(splices, splice, &ends[!i], error);
        }
        has_more |= outcome != MOVED;
    }
    if (ends[0].failed && ends[1].failed) {
        end_with(splices, splice, ends[0].failed);
    } else if (ends[0].failed || ends[1].failed) {
        int error = settled(splice);
        if (error > 0)
            end_with(splices, splice, error);
    } else if (directions[0].half == DIRECTION_ENDED && directions[1].half == DIRECTION_ENDED) {
        end_with(splices, splice, 0);
    }
    if (has_more && splice->stage == SPLICE_JOINED)
        add_soon(splices, splice);
}

static bool is_bulky(const struct splice *splice)
{
    return splice->directions[0].is_bulk || splice->directions[1].is_bulk;
}

/* Move short messages at once, and the rest in its turn. */
static void move(struct splices *splices, struct splice *splice)
{
    if (is_bulky(splice) || splices->bulky == SPLICE_BULKY) {
        add_soon(splices, splice);
    } else if (!splice->is_soon) {
        pump(splices, splice);
        splices->bulky += is_bulky(splice);
    }
}

/* Take an event before the join: the far end has answered or failed, or the near end may have failed. */
static void take_early(struct splices *splices, struct splice *splice, uint32_t index, int error)
{
    if (splice->stage != SPLICE_BEGUN || (index == 0 && error == 0))
        return;
    if (error != 0) {
        splice->stage = SPLICE_DEAD;
        report(splices, splice, SPLICE_NEWS_FAILED, index == 0 ? ECONNABORTED : error);
    } else if (splice->ends[0].fd < 0) {
        splice->stage = SPLICE_ANSWERED;
        report(splices, splice, SPLICE_NEWS_ANSWERED, 0);
    } else {
        splice->stage = SPLICE_JOINED;
        report(splices, splice, SPLICE_NEWS_JOINED, 0);
        move(splices, splice);
    }
}

static void take_event(struct splices *splices, const struct epoll_event *event)
{
    uint64_t which = event->data.u64;
    if ((which & OF_THE_CALLER) != 0) {
        splices->watched |= 1u << (which & (SPLICE_WATCHED - 1));
        return;
    }
    struct splice *splice = splices_find(splices, (uint32_t)which >> 1);
    if (splice == NULL || splice->generation != which >> GENERATION_SHIFT)
        return;
    struct splice_end *end = &splice->ends[which & 1];
    int error = 0; /* that of an answered connection stays in the socket, behind the bytes that came before it */
    if ((event->events & FAILED_EVENTS) != 0 && !end->failed && splice->stage != SPLICE_ANSWERED) {
        socklen_t size = sizeof error;
        getsockopt(end->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    end->readable |= (event->events & (EPOLLIN | EPOLLRDHUP | FAILED_EVENTS)) != 0;
    end->writable |= (event->events & (EPOLLOUT | FAILED_EVENTS)) != 0;
    end->urgent |= (event->events & EPOLLPRI) != 0;
    end->has_ended |= (event->events & (EPOLLRDHUP | FAILED_EVENTS)) != 0;
    if (splice->stage == SPLICE_JOINED) {
        fail(splices, splice, end, error);
        move(splices, splice);
    } else {
        take_early(splices, splice, which & 1, error);
    }
}

static void wake_resting(struct splices *splices)
{
    while (splices->resting != NULL) {
        struct splice *splice = splices->resting;
        splices->resting = splice->next;
        splice->next = splices->free;
        splices->free = splice;
    }
}

static void move_soon(struct splices *splices)
{
    uint32_t bulky = 0;
    for (uint32_t moved = 0; splices->soon != NULL && moved < SPLICE_EVENTS && bulky < SPLICE_BULKY; moved++) {
        struct splice *splice = splices->soon;
        remove_soon(splices, splice);
        pump(splices, splice);
        bulky += is_bulky(splice);
    }
}

/* Wait for `timeout` ms at most until there are events, and move what can be moved. */
static int turn(struct splices *splices, int timeout)
{
    struct epoll_event events[SPLICE_EVENTS];
    splices->report_count = splices->watched = splices->bulky = 0;
    wake_resting(splices);
    int count = epoll_wait(splices->epoll, events, SPLICE_EVENTS, splices->soon != NULL ? 0 : timeout);
    if (count < 0)
        return -1;
    for (int i = 0; i < count; i++)
        take_event(splices, &events[i]);
    move_soon(splices);
    return 0;
}

int splices_wait(struct splices *splices, uint64_t until)
{
    for (;;) {
        uint64_t now = monotonic_ns();
        uint64_t left = now < until ? (until - now + NS_PER_MS - 1) / NS_PER_MS : 0;
        if (turn(splices, left < INT_MAX ? (int)left : INT_MAX) < 0)
            return -1;
        if (splices->report_count > 0 || splices->watched != 0 || now >= until)
            return 0;
    }
}
