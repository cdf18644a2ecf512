#include "relay/splices.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ALL_EVENTS (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET)
#define FAILED_EVENTS (EPOLLERR | EPOLLHUP)
#define SPLICE_FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK)

int splices_open(struct splices *splices)
{
    memset(splices, 0, sizeof *splices);
    splices->epoll = epoll_create1(EPOLL_CLOEXEC);
    return splices->epoll < 0 ? -1 : 0;
}

void splices_close(struct splices *splices)
{
    for (uint32_t i = 0; i < splices->count; i++) {
        splices_end(splices, i);
        free(splices->all[i]);
    }
    while (splices->kept > 0) {
        close(splices->pipes[--splices->kept][0]);
        close(splices->pipes[splices->kept][1]);
    }
    free(splices->all);
    free(splices->reports);
    close(splices->epoll);
    memset(splices, 0, sizeof *splices);
    splices->epoll = -1;
}

static void report(struct splices *splices, const struct splice *splice, enum splice_news news, int error)
{
    /* There is room: a turn has at most three reports of a connection, and splices_turn has made room for them. */
    splices->reports[splices->report_count++] = (struct splice_report){splice->number, news, error};
}

/* --- pipes --- */

static int borrow(struct splices *splices, struct splice_direction *direction)
{
    int pipe[2];
    if (splices->kept > 0) {
        memcpy(pipe, splices->pipes[--splices->kept], sizeof pipe);
    } else {
        if (pipe2(pipe, O_NONBLOCK | O_CLOEXEC) < 0)
            return -1;
        /* Beyond the user's share of pipe memory it stays small, and is only slower. */
        (void)fcntl(pipe[1], F_SETPIPE_SZ, SPLICE_PIPE_BYTES);
    }
    direction->out = pipe[0];
    direction->into = pipe[1];
    splices->lent++;
    return 0;
}

static void give_back(struct splices *splices, struct splice_direction *direction)
{
    if (direction->out < 0)
        return;
    splices->lent--;
    if (direction->held == 0 && splices->kept < SPLICE_KEPT_PIPES) {
        splices->pipes[splices->kept][0] = direction->out;
        splices->pipes[splices->kept++][1] = direction->into;
    } else {
        close(direction->out);
        close(direction->into);
    }
    direction->out = direction->into = -1;
    direction->held = 0;
}

/* --- the set --- */

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

int64_t splices_join(struct splices *splices, const int *fds, const bool *are_unix)
{
    struct splice *splice = make(splices);
    if (splice == NULL)
        return -1;
    uint32_t number = splice->number;
    *splice = (struct splice){.number = number, .is_open = true};
    for (uint32_t i = 0; i < 2; i++) {
        splice->ends[i] = (struct splice_end){.fd = fds[i], .is_unix = are_unix[i]};
        splice->directions[i] = (struct splice_direction){.out = -1, .into = -1};
    }
    for (uint32_t i = 0; i < 2; i++) {
        struct epoll_event event = {.events = ALL_EVENTS, .data.u64 = (uint64_t)number << 1 | i};
        if (epoll_ctl(splices->epoll, EPOLL_CTL_ADD, fds[i], &event) < 0) {
            int error = errno;
            splices_end(splices, number);
            errno = error;
            return -1;
        }
    }
    return number;
}

static void remove_soon(struct splices *splices, struct splice *splice)
{
    struct splice **at = &splices->soon;
    while (*at != splice)
        at = &(*at)->next;
    *at = splice->next;
    splice->is_soon = false;
}

void splices_end(struct splices *splices, uint32_t number)
{
    struct splice *splice = number < splices->count ? splices->all[number] : NULL;
    if (splice == NULL || !splice->is_open)
        return;
    splice->is_open = false;
    if (splice->is_soon)
        remove_soon(splices, splice);
    for (uint32_t i = 0; i < 2; i++) {
        epoll_ctl(splices->epoll, EPOLL_CTL_DEL, splice->ends[i].fd, NULL);
        give_back(splices, &splice->directions[i]);
    }
    splice->next = splices->free;
    splices->free = splice;
}

