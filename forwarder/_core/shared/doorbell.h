/* Sleeping and waking without a lost wake-up and without a shared lock.

   Theory of operation. A worker that finds nothing to do announces that it sleeps, looks once more, and then waits in
   epoll. A neighbour that has published something for it looks at the announcement and rings only if the worker sleeps.
   With a full fence between the two steps on both sides, either the sleeper sees the new cursor or the producer sees
   the announcement:

     sleeper:  announce (odd); fence; look at all cursors; wait        ... awake: announce (even)
     producer: publish the cursor; fence; read the announcement; if odd and not yet rung for it: ring

   The announcement is a number that grows with each change, odd while asleep. A producer remembers the number it rang
   for, so a sleep costs each producer one system call at the most. No neighbour ever writes to the sleeper's memory:
   the word lies where only its owner can write.

   A worker whose VM does not read stays "awake" on purpose while it waits for the VM: it cannot forward new frames,
   so no neighbour needs to ring. The flood bell rings for all and may still wake it; then it masks both bells until
   its VM reads again.

   The bell itself is an eventfd (system/waiter.h) whose readers wait for it edge-triggered and never read it.

   Example. The word is 16. The worker announces 17, sees nothing new and waits. Ports 2 and 3 send: each reads 17 and
   rings, one system call each; port 2 sends twice more and reads 17 again, which it has rung for. The worker wakes and
   announces 18. Port 2 sends once more and reads 18: no ring, since the worker looks before it sleeps again.

   Calls. sleep_begin and sleep_end from the word's owner, sleep_needs_bell by a producer after its fence: bells.c is
   the only caller, and bells_threads.c, ring_sleep.pml and ring_threads.c are its proof. */
#ifndef BULKHEAD_DOORBELL_H
#define BULKHEAD_DOORBELL_H

#include <stdatomic.h>

#include "common.h"

struct sleep_word {
    _Atomic uint32_t number;
};

static inline void sleep_begin(struct sleep_word *word)
{
    uint32_t number = atomic_load_explicit(&word->number, memory_order_relaxed);
    atomic_store_explicit(&word->number, number + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

static inline void sleep_end(struct sleep_word *word)
{
    uint32_t number = atomic_load_explicit(&word->number, memory_order_relaxed);
    atomic_store_explicit(&word->number, number + 1, memory_order_relaxed);
}

/* After publishing and a full fence: does the owner of this word need a ring? */
static inline bool sleep_needs_bell(const struct sleep_word *word, uint32_t *rung)
{
    uint32_t number = atomic_load_explicit(&((struct sleep_word *)(uintptr_t)word)->number, memory_order_relaxed);
    if ((number & 1u) == 0 || number == *rung)
        return false;
    *rung = number;
    return true;
}

#endif
