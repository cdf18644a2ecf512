/* What becomes of a run that is for one peer: its ring, its pending queue, or the flood.

   Theory of operation. The path to the peer (peer.h) says where it goes. Into a ring it goes with one memcpy, or stays
   where it is if it was read to there (ingress.c). A frame that the ring has no room for is lost here, at the tail, and
   charged to the destination; nobody waits for it.

   Before that one may be lost early, for the sake of fairness between streams (early_drop.h). What a TAP has sent may be up
   to 45 segments in one frame, and then only the last of them is lost, as it would be if the frame had come in parts
   (offload_shorten): the sender learns the same from it and has less to send again. The rest goes on; one frame counts
   as lost. */
#ifndef BULKHEAD_SEND_H
#define BULKHEAD_SEND_H

#include "engine/port.h"

void send_run(struct engine *e, struct peer *peer, const struct frame_run *run);
/* One frame to all, without a limit of its rate. */
void send_flood(struct engine *e, const uint8_t *frame, uint32_t bytes, enum flood_kind kind);
void send_flood_run(struct engine *e, const struct frame_run *run, enum flood_kind kind);

#endif
