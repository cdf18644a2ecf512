/* Send a run of frames: into the ring to its peer, the pending queue, or the flood ring.

   Theory of operation. The path to the peer (peer.h) says where a run goes. It is copied into a ring with one memcpy,
   or stays in place if it was read there (inbuf.h) or finished there (switch.h). A frame without room in the ring is
   lost here, at the tail, and charged to the destination; the sender never waits.

   A frame may be lost earlier, so that streams get equal rates (early_drop.h). A TAP's frame may hold up to 45
   segments; then only the last of them is lost, as if they had come one by one (offload_shorten). The sender learns
   the same from it and has less to send again. The rest goes on; one frame counts as lost.

   Floods are written once, for all ports; group addresses and unknown ones have a rate each (rate_limit.h). A frame
   above its rate is dropped and counted as `storm`.

   Example. 64 KiB for port 2 are 43 frames, and 30 KiB of its ring are free: 20 frames are copied, 23 are added to the
   loss towards port 2. The run is not published yet: bells.h does that once for the burst.

   Calls. From the engine's thread, inside of a burst (switch.h) or where pending frames move on. Runs are only read,
   except that offload_shorten changes a frame in place. */
#ifndef BULKHEAD_SEND_H
#define BULKHEAD_SEND_H

#include "port/port.h"

void send_run(struct engine *e, struct peer *peer, const struct frame_run *run);
/* One frame to all, without a limit of its rate. */
void send_flood(struct engine *e, const uint8_t *frame, uint32_t bytes, enum flood_kind kind);
void send_flood_run(struct engine *e, const struct frame_run *run, enum flood_kind kind);

#endif
