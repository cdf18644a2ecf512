/* Busy polling: look for work for a moment before going to sleep.

   Theory of operation. A wake-up takes time: on a core that has halted, 2 us on bare metal and 20 us in a virtual
   machine, and about as much of a processor as of time. A request and its answer pass two workers, so wake-ups
   dominate a conversation of small frames. If a worker expects the next frame within the time of a wake-up, it is
   better to poll for it: if the frame comes, the wake-up is saved on both sides (a worker that is awake is not rung);
   if not, the time of one wake-up was spent twice. That is the bound of the classic choice between renting and buying
   (Karlin et al., "Competitive randomized algorithms for nonuniform problems", 1990); KVM polls before it halts a
   processor by the same argument (Documentation/virt/kvm/halt-polling.rst).

   The expectation is the last pause: a worker busy-polls while its pauses are short. So a mostly idle VM never
   busy-polls, and one that has fallen silent does it once more. A worker whose VM does not read never does.

   The other end of a guest's queue pays for a wake-up, too: a kick or an interrupt, which is a system call or an exit of
   the virtual machine, on its way to the worker and again on the way back. So a worker with such queues polls for
   GUEST_POLL_NS. It matters most for long frames, between two of which lie tens of microseconds of copying.

   The worker yields its core at every look, so other threads run if they want to.

   Example. Frames come every 50 us: each pause is below SHORT_PAUSE_NS, so the worker polls for 20 us, then sleeps for
   30. They come every 10 us: it finds each while it polls and never sleeps. They stop: it polls for 20 us and sleeps;
   the next one, a second later, ends a long pause, and after that it sleeps at once.

   Calls. Pure functions of their arguments, for the thread that owns the struct. */
#ifndef BULKHEAD_BUSY_POLL_H
#define BULKHEAD_BUSY_POLL_H

#include "common.h"

/* About a wake-up in a virtual machine. */
#define BUSY_POLL_NS 20000u
/* The same of a worker and a driver, there and back. */
#define GUEST_POLL_NS 70000u
/* A round trip through two workers without busy polling: with longer pauses polling would never pay. */
#define SHORT_PAUSE_NS 100000u

struct busy_poll {
    uint32_t most_ns;    /* BUSY_POLL_NS or GUEST_POLL_NS; 0: never */
    uint64_t idle_since; /* ns; 0: busy */
    bool last_was_short; /* the last pause was short */
};

/* A turn has found work. */
static inline void busy_poll_after_work(struct busy_poll *l, uint64_t now)
{
    if (l->idle_since != 0)
        l->last_was_short = now - l->idle_since <= SHORT_PAUSE_NS;
    l->idle_since = 0;
}

/* A turn has found nothing to do. Returns until when to look on, 0: not at all. */
static inline uint64_t busy_poll_until(struct busy_poll *l, uint64_t now)
{
    if (l->idle_since == 0)
        l->idle_since = now;
    uint64_t until = l->idle_since + l->most_ns;
    return l->last_was_short && now < until ? until : 0;
}

#endif
