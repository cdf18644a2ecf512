#include "port/bells.h"

#include "system/waiter.h"

/* A sleep word that is not known yet, or that lies in a ring which is over, counts as one of a sleeper. */
static bool must_ring(struct peer *peer)
{
    const struct flood_shared *theirs = peer->flood.shared;
    return theirs == NULL || sleep_needs_bell(&theirs->sleep, &peer->rung)
           || atomic_load_explicit(&theirs->over, memory_order_relaxed) != 0;
}

static uint32_t ring_touched(struct bells *bells)
{
    uint32_t rung = 0;
    for (uint32_t i = 0; i < bells->touched_count; i++) {
        struct peer *peer = bells->touched[i];
        peer->touched = false;
        if (must_ring(peer)) {
            doorbell_ring(peer->doorbell);
            rung++;
        }
    }
    bells->touched_count = 0;
    return rung;
}

/* One bell for all: every sleeper is noted as rung. */
static uint32_t ring_all(const struct bells *bells, const struct peers *peers)
{
    bool asleep = false;
    for (uint32_t i = 0; i < peers->count; i++)
        asleep |= must_ring(peers->at[peers->port[i]]);
    if (asleep)
        doorbell_ring(bells->flood_doorbell);
    return asleep;
}

uint32_t bells_publish(struct bells *bells, struct flood_tx *flood, const struct peers *peers)
{
    bool flooded = flood_publish(flood);
    if (flooded)
        bells->flooded_at = monotonic_ns();
    for (uint32_t i = 0; i < bells->touched_count; i++)
        ring_publish(&bells->touched[i]->tx);
    if (!flooded && bells->touched_count == 0)
        return 0;
    atomic_thread_fence(memory_order_seq_cst); /* pairs with sleep_begin */
    uint32_t rung = ring_touched(bells);
    return flooded ? rung + ring_all(bells, peers) : rung;
}

#define OWED_NS NS_PER_S

void bells_pay(struct bells *bells)
{
    if (!bells->flood_bell_owed)
        return;
    bells->flood_bell_owed = false;
    if (bells->flooded_at != 0 && monotonic_ns() - bells->flooded_at < OWED_NS)
        doorbell_ring(bells->flood_doorbell);
}
