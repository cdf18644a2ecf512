/* The state of one port's engine; each step of a turn, in a file of its own, works on it.

   Theory of operation. engine.h says what a turn is and which file does which part of it. This file includes none of
   them. Nothing here is shared or locked: only the thread that runs the engine may touch it. Memory that other
   processes see lies behind pointers: the stats page and the rings.

   Memory. All of it is made by engine_open and engine_peers.c, none per frame:

     in.bytes      262 + 68 KiB for a stream or a TAP, 32 slots of 72 KiB for datagrams; pages are touched when used
     out.staging   256 KiB
     a peer        0.7 KiB, and 256 KiB more while frames for it are pending */
#ifndef BULKHEAD_PORT_H
#define BULKHEAD_PORT_H

#include "capture/capture.h"
#include "shared/stats_page.h"
#include "packet/frame.h"
#include "port/asking.h"
#include "port/bells.h"
#include "port/busy_poll.h"
#include "port/guard.h"
#include "port/peer.h"
#include "port/sources.h"
#include "packet/rate_limit.h"
#include "system/vm.h"
#include "system/waiter.h"
#include "vhost/vhost_port.h"

/* Large enough that system calls cost little per byte, small enough to stay in a second-level cache. */
#define INGRESS_BUDGET 262144u
#define EGRESS_BUDGET 524288u

/* Ingress buffer: a burst behind a partial record. */
#define INBUF_BYTES (MAX_RECORD + INGRESS_BUDGET)
/* Frames on their way from flood rings to the VM; with room for one cut frame. */
#define STAGING_BYTES 262144u
/* Bytes that one source may send to the VM before the next one's turn (deficit round robin, as in RFC 8290 section
   4.1.1): one run. A single source may send more, since few large writes cost less than many small ones: as much as
   the staging holds. */
#define QUANTUM_BYTES ((int64_t)RUN_BYTES)
#define ALONE_BYTES ((int64_t)STAGING_BYTES)

struct inbuf {
    uint8_t *bytes;       /* streams, TAP: linear buffer of INBUF_BYTES; datagrams: SLOTS slots */
    uint8_t *records;     /* streams with another framing: the records made of their frames, for one poll */
    size_t mapped;
    bool large;           /* datagrams: the last burst had frames beyond the VM's MTU */
    struct peer *direct_rx; /* the burst goes to the front of the ring towards this one (inbuf.h); NULL: to `bytes` */
    uint64_t direct_at;   /* where that is, as that ring's cursor */
    struct intake direct_intake; /* what was taken there when it was read */
    uint8_t *burst;       /* and in memory */
    uint32_t rest;        /* streams: bytes there that were read and not yet switched, a partial record */
    uint8_t *finished;    /* RUN_LIMIT bytes, for frames that are finished here and cannot be finished in a ring */
};

/* Frames that go the same way: records one behind the other, in memory that is this engine's. */
struct frame_run {
    uint8_t *start;
    uint32_t bytes;
    uint32_t frames;
    bool vnet; /* each frame is behind its virtio_net_hdr */
};

static inline const uint8_t *first_frame(const struct frame_run *run)
{
    return record_frame(run->start) + (run->vnet ? VNET_BYTES : 0);
}

/* The verdict on the last frame, good for the next ones that carry the same two addresses and the same EtherType. */
struct verdict {
    bool valid;
    bool may_claim; /* frames of this EtherType are to be shown to the guard */
    bool may_ask;   /* frames to this address may ask the gateway */
    uint8_t header[ETHERNET_BYTES];
    enum { TO_PEER, TO_ALL, TO_NONE } where;
    enum flood_kind kind;      /* TO_ALL */
    struct peer *peer;         /* TO_PEER */
    uint64_t *dropped;         /* TO_NONE: the counter to charge */
};

struct egress {
    uint8_t *staging;
    uint32_t from, to;      /* staged bytes not yet written */
    uint32_t staged_frames; /* frames begun in the staging, counted when all of it is written */
    uint32_t turn;          /* index of the source in service */
    bool blocked;           /* waits for the VM or for the timer */
    bool fruitless;         /* the last wait ended and still nothing could be written */
    uint64_t retry_at;      /* ns; 0: no timer runs */
    uint64_t retry_ns;      /* the next pause */
    uint64_t written;       /* bytes, for the stall detection */
    uint64_t taken;         /* bytes from sources, also of frames that were not for the VM: they bound a turn */
};

/* Samples of what the VM leaves undone (unfinished.h). */
struct unfinished {
    uint64_t due; /* ns */
    uint32_t score;
    bool noticed;
    bool told; /* that is, to the caller of the engine */
};

