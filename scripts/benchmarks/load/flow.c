/* One closed-loop flow: frames from one link to another, never more in flight than a window of them.
 *
 * Two threads, the sending VM and the receiving VM. The receiver publishes the sequence number that it expects next;
 * the sender keeps at most `window` frames beyond that, as TCP would, so that a path is measured at the rate that it
 * delivers and not at the rate at which it drops. Where frames are lost all the same the window is halved, at most once
 * for each window's worth of frames, and grows again by a frame for each window's worth that arrives; it never grows
 * beyond what it was given. When nothing at all arrives for STALL_MS the sender takes what is in flight for lost and
 * goes on with the smallest window (counted: "stalls"). At the end the receiver waits until all has come, or nothing has
 * come for LOST_MS.
 *
 * A sender without room sleeps until half its window is free: waking it for each frame would measure wake-ups.
 */
#include "load.h"

#include <inttypes.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { STALL_MS = 200, LEAST_WINDOW = 2 };

static struct {
    _Alignas(64) _Atomic uint64_t expected; /* written by the receiver */
    _Atomic uint64_t gaps;                  /* too: how often a frame came that was not the expected one */
    _Alignas(64) _Atomic uint64_t wanted;   /* by the sender: wake it when `expected` gets here */
    _Atomic uint32_t asleep;                /* by both; a futex */
    _Atomic uint64_t sent;                  /* by the sender, when it has ended: one more than it sent */
    uint64_t end;                           /* constant */
} shared;

/* The sender's own. */
struct window {
    uint64_t now, most, smallest_seen; /* frames */
    uint64_t gaps;                     /* how many of them it has taken note of */
    uint64_t recovered;                /* from here on losses are new ones */
    uint64_t grown;                    /* where it was when it last grew */
};

struct receiver {
    struct link link;
    struct reader reader;
    struct burst pattern;
    struct probe *probe;
    uint64_t received, reordered, corrupt, foreign, first, last;
};

