/* The switch: decide where the frames of the VM go.

   Theory of operation. Frames come in runs that carry the same Ethernet header. The verdict is made once a run (learn
   the source, look the destination up, ask whether such frames may claim anything), and the run is sent (send.h).
   Other workers see nothing of a burst before switch_end: one publication and at most one bell per destination and
   burst.

   Frames with a virtio_net_hdr keep it in a ring to a destination that accepts their unfinished work. In all other
   cases they are finished first (intake.h, offload.h): flooded and pending frames are plain. Frames are finished where
   they are to lie: at the front of the destination's ring, if it has room for a run, else in own memory.

   Example. A burst has 30 frames from A to B, one ARP request and 12 frames from A to B. Three runs, three verdicts
   (the third is looked up again): 30 frames to the ring of B's port, 1 to the flood ring, 12 to the ring. switch_end
   publishes the ring once, with two runs in it, and the flood ring once.

   Calls. From the engine's thread: switch_begin, any number of switch_records, switch_end. A verdict is good between
   switch_begin and switch_end only, since membership may change the peer that it names in between. */
#ifndef BULKHEAD_SWITCH_H
#define BULKHEAD_SWITCH_H

#include "port/port.h"

void switch_begin(struct engine *e);
/* Switch the whole records at the front of `bytes`; returns how many bytes those were. *status says what stopped
   it: RECORD_PARTIAL (the rest is not all there) or a bad length. */
uint32_t switch_records(struct engine *e, uint8_t *bytes, uint32_t available, enum record_status *status);
void switch_end(struct engine *e);

#endif
