#include "ingress/switch.h"

#include "ingress/send.h"
#include "ingress/unfinished.h"
#include "offload/offload.h"
#include "packet/packet.h"

void switch_begin(struct engine *e)
{
    e->verdict.valid = false;
}

static void sight_run(const struct engine *e, const struct frame_run *run, enum capture_way way, const uint64_t *counter)
{
    port_sight(e, run->start, run->bytes, run->vnet ? VNET_BYTES : 0, way, counter);
}

static void drop_run(struct engine *e, const struct frame_run *run)
{
    uint64_t *counter = e->verdict.dropped;
    sight_run(e, run, CAPTURE_DROP, counter);
    *counter += run->frames;
    if (counter != &e->count.hairpin) /* which is allowed: a bridge in the VM does it */
        port_refused(e, run->frames);
}

static void pass_run(struct engine *e, struct frame_run *run)
{
    const struct verdict *verdict = &e->verdict;
    if (verdict->where == TO_PEER)
        send_run(e, verdict->peer, run);
    else
        send_flood_run(e, run, verdict->kind);
    run->frames = run->bytes = 0;
}

/* The intake of the run's destination. It is read once a run; a burst that was read in place keeps the intake of that
   moment. Pending frames are finished, and no longer than the destination accepts. */
static struct intake intake_of(const struct engine *e)
{
    const struct verdict *verdict = &e->verdict;
    if (verdict->where != TO_PEER)
        return INTAKE_PLAIN;
    if (verdict->peer == e->in.direct_rx)
        return e->in.direct_intake;
    struct intake intake = flood_intake(&verdict->peer->flood);
    if (verdict->peer->path != PATH_RING)
        intake.takes = 0;
    return intake;
}

/* A VM with inferred headers has a known MTU, and this frame is longer and cannot be cut. */
static bool is_beyond_mtu(const struct vm *vm, uint32_t bytes)
{
    return vm->infer_mtu != 0 && bytes > vm->infer_mtu + LINK_BYTES + TAG_BYTES;
}

static void drop_large(struct engine *e, const uint8_t *record)
{
    e->count.offload++;
    port_sight(e, record, LENGTH_BYTES + load_be32(record), VNET_BYTES, CAPTURE_DROP, &e->count.offload);
}

/* Where the next run of finished frames is made: where it is to lie, in its destination's ring, if that has room for a
   run. No burst lies there: what is read to a ring needs not be finished for it (inbuf.c). */
static uint8_t *place_of_finished(const struct engine *e)
{
    struct peer *peer = e->verdict.where == TO_PEER ? e->verdict.peer : NULL;
    bool has_room = peer != NULL && peer->path == PATH_RING && ring_has_room(&peer->tx, RUN_LIMIT);
    return has_room ? ring_front(&peer->tx) : e->in.finished;
}

/* Finish one frame, except for the work that the destination accepts undone. */
static void finish_frame(struct engine *e, const uint8_t *record, struct intake intake, struct frame_run *plain)
{
    struct offload offload;
    if (UNLIKELY(!offload_open(&offload, record_frame(record), load_be32(record)))) {
        drop_large(e, record);
        port_refused(e, 1);
        return;
    }
    bool parts_are_datagrams = offload.headers != 0 && !offload.is_tcp;
    if ((intake.takes & TAKES_LARGE) != 0 && offload.bytes <= intake.longest && !parts_are_datagrams) {
        offload_keep_whole(&offload);
    } else if (UNLIKELY(offload.headers == 0 && is_beyond_mtu(&e->vm, offload.bytes))) {
        drop_large(e, record);
        return;
    } else {
        offload_limit(&offload, intake.longest);
    }
    while (!offload_is_done(&offload)) {
        if (plain->frames > 0 && plain->bytes + offload_next_bytes(&offload) > RUN_BYTES)
            pass_run(e, plain);
        if (plain->frames == 0)
            plain->start = place_of_finished(e);
        plain->bytes += offload_next(&offload, plain->start + plain->bytes);
        plain->frames++;
    }
}

/* Finish the work that the destination does not accept undone. The resulting frames, and the unchanged ones, go on in
   order, in runs of the usual size. */
static void finish_run(struct engine *e, const struct frame_run *run, struct intake intake)
{
    struct frame_run plain = {0}, same = {.vnet = true};
    for (uint32_t at = 0; at < run->bytes; at += LENGTH_BYTES + load_be32(run->start + at)) {
        uint8_t *record = run->start + at;
        uint32_t bytes = load_be32(record);
        const uint8_t *vnet = record_frame(record);
        if ((intake.takes & TAKES_SUM) != 0
            && (offload_needs(vnet, vnet + VNET_BYTES, bytes - VNET_BYTES) & ~intake.takes) == 0) {
            if (plain.frames > 0)
                pass_run(e, &plain);
            if (same.frames++ == 0)
                same.start = record;
            same.bytes += LENGTH_BYTES + bytes;
            continue;
        }
        if (same.frames > 0)
            pass_run(e, &same);
        finish_frame(e, record, intake, &plain);
    }
    if (plain.frames > 0)
        pass_run(e, &plain);
    if (same.frames > 0)
        pass_run(e, &same);
}

