/* Detect a VM that leaves checksums undone although its port is not set for it.

   Theory of operation. If a VM's device uses offloads without a setting of its port, its network silently fails: its
   TCP and UDP have partial checksums, which every receiver drops; only ping works. A partial sum can be recognised
   (infer.h), so such a VM can be reported.

   Samples are enough: at most SAMPLE_FRAMES frames once in SAMPLE_NS, of the first run that is flushed then. Each
   frame with a partial sum adds one to a score, each other TCP or UDP frame subtracts one. A VM that reaches
   NOTICE_SCORE is reported, until the score is zero again. A finished sum looks begun once in 65,536 frames, so a VM
   without offloads comes to 3 once in 10^14 samples; one with offloads after its third packet, which its own
   repetition of a first SYN makes within 7 s, and a resolver's two questions within 5.

   Example. A VM boots and sends DHCP through a raw socket, which finishes its sums itself: 0. It asks for a name, twice
   the A and the AAAA record: 2, 4, and is named. Its owner sets offload=tso: nothing is sampled any more, and it is
   not. */
#ifndef BULKHEAD_UNFINISHED_H
#define BULKHEAD_UNFINISHED_H

#include "port/port.h"

/* Sample a plain run of a VM whose headers are not inferred, if a sample is due. */
void unfinished_sample(struct engine *e, const struct frame_run *run);

#endif