static void end_with(struct splices *splices, struct splice *splice, int error)
{
    report(splices, splice, SPLICE_OVER, error);
    splices_end(splices, splice->number);
}

/* --- one connection --- */

static void fail(struct splices *splices, struct splice *splice, struct splice_end *end, int error)
{
    if (error == 0 || end->failed != 0)
        return;
    end->failed = error;
    end->readable = true;
    report(splices, splice, SPLICE_LINGERS, error);
}

enum outcome { MOVED, MORE, SOURCE_FAILED, SINK_FAILED, NO_PIPE };

/* Empty the pipe into the sink as far as it goes: MOVED if it is empty, MORE if the sink is full. */
static enum outcome empty(struct splice_direction *direction, struct splice_end *sink)
{
    while (direction->held > 0 || direction->is_marked) {
        ssize_t count;
        if (!sink->writable)
            return MORE;
        if (direction->held > 0)
            count = splice(direction->out, NULL, sink->fd, NULL, direction->held, SPLICE_FLAGS);
        else
            count = send(sink->fd, &direction->marked, 1, MSG_NOSIGNAL | (sink->is_unix ? 0 : MSG_OOB));
        if (count < 0 && errno == EAGAIN) {
            sink->writable = false;
            return MORE;
        }
        if (count < 0)
            return SINK_FAILED;
        if (direction->held > 0)
            direction->held -= (uint32_t)count;
        else
            direction->is_marked = false;
    }
    return MOVED;
}

/* Take a byte of urgent data if the stream stands in front of one: MORE if it does. */
static enum outcome take_mark(struct splice_direction *direction, struct splice_end *source)
{
    int at_mark = 0;
    if (ioctl(source->fd, SIOCATMARK, &at_mark) < 0)
        return SOURCE_FAILED;
    if (!at_mark)
        return MOVED;
    ssize_t count = recv(source->fd, &direction->marked, 1, MSG_DONTWAIT);
    if (count < 0)
        return errno == EAGAIN ? MOVED : SOURCE_FAILED; /* EAGAIN: the mark came before the byte */
    direction->is_marked = count == 1;
    source->urgent = false;
    return MORE;
}

/* Fill the empty pipe from the source as far as it goes. */
static enum outcome fill(struct splices *splices, struct splice_direction *direction, struct splice_end *source)
{
    if (direction->out < 0 && borrow(splices, direction) < 0)
        return NO_PIPE;
    ssize_t count = splice(source->fd, NULL, direction->into, NULL, SPLICE_PIPE_BYTES, SPLICE_FLAGS);
    if (count > 0) {
        direction->held = (uint32_t)count;
    } else if (count == 0) {
        direction->half = SPLICE_DRAINING;
    } else if (errno != EAGAIN) {
        return SOURCE_FAILED;
    } else {
        enum outcome marked = source->urgent ? take_mark(direction, source) : MOVED;
        if (marked != MORE) {
            source->readable = false;
            return marked;
        }
    }
    return MOVED;
}

/* Move bytes of one direction: MORE if it stopped before an end had enough. */
static enum outcome move(struct splices *splices, struct splice *splice, uint32_t index)
{
    struct splice_direction *direction = &splice->directions[index];
    struct splice_end *source = &splice->ends[index], *sink = &splice->ends[!index];
    if (sink->failed || direction->half == SPLICE_ENDED)
        return MOVED;
    for (uint32_t round = 0; round < SPLICE_ROUNDS; round++) {
        enum outcome outcome = empty(direction, sink);
        if (outcome != MOVED)
            return outcome == MORE ? MOVED : outcome; /* the sink says when there is room again */
        if (direction->half == SPLICE_DRAINING || !source->readable || !sink->writable)
            break;
        outcome = fill(splices, direction, source);
        if (outcome != MOVED)
            return outcome;
    }
    if (direction->held > 0 || direction->is_marked)
        return MORE;
    give_back(splices, direction);
    if (direction->half == SPLICE_DRAINING) {
        direction->half = SPLICE_ENDED;
        if (!source->failed && splice->directions[!index].half != SPLICE_ENDED && shutdown(sink->fd, SHUT_WR) < 0)
            return SINK_FAILED;
        return MOVED;
    }
    return source->readable && sink->writable ? MORE : MOVED;
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
        if (splice->ends[i].failed && splice->directions[i].half == SPLICE_ENDED && !has_unsent(&splice->ends[!i]))
            return splice->ends[i].failed;
    return -1;
}

