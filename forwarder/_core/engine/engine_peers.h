/* Membership as the engine sees it: peers come and go, rings are attached and given up.

   Theory of operation. A peer is a port number under one epoch. When the epoch changes, everything that connected the
   two is freed (peer.h). Frames in the old ring are delivered as far as the VM accepts them now; the end that lives
   counts the rest as lost. The flood ring is read to its end. If another VM gets the number (another attachment), it
   inherits nothing: the loss counters start again and the MAC table forgets the number.

   A worker that follows another one of its port within seconds loses no floods in between: it reads each ring on from where
   the last worker has stopped (stats_page.h), and a ring that this one has not read from its start.

   Example. Port 2's worker was killed with 40 frames in its ring to us and 3 of ours untaken. engine_peer_join(2, 12)
   writes 38 of the 40 before our VM's socket is full, adds 2 to stale_ring and 3 to the loss towards port 2, and
   closes both rings. Frames for port 2 are pending from now on until engine_attach_tx brings a ring of epoch 12.

   Calls. From the engine's thread, between two runs. The caller closes its descriptors, except `doorbell` of
   engine_attach_tx, which the engine closes after a success. Errors: -1 and errno, ESTALE if the peer does not exist
   under that epoch (any more); the caller asks again with membership's new epoch. */
#ifndef BULKHEAD_ENGINE_PEERS_H
#define BULKHEAD_ENGINE_PEERS_H

#include "port/port.h"

int engine_peer_join(struct engine *e, uint32_t port, uint64_t epoch, uint64_t attachment);
void engine_peer_leave(struct engine *e, uint32_t port);

/* Read the port's floods in this ring. One that was read before is read to its end first, as far as the VM accepts its
   frames now. */
int engine_attach_flood(struct engine *e, uint32_t port, uint64_t epoch, int fd, bool from_start);

/* Write our VM's floods to this ring from now on. */
int engine_move_floods(struct engine *e, int fd);

/* Has the port moved to another flood ring, and was the one that we have read to its end? */
bool engine_floods_are_over(const struct engine *e, uint32_t port);

int engine_attach_tx(struct engine *e, uint32_t port, uint64_t epoch, struct ring_fds fds, int doorbell);
int engine_attach_rx(struct engine *e, uint32_t port, uint64_t epoch, struct ring_fds fds);
void engine_give_up_ring(struct engine *e, uint32_t port);

/* Set whether frames may pass between us and the port. Out of reach it has no ring to or from us, and none is
   accepted. Returns whether that has changed. */
bool engine_set_reach(struct engine *e, uint32_t port, bool reaches);

/* Is there a ring towards the peer that is empty and was not written to since the last call? */
bool engine_ring_is_idle(struct peer *peer);

/* Free the ring towards the port, if it is empty; the next frame asks for another. */
bool engine_detach_tx(struct engine *e, uint32_t port);

/* Free the ring from the port, which its producer has given up. */
void engine_detach_rx(struct engine *e, uint32_t port);

#endif
