/* Publish what a burst has put into rings, and ring the workers that sleep.

   Theory of operation. This is the producer's half of doorbell.h, and the only one there is: publish every cursor, one
   full fence, read every sleep word, ring. The fence stands between the last store and the first load. Without it a
   worker could announce its sleep, see the old cursor and sleep, while its producer sees it awake and does not ring.
   One fence serves all the rings of a burst.

   A ring that has been written to is touched; the touched ones are published together. A worker that sleeps is rung
   once for one sleep: by its own doorbell for a ring, by the flood bell for a flood (one system call for all of them).

   Example. A burst of 40 frames goes to ports 3 (awake) and 5 (asleep at 17, last rung for 15) and to all. Three
   cursors are published, then comes the fence. Port 3's word is even: nothing. Port 5's is 17: its doorbell, and 17 is
   noted. Then the flood: of the peers only port 8 sleeps without having been rung, so the flood bell rings. Two system
   calls.

   Calls. From the thread that runs the engine. This file knows peers and no engine, so that the tests with threads run
   this very code. It owns nothing: doorbells belong to the peers, the flood bell to the caller. */
#ifndef BULKHEAD_BELLS_H
#define BULKHEAD_BELLS_H

#include "port/peer.h"

struct bells {
    struct peer *touched[MAX_PORTS]; /* whose rings have runs that are not published yet */
    uint32_t touched_count;
    int flood_doorbell;
    bool flood_bell_owed; /* a peer came that may have slept through a flood */
    uint64_t flooded_at;  /* ns, when the flood ring was last published */
};

/* The peer's ring has something new. */
static inline void bells_touch(struct bells *bells, struct peer *peer)
{
    if (!peer->touched) {
        peer->touched = true;
        bells->touched[bells->touched_count++] = peer;
    }
}

/* Publish all touched rings and the flood ring, and wake the peers that sleep. Returns the doorbells rung. */
uint32_t bells_publish(struct bells *bells, struct flood_tx *flood, const struct peers *peers);

/* A peer may have been reading our flood ring before we knew its sleep word. If we flooded within the last second,
   ring once. */
void bells_pay(struct bells *bells);

#endif