int splices_settle(struct splices *splices, uint32_t number)
{
    const struct splice *splice = number < splices->count ? splices->all[number] : NULL;
    return splice == NULL || !splice->is_open ? -1 : settled(splice);
}

/* Move what can be moved; go on soon if there is more than a fair share. */
static void pump(struct splices *splices, struct splice *splice)
{
    bool has_more = false;
    for (uint32_t i = 0; i < 2; i++) {
        enum outcome outcome = move(splices, splice, i);
        int error = errno;
        if (outcome == NO_PIPE) {
            end_with(splices, splice, error);
            return;
        }
        if (outcome == SOURCE_FAILED) {
            fail(splices, splice, &splice->ends[i], error);
            splice->directions[i].half = SPLICE_DRAINING; /* an error is the source's end, too */
        } else if (outcome == SINK_FAILED) {
            fail(splices, splice, &splice->ends[!i], error);
        }
        has_more |= outcome != MOVED;
    }
    const struct splice_end *ends = splice->ends;
    if (ends[0].failed && ends[1].failed) {
        end_with(splices, splice, ends[0].failed);
    } else if (ends[0].failed || ends[1].failed) {
        int error = settled(splice);
        if (error > 0)
            end_with(splices, splice, error);
    } else if (splice->directions[0].half == SPLICE_ENDED && splice->directions[1].half == SPLICE_ENDED) {
        end_with(splices, splice, 0);
    }
    if (splice->is_open && has_more && !splice->is_soon) {
        splice->is_soon = true;
        splice->next = splices->soon;
        splices->soon = splice;
    }
}

static void take_event(struct splices *splices, const struct epoll_event *event)
{
    struct splice *splice = splices->all[event->data.u64 >> 1];
    if (!splice->is_open)
        return; /* it ended in this turn; a number is used again only after that */
    struct splice_end *end = &splice->ends[event->data.u64 & 1];
    if ((event->events & FAILED_EVENTS) != 0 && !end->failed) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(end->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        fail(splices, splice, end, error);
    }
    end->readable |= (event->events & (EPOLLIN | EPOLLRDHUP | FAILED_EVENTS)) != 0;
    end->writable |= (event->events & (EPOLLOUT | FAILED_EVENTS)) != 0;
    end->urgent |= (event->events & EPOLLPRI) != 0;
    pump(splices, splice);
}

/* Room for the reports of so many pumps, each of which has three at most. */
static int make_room(struct splices *splices, uint32_t pumps)
{
    uint32_t wanted = splices->report_count + 4 * pumps;
    if (wanted <= splices->report_room)
        return 0;
    struct splice_report *reports = realloc(splices->reports, wanted * sizeof *reports);
    if (reports == NULL)
        return -1;
    splices->reports = reports;
    splices->report_room = wanted;
    return 0;
}

int splices_turn(struct splices *splices)
{
    struct epoll_event events[SPLICE_EVENTS];
    uint32_t unfinished = 0;
    splices->report_count = 0;
    for (const struct splice *each = splices->soon; each != NULL; each = each->next)
        unfinished++;
    if (make_room(splices, SPLICE_EVENTS + unfinished) < 0)
        return -1;
    /* Those that have more to do begin with what is there now; what an event makes unfinished is for the next turn. */
    struct splice *soon = splices->soon;
    int count = epoll_wait(splices->epoll, events, SPLICE_EVENTS, 0);
    splices->soon = NULL;
    while (soon != NULL) {
        struct splice *next = soon->next;
        soon->is_soon = false;
        pump(splices, soon);
        soon = next;
    }
    for (int i = 0; i < count; i++)
        take_event(splices, &events[i]);
    return 0;
}
