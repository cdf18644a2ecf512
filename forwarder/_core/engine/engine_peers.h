/* What membership changes in the engine: peers come and go, rings are attached and given up. */
#ifndef BULKHEAD_ENGINE_PEERS_H
#define BULKHEAD_ENGINE_PEERS_H

#include "engine/port.h"

int engine_peer_join(struct engine *e, uint32_t port, uint64_t epoch, uint64_t attachment);
void engine_peer_leave(struct engine *e, uint32_t port);
int engine_attach_flood(struct engine *e, uint32_t port, uint64_t epoch, int fd, bool from_start);
int engine_attach_tx(struct engine *e, uint32_t port, uint64_t epoch, struct ring_fds fds, int doorbell);
int engine_attach_rx(struct engine *e, uint32_t port, uint64_t epoch, struct ring_fds fds);
void engine_give_up_ring(struct engine *e, uint32_t port);

#endif
