/* One engine with one neighbour, without a VM behind it: what the fuzz targets share. */
#ifndef BULKHEAD_FUZZ_HARNESS_H
#define BULKHEAD_FUZZ_HARNESS_H

#include "engine/engine.h"

#define OWN_PORT 1u
#define PEER_PORT 2u
#define FUZZ_RING_BYTES (1u << 19)

struct pair {
    struct engine engine;
    int vm[2], doorbell, flood_doorbell, stats, flood, peer_flood;
    struct ring_fds ring;
    struct ring_rx reader;
    struct flood_tx peer;
};

/* Aborts where the machine gives no descriptors or memory. */
struct pair *pair_open(void);
struct pair *pair_open_as(enum port_kind kind);
void pair_close(struct pair *pair);

/* The neighbour floods a frame. */
void pair_speak(struct pair *pair);

/* A number over all records that the engine has put into the ring and the flood ring. */
uint64_t pair_digest(struct pair *pair);

#endif
