/* Early drop: which flow is to go slower when a ring fills up.

   Theory of operation. What fills a ring is TCP, whose streams grow until they lose something. If the loss falls on the
   frame that finds no room, chance decides whose it is, and so does the order in which a program serves its sockets:
   some streams then get a fifth less than others for good. So one frame is dropped before, when the ring is half full,
   and it is the heaviest flow's, the one of which most has been put into this ring lately. No other flow loses
   anything, and flows come to the same rate, since each is the heaviest in its turn (as in Approximate Fair Dropping,
   Pan, Breslau, Prabhakar and Shenker, 2003, without its estimate of a fair rate: the heaviest of several flows is
   above it).

     event                          what follows
     the ring becomes half full     the heaviest flow becomes the victim, in place of any other one;
                                    none does if one flow is as good as alone: it may fill the ring
     a frame of the victim          it is dropped, and there is no victim
     the counts are halved          there is no victim: the time that it was chosen in is over

   One frame each time, since a sender answers one loss and a hundred within a round trip alike (RFC 5681, section 3.2).
   It is the flow's next one, however full the ring is by then; else a flow that always sends first would never lose. A
   flow that does not answer fills the ring, and then the tail is dropped, as ever.

   What was put lately is counted in bytes for up to EARLY_DROP_FLOWS flows, in sets of EARLY_DROP_WAYS; a new one takes
   the place of the lightest in its set. All counts are halved when they make EARLY_DROP_MEMORY together, which is the
   only clock there is. That is many bursts, so the order within one does not matter, and less than a stream sends while
   it grows back after a loss (a second at 8 Gbit/s is 15 times as much).

   Bytes are counted by samples, as in sFlow (RFC 3176), since to look into each frame costs a tenth of the rate of
   small ones. Every EARLY_DROP_SAMPLE bytes or so one frame is charged all that has passed since the last one. Chance
   says how many exactly: flows come in turns, and samples in step with them would see one flow only. EARLY_DROP_MEMORY
   is 4,096 samples, so each of eight equal flows is known to a twentieth; a frame of one and a half samples is always
   one.

   Example. Flows A, B and C have 30, 20 and 14 MiB of the last 64. The ring becomes half full: A is the victim. Its
   next frame is dropped, A halves its window, and the ring empties. When it is half full again, B is the heaviest.

   Calls. Pure functions of their arguments, for the thread that owns the struct; one struct for each ring. */
#ifndef BULKHEAD_EARLY_DROP_H
#define BULKHEAD_EARLY_DROP_H

#include "common.h"

#define EARLY_DROP_WAYS 8u
#define EARLY_DROP_SETS 8u
#define EARLY_DROP_FLOWS (EARLY_DROP_SETS * EARLY_DROP_WAYS)
#define EARLY_DROP_MEMORY (64u << 20)
#define EARLY_DROP_SAMPLE 16384u
/* Alone: all others together are less than this part of it all. */
#define EARLY_DROP_OTHERS 8u

struct early_drop_flow {
    uint32_t bytes;
    uint16_t flow;
};

struct early_drop {
    struct early_drop_flow flows[EARLY_DROP_FLOWS];
    uint32_t total;
    uint32_t unseen; /* bytes since the last sample */
    uint32_t due;    /* when they are so many, the next one is */
    uint32_t random;    /* chance */
    bool half_full;       /* at the last sample */
    bool has_victim;
    uint16_t victim; /* the flow that loses its next frame */
};

/* `bytes`, RUN_LIMIT at most, are about to be put into the ring. True: no sample is due among them, and they are
   counted. False: one is, and nothing was. */
static inline bool early_drop_passes(struct early_drop *drop, uint32_t bytes)
{
    if (drop->unseen + bytes >= drop->due)
        return false;
    drop->unseen += bytes;
    return true;
}

/* A frame is the sample: it has so many bytes and is of this flow (flow.h), and the ring is half full or not. */
void early_drop_charge(struct early_drop *drop, uint32_t bytes, uint16_t flow, bool half_full);

/* Is a frame of this flow to be dropped? */
bool early_drop_takes(struct early_drop *drop, uint16_t flow);

#endif
