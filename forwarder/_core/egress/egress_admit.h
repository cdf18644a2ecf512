/* What may be written to the VM: the destination's side of intake.h.

   Theory of operation. What the VM takes may shrink while frames for it are in rings, and a sender may not keep to it;
   so each run is looked at before it is written. Where everything is taken (a TAP), or a plain run is for a VM that
   takes any length, that costs nothing. Else the lengths of its records are walked through, and headers are looked at.

   A guest's queue is written frame by frame, and each is looked at then (vhost_port.h).

   Frames of a run that are refused are taken from the ring and counted, and the others go as they lie. So a view is a
   stretch of frames that all may go, or of frames that all may not. A stream is different, since a write may end inside
   of a frame and the place must be found again: of a run with a frame in it that is too long a copy is staged, without
   it.

   Example. A run of three frames, 1,514, 9,014 and 1,514 bytes, is for a datagram VM with an MTU of 1500: the first is
   written, at the next visit the second is refused, at the one after that the third is written. For a stream the first
   and the third are staged together. */
#ifndef BULKHEAD_EGRESS_ADMIT_H
#define BULKHEAD_EGRESS_ADMIT_H

#include "port/port.h"

struct stretch {
    uint32_t bytes; /* of records at the front of the view */
    uint32_t frames;
    bool admitted;
};

/* A view that begins at a record: how far the verdict on its first frame holds. The rest of a view that makes no sense
   is admitted, for the write to find out. */
struct stretch egress_admit(const struct engine *e, const struct run_view *view);

#endif
