/* The forwarding engine of one port: its state, shared by the files that each do one step of a turn.

   Theory of operation. One engine, one thread, one VM. A turn is

     inhale   ingress.c  read a burst from the VM, at most INHALE_BYTES
     switch   switch.c   check, learn, look up; publish; ring who sleeps
              send.c     into the rings
     exhale   egress.c   take from the other ports' rings in turn, write to the VM, at most EXHALE_BYTES
     tick     engine.c   publish counters; linger, then sleep, if there was nothing to do

   The two budgets bound a turn, so that a VM that floods cannot keep its own worker from serving what
   comes in for it, nor the other way round. Python is entered for control events and deadlines only. */
#ifndef BULKHEAD_ENGINE_H
#define BULKHEAD_ENGINE_H

#include "shared/stats_page.h"
#include "packet/frame.h"
#include "engine/busy_poll.h"
#include "engine/peer.h"
#include "packet/rate_limit.h"
#include "system/vm.h"
#include "system/waiter.h"

/* Large enough that system calls cost little per byte, small enough to stay in a second-level cache. */
#define INHALE_BYTES 262144u
#define EXHALE_BYTES 524288u

/* Inhale buffer: a burst behind a partial record. */
#define INBUF_BYTES (MAX_RECORD + INHALE_BYTES)
/* Frames on their way from flood rings to the VM; with room for one cut frame. */
#define STAGING_BYTES 262144u
/* What one source may send to the VM before the next one's turn (deficit round robin, RFC 8290 section 4.1.1
   uses the same scheme): one run. Where there is no other one it may send more, since few large writes cost less than
   many small ones; as much as the staging holds. */
#define QUANTUM_BYTES ((int64_t)RUN_BYTES)
#define ALONE_BYTES ((int64_t)STAGING_BYTES)

enum {
    EVENT_CONTROL = 1,
    EVENT_LINK_DOWN = 2,
    EVENT_WANTED = 4
};

struct inbuf {
    uint8_t *bytes;       /* streams, TAP: linear buffer of INBUF_BYTES; datagrams: SLOTS slots */
    uint8_t *records;     /* KIND_STREAM16: what the frames in it become, for the time of one inhale */
    size_t mapped;
    struct peer *landing; /* streams, TAP: the burst goes to the front of the ring towards this one; NULL: to `bytes` */
    uint64_t landed_at;   /* where that is, as that ring's cursor */
    uint8_t *burst;       /* and in memory */
    uint32_t rest;        /* streams: bytes there that were read and not yet switched, a partial record */
    uint8_t *finished;    /* TAP: RUN_LIMIT bytes, for frames whose offloads were done here */
};

/* Frames that go the same way: records one behind the other, in memory that is this engine's. */
struct pending_run {
    uint8_t *start;
    uint32_t bytes;
    uint32_t frames;
    bool vnet; /* each frame is behind its virtio_net_hdr */
};

/* The verdict on the last frame, good for the next ones that carry the same two addresses. */
struct verdict {
    bool valid;
    uint8_t addresses[2 * MAC_BYTES];
    enum { TO_PEER, TO_ALL, TO_NOBODY } where;
    enum flood_kind kind;      /* TO_ALL */
    struct peer *peer;         /* TO_PEER */
    uint64_t *dropped;         /* TO_NOBODY: the counter to charge */
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
    uint64_t taken;         /* bytes from sources, also of frames that were not for the VM: what bounds a turn */
};

