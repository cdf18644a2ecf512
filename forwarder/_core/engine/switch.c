/* From the VM: which frames go where.

   Theory of operation. Frames come in runs that carry the same two addresses. The verdict is reached once a run (learn
   the source, look the destination up), and what is for one peer goes its way (send.c). Nothing is shown to anybody
   before switch_end: one publication and at the most one bell per destination and burst.

   A TAP's frames come behind their virtio_net_hdrs and go so through the ring to another TAP. On any other way they
   are finished first (offload.h): what is flooded, waits in a pen or is for another kind of VM is plain. */
#include "engine/engine.h"
#include "packet/offload.h"

void switch_begin(struct engine *e)
{
    e->verdict.valid = false;
}

/* Also where no peer is known yet: those who learn of this port later read what it said from its start. */
void switch_flood(struct engine *e, const uint8_t *frame, uint32_t bytes, enum flood_kind kind)
{
    flood_put(&e->flood, frame, bytes, kind);
    if (kind != FLOOD_ANNOUNCE)
        e->count.flooded++;
}

static const uint8_t broadcast[MAC_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static struct rate *flood_rate(struct engine *e, const uint8_t *dst, enum flood_kind kind)
{
    if (kind == FLOOD_UNKNOWN)
        return &e->unknown_rate;
    return &e->group_rate[memcmp(dst, broadcast, MAC_BYTES) == 0 ? 0 : 1];
}

void flood_run(struct engine *e, const struct pending_run *run, enum flood_kind kind)
{
    const uint8_t *record = run->start;
    struct rate *rate = flood_rate(e, frame_dst(record_frame(record)), kind);
    for (uint32_t i = 0; i < run->frames; i++) {
        uint32_t bytes = load_be32(record);
        if (rate_admits(rate, e->now)) {
            switch_flood(e, record_frame(record), bytes, kind);
        } else {
            e->count.storm++;
            engine_refused(e, 1);
        }
        record += LENGTH_BYTES + bytes;
    }
}

static void drop_run(struct engine *e, const struct pending_run *run)
{
    uint64_t *counter = e->verdict.dropped;
    *counter += run->frames;
    if (counter != &e->count.hairpin) /* which is no offence: a bridge in the VM does it */
        engine_refused(e, run->frames);
}

static void pass_run(struct engine *e, struct pending_run *run)
{
    const struct verdict *verdict = &e->verdict;
    if (verdict->where == TO_PEER)
        send_run(e, verdict->peer, run);
    else
        flood_run(e, run, verdict->kind);
    run->frames = run->bytes = 0;
}

static bool goes_as_it_is(const struct engine *e, const struct pending_run *run)
{
    const struct verdict *verdict = &e->verdict;
    return !run->vnet || (verdict->where == TO_PEER && verdict->peer->takes_vnet && verdict->peer->path == PATH_RING);
}

/* Do what the sender's kernel has left to be done, and pass on what becomes of it in runs of the usual size. */
static void finish_run(struct engine *e, const struct pending_run *run)
{
    struct pending_run plain = {.start = e->in.finished};
    struct offload offload;
    for (uint32_t at = 0; at < run->bytes; at += LENGTH_BYTES + load_be32(run->start + at)) {
        if (UNLIKELY(!offload_open(&offload, record_frame(run->start + at), load_be32(run->start + at)))) {
            e->count.offload++;
            engine_refused(e, 1);
            continue;
        }
        while (!offload_is_done(&offload)) {
            if (plain.frames > 0 && plain.bytes + offload_next_bytes(&offload) > RUN_BYTES)
                pass_run(e, &plain);
            plain.bytes += offload_next(&offload, e->in.finished + plain.bytes);
            plain.frames++;
        }
    }
    if (plain.frames > 0)
        pass_run(e, &plain);
}

static void flush_run(struct engine *e, struct pending_run *run)
{
    if (run->frames == 0)
        return;
    if (e->verdict.where == TO_NOBODY)
        drop_run(e, run);
    else if (LIKELY(goes_as_it_is(e, run)))
        pass_run(e, run);
    else
        finish_run(e, run);
    run->frames = run->bytes = 0;
}

/* May the VM speak with this source address? Learns it on the way. Returns the counter to charge, or NULL. */
static uint64_t *refuse_source(struct engine *e, const uint8_t *src)
{
    struct fdb *fdb = &e->block->fdb;
    if (e->own_pins)
        return fdb_is_pinned_to(fdb, src, e->port) ? NULL : &e->count.spoofed;
    if (mac_is_group(src))
        return NULL;
    if (e->mac_limit != 0 && fdb->count[e->port] >= e->mac_limit && fdb_lookup(fdb, src) != e->port)
        return &e->count.mac_limit;
    return fdb_learn(fdb, src, e->port) == FDB_REFUSED ? &e->count.spoofed : NULL;
}

static void refuse(struct verdict *verdict, uint64_t *counter)
{
    verdict->where = TO_NOBODY;
    verdict->dropped = counter;
}

static void decide(struct engine *e, const uint8_t *frame)
{
    struct verdict *verdict = &e->verdict;
    const uint8_t *dst = frame_dst(frame);
    memcpy(verdict->addresses, frame, sizeof verdict->addresses);
    verdict->valid = true;
    verdict->where = TO_ALL;
    uint64_t *refused = refuse_source(e, frame_src(frame));
    if (UNLIKELY(refused != NULL)) {
        refuse(verdict, refused);
        return;
    }
    verdict->kind = FLOOD_GROUP;
    if (mac_is_group(dst))
        return;
    uint32_t port = fdb_lookup(&e->block->fdb, dst);
    verdict->kind = FLOOD_UNKNOWN;
    verdict->peer = peers_get(&e->peers, port);
    if (port == e->port)
        refuse(verdict, &e->count.hairpin);
    else if (verdict->peer != NULL && verdict->peer->out_of_reach)
        refuse(verdict, &e->count.isolated);
    else if (verdict->peer != NULL)
        verdict->where = TO_PEER;
}

/* Switch the whole records at the front of `bytes`; returns how many bytes those were. *status says what stopped
   it: RECORD_PARTIAL (the rest is not all there) or a bad length. */
uint32_t switch_records(struct engine *e, uint8_t *bytes, uint32_t available, enum record_status *status)
{
    uint32_t header = vm_header_bytes(&e->vm), at = 0, size, frames = 0;
    struct pending_run run = {.vnet = header != 0};
    while ((*status = record_next(bytes + at, available - at, &size)) == RECORD_WHOLE) {
        const uint8_t *frame = record_frame(bytes + at) + header;
        bool same = e->verdict.valid && memcmp(frame, e->verdict.addresses, sizeof e->verdict.addresses) == 0;
        if (!same || run.bytes + size > RUN_BYTES)
            flush_run(e, &run);
        if (!same)
            decide(e, frame);
        if (run.frames == 0)
            run.start = bytes + at;
        run.frames++;
        run.bytes += size;
        frames++;
        at += size;
    }
    flush_run(e, &run);
    e->count.rx_frames += frames;
    e->count.rx_bytes += at - (uint64_t)frames * (LENGTH_BYTES + header);
    return at;
}

static void ring_bells(struct engine *e, bool flooded)
{
    bool ring_all = false;
    atomic_thread_fence(memory_order_seq_cst); /* pairs with sleep_announce */
    for (uint32_t i = 0; i < e->touched_count; i++) {
        struct peer *peer = e->touched[i];
        peer->touched = false;
        if (peer->flood.shared == NULL || sleep_needs_bell(&peer->flood.shared->sleep, &peer->rung)) {
            doorbell_ring(peer->doorbell);
            e->count.doorbells++;
        }
    }
    e->touched_count = 0;
    for (uint32_t i = 0; flooded && !e->hushed && i < e->peers.count; i++) {
        struct peer *peer = e->peers.at[e->peers.port[i]];
        ring_all |= peer->flood.shared == NULL || sleep_needs_bell(&peer->flood.shared->sleep, &peer->rung);
    }
    if (ring_all) {
        doorbell_ring(e->flood_doorbell);
        e->count.doorbells++;
    }
}

#define INTRODUCTION_NS NS_PER_S

void switch_greet(struct engine *e)
{
    if (!e->met_peer || e->hushed)
        return;
    e->met_peer = false;
    if (e->flooded_at != 0 && monotonic_ns() - e->flooded_at < INTRODUCTION_NS)
        doorbell_ring(e->flood_doorbell);
}

void switch_end(struct engine *e)
{
    if (UNLIKELY(e->announce_due)) {
        e->announce_due = false;
        switch_flood(e, e->announce, sizeof e->announce, FLOOD_ANNOUNCE);
    }
    bool flooded = flood_publish(&e->flood);
    if (flooded)
        e->flooded_at = monotonic_ns();
    for (uint32_t i = 0; i < e->touched_count; i++)
        ring_publish(&e->touched[i]->tx);
    if (flooded || e->touched_count > 0)
        ring_bells(e, flooded);
}
