#include "relay/splice_turn.h"

#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define FAILED_EVENTS (EPOLLERR | EPOLLHUP)
#define NS_PER_MS 1000000u

static void report(struct splices *splices, const struct splice *splice, enum splice_news news, int error)
{
    splices->reports[splices->report_count++] = (struct splice_report){splice->number, news, error};
}

static void end_with(struct splices *splices, struct splice *splice, int error)
{
    report(splices, splice, SPLICE_NEWS_OVER, error);
    splices_end(splices, splice->number, error != 0);
}

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
    struct splice_end *guest = &ends[splice->guest];
    uint64_t before = guest->window.bytes;
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
    if (guest->window.bytes != before)
        window_took(&guest->window, guest->fd, monotonic_ns());
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
        splices_add_soon(splices, splice);
}

static bool is_bulky(const struct splice *splice)
{
    return splice->directions[0].is_bulk || splice->directions[1].is_bulk;
}

/* Move short messages at once, and the rest in its turn. */
static void move(struct splices *splices, struct splice *splice)
{
    if (is_bulky(splice) || splices->bulky == SPLICE_BULKY) {
        splices_add_soon(splices, splice);
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
    uint32_t index;
    struct splice *splice = splices_of_event(splices, event->data.u64, &index);
    if (splice == NULL)
        return;
    struct splice_end *end = &splice->ends[index];
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
        take_early(splices, splice, index, error);
    }
}

static void move_soon(struct splices *splices)
{
    uint32_t bulky = 0;
    for (uint32_t moved = 0; splices->soon != NULL && moved < SPLICE_EVENTS && bulky < SPLICE_BULKY; moved++) {
        struct splice *splice = splices->soon;
        splices_remove_soon(splices, splice);
        pump(splices, splice);
        bulky += is_bulky(splice);
    }
}

/* Wait for `timeout` ms at most until there are events, and move what can be moved. */
static int turn(struct splices *splices, int timeout)
{
    struct epoll_event events[SPLICE_EVENTS];
    splices->report_count = splices->watched = splices->bulky = 0;
    splices_wake_resting(splices);
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
