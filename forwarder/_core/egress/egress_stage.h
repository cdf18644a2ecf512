/* Copy frames to the staging: floods for every VM, and the runs of a stream that egress_stream.h does not write.

   Theory of operation. A flood is copied in any case, since its ring may be overwritten at any time (flood.h). It goes on
   behind a length in the VM's framing, unless it is not for this VM: a reply, unknown unicast that this port does not
   want, an address that is pinned to another port, a frame that is too long. A run is copied frame by frame if the
   framing is another one than the ring's (lengths of 16 bits), or if one of its frames may not go as it is.

   Example. The staging is empty. Three floods of 60 bytes come from port 2, one of them a reply: two are staged, 128
   bytes with their lengths, and egress_flush writes them in one call. */
#ifndef BULKHEAD_EGRESS_STAGE_H
#define BULKHEAD_EGRESS_STAGE_H

#include "port/port.h"

/* Stage the source's floods, as far as its deficit and the staging allow. True: the staging is full, and more may wait. */
bool egress_stage_floods(struct engine *e, struct peer *peer);

/* Stage runs for a stream, frame by frame; returns what was consumed. `garbled`: a record makes no sense. */
uint64_t egress_stage_runs(struct engine *e, const struct span *spans, unsigned count, bool *garbled);

#endif