struct engine {
    uint32_t port;
    uint64_t epoch;
    struct vm vm;
    struct vhost_port *vhost; /* KIND_VHOST: the guest's queues; else NULL */
    bool down;
    bool held; /* the VM's descriptor is left alone until membership is known */
    char link_error[96];
    struct waiter waiter;
    int doorbell;
    bool bells_masked; /* its VM does not read, so new frames are of no use */
    struct shm stats_shm;
    struct stats_page *stats;
    struct counters count;
    struct capture *captures; /* NULL: no capture */
    uint32_t unpublished_turns;
    struct busy_poll busy_poll;
    uint64_t pulse_ns; /* it publishes at least so often */
    struct peers peers;
    struct flood_tx flood;
    struct bells bells;
    struct inbuf in;
    struct verdict verdict;
    struct egress out;
    struct intake offered;   /* what the VM takes */
    uint32_t longest;        /* bytes of a frame that it is to be sent */
    bool follows;            /* the port's last worker has ended a moment ago */
    struct intake intake;    /* both together */
    uint32_t sends;          /* offloads that it may leave undone, of TAKES_ALL */
    struct unfinished unfinished;
    bool flood_unknown;      /* deliver unknown unicast to this VM */
    bool own_pins;           /* only pinned sources may speak */
    struct guard guard;
    struct asking asking;
    struct sources *sources; /* at the gateway's port: addresses that it hears; else NULL */
    struct rate_limit group_rate[2]; /* broadcast, multicast: frames a second */
    struct rate_limit unknown_rate;
    struct rate_limit byte_rate;
    struct rate_limit refusal_rate; /* what the VM sends although it may not: never dropped faster than that */
    uint32_t mac_limit; /* addresses behind the VM; 0: no limit */
    uint64_t now;       /* ns, at the start of the turn */
    bool reply_due;
    uint8_t reply[2 * MAC_BYTES];
    bool wanted[MAX_PORTS];
    bool any_wanted;
};

/* Set what the VM accepts from now on; frames that need more are no longer written to it. */
static inline void port_take(struct engine *e, struct intake intake)
{
    e->offered = e->intake = intake;
    if (e->intake.longest > e->longest)
        e->intake.longest = e->longest;
    flood_take(&e->flood, e->intake);
}

/* Set the operator's limit of a frame's length, whatever the VM accepts. */
static inline void port_limit(struct engine *e, uint32_t longest)
{
    e->longest = longest;
    port_take(e, e->offered);
}

/* The link is finished; nothing is read or written any more. `error` is an errno, or 0. */
void port_link_down(struct engine *e, const char *what, int error);

/* Streams only: the position is in doubt from here on, until engine.c finds both directions at a boundary. */
static inline void port_in_doubt(struct engine *e)
{
    if (vm_is_stream(&e->vm))
        atomic_store_explicit(&e->stats->at_boundary, 0, memory_order_seq_cst);
}

/* The common facts of captured frames; `counter`, one of e->count, is the reason of a drop. */
static inline struct sighting port_sighting(const struct engine *e, enum capture_way way, const uint64_t *counter)
{
    const uint64_t *first = (const uint64_t *)&e->count;
    return (struct sighting){.now = e->now, .way = (uint8_t)way, .reason = counter != NULL ? (uint8_t)(counter - first) : 0};
}

/* Records, each with `header` bytes in front of its frame, to the capture if there is one. */
static inline void port_sight(const struct engine *e, const uint8_t *records, uint32_t bytes, uint32_t header,
                              enum capture_way way, const uint64_t *counter)
{
    if (LIKELY(e->captures == NULL))
        return;
    struct sighting sighting = port_sighting(e, way, counter);
    sighting.header = header;
    captures_records(e->captures, records, bytes, &sighting);
}

/* One frame that is in no record. */
static inline void port_sight_frame(const struct engine *e, const uint8_t *frame, uint32_t bytes, enum capture_way way,
                                    const uint64_t *counter)
{
    if (LIKELY(e->captures == NULL))
        return;
    struct sighting sighting = port_sighting(e, way, counter);
    captures_frame(e->captures, frame, bytes, &sighting);
}

/* Charge refused frames: a VM that sends too many is read later. */
static inline void port_refused(struct engine *e, uint32_t frames)
{
    rate_limit_charge(&e->refusal_rate, frames, e->now);
}

/* Drop a frame from the VM: count it, show it to captures, and charge it. */
static inline void port_drop(struct engine *e, const uint8_t *frame, uint32_t bytes, uint64_t *counter)
{
    ++*counter;
    port_sight_frame(e, frame, bytes, CAPTURE_IN, NULL);
    port_sight_frame(e, frame, bytes, CAPTURE_DROP, counter);
    port_refused(e, 1);
}

#endif
