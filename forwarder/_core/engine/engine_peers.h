/* Membership as the engine sees it: peers come and go, rings are attached and given up.

   Theory of operation. A peer is a port number under one epoch. When the epoch changes, everything that connected the
   two goes (peer.h): what the old ring still holds is delivered as far as the VM takes it now, the rest is counted as
   lost by the end that lives, and the flood ring is read to its end. A number that another VM gets (another attachment)
   takes nothing over: counters of losses start again and the MAC table forgets it.

   Example. Port 2's worker was killed with 40 frames in its ring to us and 3 of ours untaken. engine_peer_join(2, 12)
   writes 38 of the 40 before our VM's socket is full, adds 2 to stale_ring and 3 to the loss towards port 2, and
   closes both rings. Frames for port 2 are pending from now on until engine_attach_tx brings a ring of epoch 12.

   Calls. From the engine's thread, between two runs. Descriptors stay the caller's but for `doorbell` of
   engine_attach_tx, which is the engine's from a success on. Errors: -1 and errno, ESTALE where the peer does not exist
   under that epoch (any more); the caller asks again with what membership says then. */
#ifndef BULKHEAD_ENGINE_PEERS_H
#define BULKHEAD_ENGINE_PEERS_H

#include "port/port.h"

int engine_peer_join(struct engine *e, uint32_t port, uint64_t epoch, uint64_t attachment);
void engine_peer_leave(struct engine *e, uint32_t port);
int engine_attach_flood(struct engine *e, uint32_t port, uint64_t epoch, int fd, bool from_start);
int engine_attach_tx(struct engine *e, uint32_t port, uint64_t epoch, struct ring_fds fds, int doorbell);
int engine_attach_rx(struct engine *e, uint32_t port, uint64_t epoch, struct ring_fds fds);
void engine_give_up_ring(struct engine *e, uint32_t port);

/* Whether frames may pass between us and the port. Out of reach it has no ring to or from us, and none is taken. True:
   that has changed. */
bool engine_set_reach(struct engine *e, uint32_t port, bool reaches);

/* Is there a ring towards the peer that is empty and was not written to since it was last asked? */
bool engine_ring_is_idle(struct peer *peer);

/* Let go of the ring towards the port, if it is empty; the next frame asks for another. */
bool engine_detach_tx(struct engine *e, uint32_t port);

/* Let go of the ring from the port, which its producer has given up. */
void engine_detach_rx(struct engine *e, uint32_t port);

#endif
