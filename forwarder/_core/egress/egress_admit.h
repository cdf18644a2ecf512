/* Check which frames may be written to the VM: the destination's side of intake.h.

   Theory of operation. The VM may stop accepting an offload while frames for it are in rings, and a sender may ignore
   it; so each run is checked before it is written. That costs nothing if the VM accepts everything (a TAP), or a
   plain run is for a VM that accepts any length. Otherwise the lengths and headers of its records are checked.

   A guest's queue is written frame by frame, and each is looked at then (vhost_port.h).

   For the gateway, the addresses that frames come from are checked as well (sources.h).

   Refused frames of a run are taken from the ring and counted, and the others are written in place. So a view is a
   stretch of frames that may all go, or of frames that may all not go. Frames for a stream are copied, and each
   length is looked at then. A neighbour may change a length after this check: it is checked again when the kernel gets it
   (vm.h).

   Example. A run of three frames, 1,514, 9,014 and 1,514 bytes, is for a datagram VM with an MTU of 1500: the first is
   written, at the next visit the second is refused, at the one after that the third is written. */
#ifndef BULKHEAD_EGRESS_ADMIT_H
#define BULKHEAD_EGRESS_ADMIT_H

#include "port/port.h"

struct stretch {
    uint32_t bytes; /* of records at the front of the view */
    uint32_t frames;
    uint64_t *refused; /* the counter to charge; NULL: they may go */
};

/* A view of `port`'s that begins at a record: how far the verdict on its first frame holds. A senseless rest of a view
   is admitted; the write will find the fault. */
struct stretch egress_admit(struct engine *e, uint32_t port, const struct run_view *view);

/* Learn the source of a peer's frames. True: the address is pinned to another port; the peer's worker should have
   refused it, but does not know that yet or is hostile. */
static inline bool egress_is_foreign(struct engine *e, const uint8_t *src, const struct peer *peer)
{
    return fdb_learn(&e->stats->fdb, src, peer->port) == FDB_REFUSED && !mac_is_group(src);
}

/* May the VM, if it is the gateway, hear this frame from `port`? */
bool egress_hears(struct engine *e, uint32_t port, const uint8_t *frame, uint32_t bytes);

#endif
