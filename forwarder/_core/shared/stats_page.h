/* A port's statistics page: its counters, what it lost towards and from each peer, its dealings with others, its MAC
   table.

   Theory of operation. One worker writes, the supervisor reads without asking, so that a wedged worker is still
   visible. The engine counts in private memory and copies to the page before it sleeps and every so many turns. Each
   value is stored whole; the set of them is a snapshot only once the worker is quiet. The page outlives its worker: the
   next one continues the same numbers.

   The page also holds the time of publication. A worker publishes once an interval even if nothing happens
   (`Engine.pulse`), so an old time shows, without a message, that the loop does not turn. The time is stored last, with
   release: a reader that has acquired it reads these counters or later ones, and need not read again until it changes.

   Example. A worker is killed after 1,000 frames of which it had published 990. Its successor reads 990 and goes on
   from there: ten frames are never counted, and no counter ever goes back.

   The page says how far this port has read each flood ring, too. The next worker goes on there (engine_peers.h).

   Calls. stats_page_publish, page_add and stats_page_forget from the one worker that has the port; stats_page_read from any
   process that maps the page. The descriptor stays the caller's; shm_unmap frees a mapping. */
#ifndef BULKHEAD_STATS_PAGE_H
#define BULKHEAD_STATS_PAGE_H

#include <stdatomic.h>

#include "shared/dealings.h"
#include "shared/fdb.h"
#include "shared/shm.h"

/* rx: from the VM; tx: to the VM. */
#define COUNTERS(X)                                                                                          \
    X(rx_frames)    /* frames read from the VM, those dropped below included */                              \
    X(rx_bytes)                                                                                              \
    X(tx_frames)    /* frames written to the VM */                                                           \
    X(tx_bytes)                                                                                              \
    X(flooded)      /* frames from the VM that went to the flood ring */                                     \
    X(eagain)       /* writes that found the VM's socket full */                                             \
    X(enobufs)      /* writes that found no buffer, retried by timer */                                      \
    X(runt)         /* from the VM, shorter than an Ethernet header */                                       \
    X(oversize)     /* from the VM, longer than MAX_FRAME */                                                 \
    X(spoofed)      /* from the VM, source address pinned elsewhere */                                       \
    X(guarded)      /* from the VM, what its guard refuses, from no station's address, or PAUSE */            \
    X(over_rate)    /* from the VM, a question or connection to the gateway above its rate */                \
    X(storm)        /* from the VM, broadcast, multicast or unknown unicast above its rate */                \
    X(isolated)     /* from the VM, to a port that it may not reach */                                       \
    X(offload)      /* from the VM, with an offload that makes no sense, or too long and not to be cut */    \
    X(mac_limit)    /* from the VM, one source address too many */                                           \
    X(hairpin)      /* from the VM, to an address behind itself */                                           \
    X(filtered)     /* to the VM, refused by the port's settings */                                          \
    X(stale_ring)   /* to the VM, in a ring whose producer left or broke it */                               \
    X(sources)      /* to the VM, the gateway, from an address beyond its sender's share */                   \
    X(refused)      /* to the VM, refused by it (too long, an offload not taken), its socket or its device */                  \
    X(flood_lost)   /* to the VM, overwritten in a flood ring before it could be read */                     \
    X(egress_bytes) /* waiting for the VM now */                                                             \
    X(turns)                                                                                                 \
    X(sleeps)                                                                                                \
    X(doorbells)

struct counters {
#define X(name) uint64_t name;
    COUNTERS(X)
#undef X
};

#define COUNTER_COUNT (sizeof(struct counters) / sizeof(uint64_t))

extern const char *const counter_names[COUNTER_COUNT];

struct loss {
    _Atomic uint64_t attachment; /* first epoch of the peer that the numbers are about */
    _Atomic uint64_t towards; /* frames for it that its ring had no room for */
    _Atomic uint64_t from;    /* its floods that this port lost */
    _Atomic uint64_t flood_ring; /* the inode of its flood ring, while that is read; else 0 */
    _Atomic uint64_t flood_at;   /* the cursor up to which it was read */
};

struct stats_page {
    uint32_t magic;
    uint32_t layout;
    /* 1 while the worker is between two system calls on a stream and both directions are at the end of a
       record: were it killed now, the next worker could go on with the same stream. */
    _Atomic uint32_t at_boundary;
    /* Of a guest's two queues (virtqueue.h): the last move of their indices, from and to. */
    _Atomic uint32_t queue_moved[2];
    _Atomic uint32_t session_number; /* of the last stored state of a vhost-user session */
    _Atomic uint32_t answered;       /* digest of an answered message that is not taken out yet; or 0 */
    _Atomic uint32_t memory_gone; /* 1: the guest took its memory away, which ended the worker */
    _Atomic uint64_t published_ns; /* when `published` was written, monotonic; stored after it */
    _Atomic uint64_t published[COUNTER_COUNT];
    struct loss loss[MAX_PORTS];
    struct sent sent[MAX_PORTS]; /* by peer; of the same attachment as its loss */
    struct questions questions;
    struct fdb fdb;
};

int stats_page_create(uint64_t secret);
struct stats_page *stats_page_map(struct shm *shm, int fd, enum shm_access access);

void stats_page_publish(struct stats_page *page, const struct counters *counters, uint64_t now);
void stats_page_read(const struct stats_page *page, struct counters *counters);

/* The losses of `port` concern another VM from now on: reset them. */
void stats_page_forget(struct stats_page *page, uint32_t port, uint64_t attachment);

/* The attachment of `port`, which fdb_lookup has just returned: of the VM whose frame the worker has learned, not of an
   earlier one with that number. 0: none. */
uint64_t stats_page_attachment(const struct stats_page *page, uint32_t port);

#endif
