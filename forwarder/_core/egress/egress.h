/* Egress: from the other ports' rings to the VM.

   Theory of operation. Sources are served by deficit round robin in bytes, with larger turns for a single source,
   since every write costs its reader a wake-up. A visit to a source takes its floods first, then its unicast frames.
   The unicast cursor is read before the flood cursor, so a frame that was flooded before its destination was learned
   is never overtaken by a later one.

   A worker that a guest has taken over may change its rings at any time, also while the kernel copies from them. The
   bytes of its frames may be anything then, but the VM finds the next frame where its length says: each length is read
   once into our own memory, checked there, and written from there. Flooded frames and short ones for a stream are copied
   to the staging. Long ones for a stream of QEMU's go to the kernel where they lie, each behind a length of ours; if the
   VM takes one in part, its rest is staged. The staging is emptied before any ring is touched, so at any instant at most
   one record is cut, and its rest is in our own memory. Messages (datagrams, TAP) go to the kernel where they lie, and
   their lengths with the call. A ring whose run is begun stays in service until the run is finished.

   egress_write.h says what happens when the VM does not take it.

   Example. Ports 2, 3 and 4 have 1 MiB, 200 KiB and nothing for the VM. Each visit may take 64 KiB: 2, 3, 2, 3, 2, 3, 2
   and port 3 is empty. Port 2 is alone then and takes 256 KiB a visit. After 512 KiB the turn ends, and the VM is read.

   Calls. From the engine's thread. Records are read where they lie in a neighbour's memory, so nothing in them is
   trusted; descriptions are copied before they are believed (ring.h). */
#ifndef BULKHEAD_EGRESS_H
#define BULKHEAD_EGRESS_H

#include "port/port.h"

bool egress_poll(struct engine *e, uint64_t now);
bool egress_has_news(const struct engine *e);
/* Count the frames in the peer's ring as lost, and free it. */
void egress_drop_source(struct engine *e, struct peer *peer);

#endif