/* Of both threads: what the two VMs have cost. */
static uint64_t process_cpu_ns(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static void publish(uint64_t expected) {
    atomic_store(&shared.expected, expected);
    if (atomic_load(&shared.asleep) && expected >= atomic_load(&shared.wanted)) {
        atomic_store(&shared.asleep, 0);
        syscall(SYS_futex, &shared.asleep, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

static void window_shrink(struct window *window, uint64_t size, uint64_t next) {
    window->now = size > LEAST_WINDOW ? size : LEAST_WINDOW;
    if (window->now < window->smallest_seen) window->smallest_seen = window->now;
    window->recovered = window->grown = next;
}

/* Everything before `arrived` has come or is lost; `next` is the next one to be sent. */
static void window_adapt(struct window *window, uint64_t arrived, uint64_t next) {
    uint64_t gaps = atomic_load(&shared.gaps);
    if (gaps != window->gaps) {
        window->gaps = gaps;
        if (arrived > window->recovered) window_shrink(window, window->now / 2, next);
    } else if (window->now < window->most && arrived >= window->grown + window->now) {
        window->now++;
        window->grown = arrived;
    }
}

/* Sleep until half the window is free. False: nothing has arrived for STALL_MS. */
static bool wait_for_room(const struct window *window, uint64_t next) {
    struct timespec patience = {.tv_nsec = PATIENCE_MS * 1000000};
    uint64_t seen = atomic_load(&shared.expected), since = now_ns();
    atomic_store(&shared.wanted, next - window->now / 2);
    while (!stopping) {
        atomic_store(&shared.asleep, 1);
        uint64_t expected = atomic_load(&shared.expected), now = now_ns();
        if (expected >= atomic_load(&shared.wanted) || now >= shared.end) break;
        if (expected != seen) {
            seen = expected;
            since = now;
        } else if (now - since > STALL_MS * UINT64_C(1000000)) {
            return false;
        }
        syscall(SYS_futex, &shared.asleep, FUTEX_WAIT_PRIVATE, 1, &patience, NULL, 0);
    }
    atomic_store(&shared.asleep, 0);
    return true;
}

static void *receive(void *argument) {
    struct receiver *self = argument;
    uint64_t expected = 0, quiet_since = 0, sequence;
    size_t size;
    while (!stopping && !self->link.ended) {
        bool filled = reader_fill(&self->reader);
        uint64_t now = now_ns(), before = self->received;
        for (const uint8_t *frame; filled && (frame = reader_next(&self->reader, &size));) {
            switch (frame_check(frame, size, &self->pattern, &sequence)) {
            case FRAME_GOOD:
                self->received++;
                if (sequence < expected) {
                    self->reordered++;
                    break;
                }
                if (sequence > expected) atomic_fetch_add(&shared.gaps, 1);
                expected = sequence + 1;
                break;
            case FRAME_CORRUPT: self->corrupt++; break;
            case FRAME_FOREIGN:
                if (!probe_answer(self->probe, &self->link, frame, size)) self->foreign++;
                break;
            }
        }
        /* Only the flow's own frames, not those of others, show whether more are on their way. */
        if (self->received == before) {
            uint64_t sent = atomic_load(&shared.sent);
            if (sent && self->received + self->corrupt >= sent - 1) break;
            if (!sent)
                quiet_since = 0;
            else if (!quiet_since)
                quiet_since = now;
            else if (now - quiet_since > LOST_MS * UINT64_C(1000000))
                break;
            continue;
        }
        quiet_since = 0;
        if (!self->first) self->first = now;
        self->last = now;
        publish(expected);
    }
    reader_end(&self->reader);
    return NULL;
}

int run_flow(int count, char **words) {
    if (count != 9) die("flow KIND SIZE WINDOW_BYTES SECONDS FROM_FD TO_FD SRC_MAC DST_MAC PROBE(0 or 1)");
    size_t size = word_size(words[1]);
    struct link out = link_open((int)word_size(words[4]), words[0]);
    struct receiver in = {.link = link_open((int)word_size(words[5]), words[0])};
    uint8_t src[6], dst[6];
    word_mac(words[6], src);
    word_mac(words[7], dst);
    struct burst burst = burst_make(&out, size, (uint32_t)getpid(), dst, src);
    in.pattern = burst_make(&out, size, burst.run, dst, src);
    in.reader = reader_make(&in.link, size);
    struct probe probe = {0};
    in.probe = &probe;
    if (word_size(words[8])) probe_start(&probe, &out, &in.link, burst.run, src, dst);
    uint64_t most = word_size(words[2]) / burst.stride;
    if (most < LEAST_WINDOW) most = LEAST_WINDOW;
    struct window window = {.now = most, .most = most, .smallest_seen = most};

    uint64_t next = 0, forgiven = 0, stalls = 0, start = now_ns();
    shared.end = start + (uint64_t)(strtod(words[3], NULL) * 1e9);
    pthread_t thread;
    if (pthread_create(&thread, NULL, receive, &in)) die("no thread");
    while (!stopping && !out.ended && !out.cut && now_ns() < shared.end) {
        uint64_t acknowledged = atomic_load(&shared.expected);
        if (acknowledged < forgiven) acknowledged = forgiven;
        window_adapt(&window, acknowledged, next);
        if (next - acknowledged >= window.now) {
            if (!wait_for_room(&window, next)) {
                forgiven = next;
                stalls++;
                window_shrink(&window, LEAST_WINDOW, next);
            }
            continue;
        }
        uint64_t room = window.now - (next - acknowledged);
        unsigned some = room < burst.capacity ? (unsigned)room : burst.capacity;
        for (unsigned i = 0; i < some; i++) frame_stamp(burst_frame(&burst, i), size, burst.run, next + i);
        next += burst_send(&out, &burst, some, shared.end);
        if (!out.cut) probe_ask(&probe, &out);
    }
    uint64_t ended = now_ns();
    atomic_store(&shared.sent, next + 1);
    pthread_join(thread, NULL);

    /* From the first frame to the last one; a path that stopped delivering is not excused the time until the end. */
    uint64_t from = in.first ? in.first : start, to = in.last > ended ? in.last : ended;
    printf("{\"sent\": %" PRIu64 ", \"received\": %" PRIu64 ", \"lost\": %" PRId64 ", \"reordered\": %" PRIu64
           ", \"corrupt\": %" PRIu64 ", \"foreign\": %" PRIu64 ", \"stalls\": %" PRIu64,
           next, in.received, (int64_t)(next - in.received - in.corrupt), in.reordered, in.corrupt, in.foreign, stalls);
    printf(", \"cut\": %s, \"ended\": %s, \"window\": %" PRIu64 ", \"smallest_window\": %" PRIu64
           ", \"seconds\": %.9f",
           out.cut ? "true" : "false", out.ended || in.link.ended ? "true" : "false", most, window.smallest_seen,
           (double)(to - from) / 1e9);
    printf(", \"cpu_ns\": %" PRIu64, process_cpu_ns());
    probe_end(&probe);
    printf("}\n");
    return 0;
}
