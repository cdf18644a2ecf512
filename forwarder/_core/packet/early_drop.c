#include "packet/early_drop.h"

static void halve(struct early *early)
{
    early->total = 0;
    early->marked = false;
    for (uint32_t i = 0; i < EARLY_FLOWS; i++) {
        early->flows[i].bytes /= 2;
        early->total += early->flows[i].bytes;
    }
}

static struct early_flow *entry_of(struct early *early, uint16_t flow)
{
    struct early_flow *set = &early->flows[flow % EARLY_SETS * EARLY_WAYS], *lightest = set;
    for (uint32_t i = 0; i < EARLY_WAYS; i++) {
        if (set[i].flow == flow)
            return &set[i];
        if (set[i].bytes < lightest->bytes)
            lightest = &set[i];
    }
    early->total -= lightest->bytes;
    *lightest = (struct early_flow){.flow = flow};
    return lightest;
}

static void mark_heaviest(struct early *early)
{
    const struct early_flow *heaviest = early->flows;
    for (uint32_t i = 1; i < EARLY_FLOWS; i++)
        if (early->flows[i].bytes > heaviest->bytes)
            heaviest = &early->flows[i];
    early->marked = early->total - heaviest->bytes >= early->total / EARLY_OTHERS;
    early->mark = heaviest->flow;
}

/* Numerical Recipes' generator, whose upper bits are good enough. */
static uint32_t draw(struct early *early, uint32_t below)
{
    early->lot = early->lot * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)early->lot * below >> 32);
}

void early_charge(struct early *early, uint32_t bytes, uint16_t flow, bool deep)
{
    if (early->total > EARLY_MEMORY)
        halve(early);
    bytes += early->unseen;
    entry_of(early, flow)->bytes += bytes;
    early->total += bytes;
    early->unseen = 0;
    early->due = EARLY_SAMPLE / 2 + draw(early, EARLY_SAMPLE);
    if (UNLIKELY(deep && !early->deep))
        mark_heaviest(early);
    early->deep = deep;
}

bool early_drops(struct early *early, uint16_t flow)
{
    if (early->mark != flow || !early->marked)
        return false;
    early->marked = false;
    return true;
}