struct engine {
    uint32_t port;
    uint64_t epoch;
    struct vm vm;
    bool down;
    bool held; /* the VM's descriptor is left alone until membership is known */
    char link_error[96];
    struct waiter waiter;
    int doorbell;
    int flood_doorbell;
    bool deaf; /* does not hear them, because its VM does not read */
    struct shm block_shm;
    struct block *block;
    struct counters count;
    uint32_t unpublished_turns;
    struct lingering lingering;
    uint64_t pulse_ns; /* it publishes at least so often */
    struct peers peers;
    struct flood_tx flood;
    struct inbuf in;
    struct verdict verdict;
    struct peer *touched[MAX_PORTS];
    uint32_t touched_count;
    struct egress out;
    bool flood_unknown;      /* deliver unknown unicast to this VM */
    bool own_pins;           /* only pinned sources may speak */
    struct rate group_rate[2]; /* broadcast, multicast: frames a second */
    struct rate unknown_rate;
    struct rate byte_rate;
    struct rate refusal_rate; /* what the VM sends although it may not: never dropped faster than that */
    uint32_t mac_limit; /* addresses behind the VM; 0: no limit */
    uint64_t now;       /* ns, at the start of the turn */
    uint64_t flooded_at; /* ns, when the flood ring was last published */
    bool met_peer;      /* since the last run */
    bool hushed;        /* nobody is rung for floods: not all know us, and who gets to know us looks anyway */
    bool announce_due;
    uint8_t announce[2 * MAC_BYTES];
    bool wanted[MAX_PORTS];
    bool any_wanted;
};

/* engine.c */
int engine_open(struct engine *e, enum port_kind kind, int vm, int block, int flood);
void engine_close(struct engine *e);
/* Leave the VM unread and unwatched, or go on with it. */
int engine_hold(struct engine *e, bool held);
unsigned engine_run(struct engine *e, uint64_t timeout_ns);
void engine_link_down(struct engine *e, const char *what, int error);
uint64_t engine_queued(const struct engine *e);

/* engine_peers.c: what membership changes */
int engine_peer_join(struct engine *e, uint32_t port, uint64_t epoch, uint64_t born, bool takes_vnet);
void engine_peer_leave(struct engine *e, uint32_t port);
int engine_attach_flood(struct engine *e, uint32_t port, uint64_t epoch, int fd);
int engine_attach_tx(struct engine *e, uint32_t port, uint64_t epoch, struct ring_fds fds, int doorbell);
int engine_attach_rx(struct engine *e, uint32_t port, uint64_t epoch, struct ring_fds fds);
void engine_give_up_ring(struct engine *e, uint32_t port);
void engine_drop_source(struct engine *e, struct peer *peer);

/* Streams only: the position is in doubt from here on, until engine.c finds both directions at a boundary. */
static inline void engine_in_doubt(struct engine *e)
{
    if (vm_is_stream(&e->vm))
        atomic_store_explicit(&e->block->at_boundary, 0, memory_order_seq_cst);
}

/* The VM sent frames that it may not send. */
static inline void engine_refused(struct engine *e, uint32_t frames)
{
    rate_charge(&e->refusal_rate, frames, e->now);
}

/* ingress.c */
int ingress_open(struct engine *e);
void ingress_close(struct engine *e);
bool ingress_inhale(struct engine *e);
/* The peer's ring is about to go, or to be written to by somebody else than the inhale. */
void ingress_leave_ring(struct engine *e, const struct peer *peer);
/* When a VM that was too fast is read again, ns; 0: now. */
uint64_t ingress_resumes(const struct engine *e);

/* switch.c */
void switch_begin(struct engine *e);
uint32_t switch_records(struct engine *e, uint8_t *bytes, uint32_t available, enum record_status *status);
void switch_end(struct engine *e);
/* A peer may have read our floods for a while before we knew whom to ring: ring once if any was so recent. */
void switch_greet(struct engine *e);
void switch_flood(struct engine *e, const uint8_t *frame, uint32_t bytes, enum flood_kind kind);
void flood_run(struct engine *e, const struct pending_run *run, enum flood_kind kind);

/* send.c */
void send_run(struct engine *e, struct peer *peer, const struct pending_run *run);

static inline const uint8_t *first_frame(const struct pending_run *run)
{
    return record_frame(run->start) + (run->vnet ? VNET_BYTES : 0);
}

/* egress.c */
bool egress_exhale(struct engine *e, uint64_t now);
void egress_flush(struct engine *e, uint64_t now);
bool egress_stage(struct engine *e, const uint8_t *bytes, uint32_t count, uint32_t frames);
uint64_t egress_deadline(const struct engine *e);
bool egress_has_news(const struct engine *e);

#endif
