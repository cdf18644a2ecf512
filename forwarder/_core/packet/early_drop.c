#include "packet/early_drop.h"

static void halve(struct early_drop *drop)
{
    drop->total = 0;
    drop->has_victim = false;
    for (uint32_t i = 0; i < EARLY_DROP_FLOWS; i++) {
        drop->flows[i].bytes /= 2;
        drop->total += drop->flows[i].bytes;
    }
}

static struct early_drop_flow *entry_of(struct early_drop *drop, uint16_t flow)
{
    struct early_drop_flow *set = &drop->flows[flow % EARLY_DROP_SETS * EARLY_DROP_WAYS], *lightest = set;
    for (uint32_t i = 0; i < EARLY_DROP_WAYS; i++) {
        if (set[i].flow == flow)
            return &set[i];
        if (set[i].bytes < lightest->bytes)
            lightest = &set[i];
    }
    drop->total -= lightest->bytes;
    *lightest = (struct early_drop_flow){.flow = flow};
    return lightest;
}

static void choose_victim(struct early_drop *drop)
{
    const struct early_drop_flow *heaviest = drop->flows;
    for (uint32_t i = 1; i < EARLY_DROP_FLOWS; i++)
        if (drop->flows[i].bytes > heaviest->bytes)
            heaviest = &drop->flows[i];
    drop->has_victim = drop->total - heaviest->bytes >= drop->total / EARLY_DROP_OTHERS;
    drop->victim = heaviest->flow;
}

/* Numerical Recipes' generator, whose upper bits are good enough. */
static uint32_t draw(struct early_drop *drop, uint32_t below)
{
    drop->random = drop->random * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)drop->random * below >> 32);
}

void early_drop_charge(struct early_drop *drop, uint32_t bytes, uint16_t flow, bool half_full)
{
    if (drop->total > EARLY_DROP_MEMORY)
        halve(drop);
    bytes += drop->unseen;
    entry_of(drop, flow)->bytes += bytes;
    drop->total += bytes;
    drop->unseen = 0;
    drop->due = EARLY_DROP_SAMPLE / 2 + draw(drop, EARLY_DROP_SAMPLE);
    if (UNLIKELY(half_full && !drop->half_full))
        choose_victim(drop);
    drop->half_full = half_full;
}

bool early_drop_takes(struct early_drop *drop, uint16_t flow)
{
    if (drop->victim != flow || !drop->has_victim)
        return false;
    drop->has_victim = false;
    return true;
}
