/* Early drop: choose the flow that loses a frame when a ring fills up.

   Theory of operation. TCP fills a ring: its streams grow until they lose a frame. If the frame that finds no room is
   lost, then chance, and the order in which a program serves its sockets, choose the flow: some streams get a fifth
   less than others for good. So one frame is dropped earlier, when the ring is half full. It is the next frame of the
   heaviest flow, which has put most bytes into this ring lately. No other flow loses anything, and all flows reach
   the same rate, since each is the heaviest in turn (as in Approximate Fair Dropping, Pan, Breslau, Prabhakar and
   Shenker, 2003, without its estimate of a fair rate: the heaviest of several flows is above it).

     event                          what follows
     the ring becomes half full     the heaviest flow becomes the victim, in place of any other one;
                                    none does if one flow is as good as alone: it may fill the ring
     a frame of the victim          it is dropped, and there is no victim
     the counts are halved          there is no victim: the time that it was chosen in is over

   Only one frame each time, since a sender reacts to one loss as to a hundred within a round trip (RFC 5681, section
   3.2). It is the flow's next frame, however full the ring is then; otherwise a flow that always sends first would
   never lose. A flow that does not react fills the ring, and then the tail is dropped as usual.

   Recent bytes are counted for up to EARLY_DROP_FLOWS flows, in sets of EARLY_DROP_WAYS; a new flow replaces the
   lightest in its set. All counts are halved when their sum reaches EARLY_DROP_MEMORY, which is the only clock. That
   is many bursts, so the order within one does not matter, and less than a stream sends while it grows back after a
   loss (a second at 8 Gbit/s is 15 times as much).

   Bytes are counted by samples, as in sFlow (RFC 3176), since reading each frame would cost a tenth of the rate of
   small ones. About every EARLY_DROP_SAMPLE bytes one frame is charged all bytes since the last sample. The exact
   distance is random: flows take turns, and samples in step with them would see one flow only. EARLY_DROP_MEMORY is
   4,096 samples, so each of eight equal flows is known to a twentieth; a frame of one and a half samples is always
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
/* A flow is alone if all others together are less than this part of the sum. */
#define EARLY_DROP_OTHERS 8u

struct early_drop_flow {
    uint32_t bytes;
    uint16_t flow;
};

struct early_drop {
    struct early_drop_flow flows[EARLY_DROP_FLOWS];
    uint32_t total;
    uint32_t unseen; /* bytes since the last sample */
    uint32_t due;    /* when they are so many, the next sample is due */
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
