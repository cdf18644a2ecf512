/* Does a VM leave checksums undone although its port is not set for it?

   Theory of operation. A VM whose device promises offloads that the switch was not told of is silently dead: what it
   sends over TCP and UDP has sums that are begun and not finished, and no receiver takes it; only ping works. The begun
   sum can be told from a finished one (infer.h), so such a VM can be named.

   Samples do: at the most SAMPLE_FRAMES frames once in SAMPLE_NS, of the first run that is flushed then. Each frame
   whose sum is begun adds one to a score, each TCP or UDP frame whose sum is not takes one off. Who reaches
   NOTICE_SCORE is named, until the score is back at nothing. A finished sum looks begun once in 65,536 frames, so a VM
   without offloads comes to 3 once in 10^14 samples; one with offloads after its third packet, which its own repetition
   of a first SYN makes within 7 s, and a resolver's two questions within 5.

   Example. A VM boots and sends DHCP through a raw socket, which finishes its sums itself: 0. It asks for a name, twice
   the A and the AAAA record: 2, 4, and is named. Its owner sets offload=tso: nothing is sampled any more, and it is
   not. */
#ifndef BULKHEAD_UNFINISHED_H
#define BULKHEAD_UNFINISHED_H

#include "port/port.h"

/* Look at a plain run of a VM whose headers are not inferred, if a sample is due. */
void unfinished_sample(struct engine *e, const struct frame_run *run);

#endif