static void send_unfinished(struct engine *e, struct frame_run *run)
{
    struct intake intake = intake_of(e);
    if (LIKELY((e->sends & ~intake.takes) == 0))
        pass_run(e, run);
    else
        finish_run(e, run, intake);
}

static void pass_plain(struct engine *e, struct frame_run *run)
{
    unfinished_sample(e, run);
    pass_run(e, run);
}

static void flush_run(struct engine *e, struct frame_run *run)
{
    if (run->frames == 0)
        return;
    sight_run(e, run, CAPTURE_IN, NULL);
    if (e->verdict.where == TO_NONE)
        drop_run(e, run);
    else if (LIKELY(!run->vnet))
        pass_plain(e, run);
    else
        send_unfinished(e, run);
    run->frames = run->bytes = 0;
}

/* May the VM send from and to these addresses? Also learns the source. Returns the counter to charge, or NULL. */
static uint64_t *refuse_addresses(struct engine *e, const uint8_t *dst, const uint8_t *src)
{
    struct fdb *fdb = &e->stats->fdb;
    if (guard_refuses_addresses(&e->guard, dst, src))
        return &e->count.guarded;
    if (e->own_pins)
        return fdb_is_pinned_to(fdb, src, e->port) ? NULL : &e->count.spoofed;
    if (e->mac_limit != 0 && fdb->count[e->port] >= e->mac_limit && fdb_lookup(fdb, src) != e->port)
        return &e->count.mac_limit;
    return fdb_learn(fdb, src, e->port) == FDB_REFUSED ? &e->count.spoofed : NULL;
}

static void refuse(struct verdict *verdict, uint64_t *counter)
{
    verdict->where = TO_NONE;
    verdict->dropped = counter;
}

static bool may_claim(const uint8_t *frame)
{
    return claim_possible_for(load_be16(frame + ETHERTYPE_AT));
}

static void decide(struct engine *e, const uint8_t *frame)
{
    struct verdict *verdict = &e->verdict;
    const uint8_t *dst = frame_dst(frame);
    memcpy(verdict->header, frame, sizeof verdict->header);
    verdict->may_claim = may_claim(frame);
    verdict->may_ask = false;
    verdict->valid = true;
    verdict->where = TO_ALL;
    uint64_t *refused = refuse_addresses(e, dst, frame_src(frame));
    if (UNLIKELY(refused != NULL)) {
        refuse(verdict, refused);
        return;
    }
    verdict->may_ask = asking_concerns(&e->asking, dst);
    verdict->kind = FLOOD_GROUP;
    if (mac_is_group(dst))
        return;
    uint32_t port = fdb_lookup(&e->stats->fdb, dst);
    verdict->kind = FLOOD_UNKNOWN;
    verdict->peer = peers_get(&e->peers, port);
    if (port == e->port)
        refuse(verdict, &e->count.hairpin);
    else if (verdict->peer != NULL && verdict->peer->out_of_reach)
        refuse(verdict, &e->count.isolated);
    else if (verdict->peer != NULL)
        verdict->where = TO_PEER;
}

/* Is this frame forbidden to the VM, whatever its addresses? Counts it then. */
static bool is_guarded(struct engine *e, const uint8_t *frame, uint32_t bytes)
{
    if (LIKELY(!claim_possible(frame, bytes)) || !guard_refuses(&e->guard, e->port, &e->stats->fdb, frame, bytes))
        return false;
    port_drop(e, frame, bytes, &e->count.guarded);
    return true;
}

/* Does this frame ask the gateway too much? Counts it then. */
static bool is_over_rate(struct engine *e, const uint8_t *frame, uint32_t bytes)
{
    if (LIKELY(!asking_possible(frame, bytes)) || !asking_refuses(&e->asking, frame, bytes, e->now))
        return false;
    port_drop(e, frame, bytes, &e->count.over_rate);
    return true;
}

uint32_t switch_records(struct engine *e, uint8_t *bytes, uint32_t available, enum record_status *status)
{
    uint32_t header = vm_header_bytes(&e->vm), at = 0, size, frames = 0;
    struct frame_run run = {.vnet = header != 0};
    while ((*status = record_next(bytes + at, available - at, &size)) == RECORD_WHOLE) {
        const uint8_t *frame = record_frame(bytes + at) + header;
        bool same = e->verdict.valid && memcmp(frame, e->verdict.header, sizeof e->verdict.header) == 0;
        bool asks = same ? e->verdict.may_claim : may_claim(frame);
        if (asks && UNLIKELY(is_guarded(e, frame, size - LENGTH_BYTES - header))) {
            flush_run(e, &run);
            frames++;
            at += size;
            continue;
        }
        if (!same || run.bytes + size > RUN_BYTES)
            flush_run(e, &run);
        if (!same)
            decide(e, frame);
        if (e->verdict.may_ask && UNLIKELY(is_over_rate(e, frame, size - LENGTH_BYTES - header))) {
            flush_run(e, &run);
            frames++;
            at += size;
            continue;
        }
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

void switch_end(struct engine *e)
{
    if (UNLIKELY(e->reply_due)) {
        e->reply_due = false;
        send_flood(e, e->reply, sizeof e->reply, FLOOD_REPLY);
    }
    e->count.doorbells += bells_publish(&e->bells, &e->flood, &e->peers);
}
