/* The other ports, as the engine of one port knows them.

   Theory of operation. Membership decides which peers exist and under which epoch (engine_peers.h). Rings, pending
   queue and doorbell belong to one pair of epochs: they are freed when either end gets a new epoch, so no frame of an
   earlier epoch is ever forwarded. The path towards a peer is a state:

     state          left by                        a frame for the peer
     PATH_NONE      the first frame for it         is the reason to ask for a ring
     PATH_PENDING   the ring comes, or is refused  waits in the pending queue, private and bounded
     PATH_FLOOD     the ring comes                 is flooded: worse, but not silent
     PATH_RING      a new epoch                    goes into the ring

   Pending frames enter the ring first, in order; where the ring is refused (no supervisor), they are flooded.

   Example. A VM sends 20 frames to port 2 at once. The first makes the path PENDING and asks for a ring; all 20 wait,
   30 KiB of 256. The ring comes 400 us later: 20 frames go into it, port 2 is rung once, and frame 21 goes there alone.

   Calls. From the engine's thread. Peers belong to the struct that peers_add put them into; peers_remove frees one with
   all that it holds. */
#ifndef BULKHEAD_PEER_H
#define BULKHEAD_PEER_H

#include "packet/early_drop.h"
#include "shared/flood.h"
#include "shared/ring.h"

/* The pending queue holds one burst of one conversation until the ring is there (about 1 ms). */
#define PENDING_BYTES 262144u

enum path {
    PATH_NONE,  /* nothing sent yet */
    PATH_PENDING,   /* ring asked for, frames wait */
    PATH_FLOOD, /* no ring to be had for now */
    PATH_RING
};

struct peer {
    uint32_t port;
    uint64_t epoch;
    uint64_t attachment; /* epoch of the port's first worker: distinguishes VMs with the same number */
    enum path path;
    struct ring_tx tx;
    struct early_drop early_drop; /* what goes into it */
    uint64_t runs_asked; /* `put` at the last check for idleness */
    struct ring_rx rx;
    struct flood_rx flood;
    uint8_t *pending;
    uint32_t pending_bytes;
    int doorbell;     /* -1: none */
    uint32_t rung;    /* the sleep that was last rung for */
    int64_t deficit;  /* bytes this source may still send to the VM in this round */
    bool is_new;       /* its VM may have come when this port had no worker, and none of its floods was read */
    bool out_of_reach; /* isolation: nothing passes between this port and that one */
    bool touched;     /* has unpublished frames in tx */
};

struct peers {
    struct peer *at[MAX_PORTS];    /* by port number */
    uint16_t port[MAX_PORTS];      /* dense list of those that exist */
    uint32_t count;
};

struct peer *peers_add(struct peers *peers, uint32_t port);
/* Returns the place in the list that it had; those behind it have moved up by one. */
uint32_t peers_remove(struct peers *peers, uint32_t port);

static inline struct peer *peers_get(const struct peers *peers, uint32_t port)
{
    return port < MAX_PORTS ? peers->at[port] : NULL;
}

/* Release the path towards the peer: ring, doorbell, pending queue. */
void peer_close_path(struct peer *peer);

/* Append records to the pending queue; returns the frames that fitted. */
uint32_t pending_put(struct peer *peer, const uint8_t *records, uint32_t frames);

#endif
