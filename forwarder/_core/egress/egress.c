#include "egress/egress.h"

#include "egress/egress_admit.h"
#include "egress/egress_stream.h"
#include "egress/egress_write.h"
#include "packet/framing.h"

/* A visit's cost besides its bytes, so that visits without bytes (a lapped flood ring) do not make a turn endless:
   the number of bytes that could be copied in the time of a visit. */
#define VISIT_BYTES 512u

void egress_drop_source(struct engine *e, struct peer *peer)
{
    if (peer->rx.shared == NULL)
        return;
    e->count.stale_ring += ring_unread_frames(&peer->rx);
    if (peer->rx.broken)
        e->count.stale_ring++;
    ring_abandon(&peer->rx);
}

static void filter_flood(struct engine *e, const uint8_t *frame, uint32_t bytes)
{
    e->count.filtered++;
    port_sight_frame(e, frame, bytes, CAPTURE_DROP, &e->count.filtered);
}

/* Is this flooded frame for our VM? Answers an unknown address that lives here. */
static bool accepts(struct engine *e, const struct flood_record *record, const uint8_t *frame)
{
    if (record->kind == FLOOD_GROUP)
        return true;
    if (record->kind == FLOOD_REPLY)
        return false;
    uint32_t port = fdb_lookup(&e->stats->fdb, frame_dst(frame));
    if (port == e->port && !e->reply_due) {
        e->reply_due = true;
        memcpy(e->reply, frame_src(frame), MAC_BYTES);
        memcpy(e->reply + MAC_BYTES, frame_dst(frame), MAC_BYTES);
    }
    if (port == e->port || e->flood_unknown)
        return true;
    filter_flood(e, frame, record->bytes);
    return false;
}

/* Write a staged frame's length in front of it; false if our VM does not accept it, or its framing has no such
   length. */
static bool seal(const struct engine *e, uint8_t *at, uint32_t bytes)
{
    return bytes <= e->intake.longest && framing_seal(egress_prefix_bytes(e), at, bytes);
}

/* The frame at the end of the staging goes to the VM. A message VM's frames are sighted when they are written. */
static void staged(struct engine *e, const uint8_t *frame, uint32_t bytes)
{
    if (vm_is_stream(&e->vm))
        port_sight_frame(e, frame, bytes, CAPTURE_OUT, NULL);
    e->out.to += egress_prefix_bytes(e) + bytes;
    e->out.staged_frames++;
}

static void refuse(struct engine *e, const uint8_t *frame, uint32_t bytes, uint64_t *counter)
{
    ++*counter;
    port_sight_frame(e, frame, bytes, CAPTURE_DROP, counter);
}

/* Learn the source of a peer's frames. True: the address is pinned to another port; the peer's worker should have
   refused it, but does not know that yet or is hostile. */
static bool is_pinned_elsewhere(struct engine *e, const uint8_t *src, const struct peer *peer)
{
    return fdb_learn(&e->stats->fdb, src, peer->port) == FDB_REFUSED && !mac_is_group(src);
}

/* Stage the source's floods, as far as its deficit and the staging allow. */
static void take_floods(struct engine *e, struct peer *peer)
{
    struct egress *out = &e->out;
    const uint32_t prefix = egress_prefix_bytes(e);
    struct flood_record record;
    uint64_t lost = 0;
    while (peer->deficit > 0 && out->to + MIN_RECORD <= STAGING_BYTES) {
        uint8_t *at = out->staging + out->to;
        enum flood_status status =
            flood_next(&peer->flood, at + prefix, STAGING_BYTES - out->to - prefix, &record, &lost);
        if (status != FLOOD_FRAME)
            break;
        peer->deficit -= record.bytes;
        out->taken += record.bytes;
        if (UNLIKELY(is_pinned_elsewhere(e, frame_src(at + prefix), peer))) {
            if (record.kind != FLOOD_REPLY)
                filter_flood(e, at + prefix, record.bytes);
            continue;
        }
        if (!accepts(e, &record, at + prefix))
            continue;
        if (UNLIKELY(!egress_hears(e, peer->port, at + prefix, record.bytes))) {
            refuse(e, at + prefix, record.bytes, &e->count.sources);
            continue;
        }
        if (UNLIKELY(!seal(e, at, record.bytes))) {
            refuse(e, at + prefix, record.bytes, &e->count.refused);
            continue;
        }
        staged(e, at + prefix, record.bytes);
    }
    atomic_store_explicit(&e->stats->loss[peer->port].flood_at, peer->flood.cursor, memory_order_release);
    if (UNLIKELY(lost > 0)) {
        page_add(&e->stats->loss[peer->port].from, lost);
        e->count.flood_lost += lost;
    }
    if (UNLIKELY(peer->flood.broken))
        e->count.stale_ring++;
}

/* A visit finds the staging empty and views a deficit of records at the most, or one run. */
_Static_assert(STAGING_BYTES >= 2 * QUANTUM_BYTES && STAGING_BYTES >= RUN_LIMIT, "viewed records fit into the staging");

/* Stage a frame, which lies in the peer's memory; `bytes` is a copy of its length. */
static void stage_frame(struct engine *e, const uint8_t *frame, uint32_t bytes)
{
    uint8_t *at = e->out.staging + e->out.to;
    uint32_t prefix = egress_prefix_bytes(e);
    if (UNLIKELY(!seal(e, at, bytes))) {
        refuse(e, frame, bytes, &e->count.refused);
        return;
    }
    memcpy(at + prefix, frame, bytes);
    staged(e, at + prefix, bytes);
}

/* Stage runs for a stream, frame by frame; returns what was consumed. */
static uint64_t stage_runs(struct engine *e, const struct span *spans, unsigned count, bool *garbled)
{
    uint64_t taken = 0;
    for (unsigned i = 0; i < count && !*garbled; i++) {
        uint32_t at = 0, size;
        for (; record_next(spans[i].records + at, spans[i].bytes - at, &size) == RECORD_WHOLE; at += size)
            stage_frame(e, record_frame(spans[i].records + at), size - LENGTH_BYTES);
        taken += at;
        *garbled = at < spans[i].bytes;
    }
    return taken;
}

/* The viewed runs that one call may take: either all frames of each may go, or none. */
struct batch {
    struct span spans[MAX_SPANS];
    unsigned count;
    uint32_t refused; /* frames: of the only span none may go */
    uint64_t *counter; /* to charge with these */
    bool foreign;     /* the only span is from another port's address */
};

/* Add a view to the batch; false if the batch ends in front of it or with it. */
static bool add_view(struct engine *e, uint32_t port, const struct run_view *view, struct batch *batch)
{
    struct span *span = &batch->spans[batch->count];
    *span = (struct span){.records = view->records, .bytes = view->bytes, .vnet = view->run.vnet != 0};
    if (vm_is_stream(&e->vm)) {
        batch->count++;
        return true;
    }
    struct stretch stretch = egress_admit(e, port, view);
    bool admitted = stretch.refused == NULL;
    if (!admitted && batch->count > 0)
        return false;
    batch->refused = admitted ? 0 : stretch.frames;
    batch->counter = stretch.refused;
    span->bytes = stretch.bytes;
    batch->count++;
    return admitted && stretch.bytes == view->bytes;
}

static void make_batch(struct engine *e, struct peer *peer, const struct run_view *views, unsigned n,
                       struct batch *batch)
{
    batch->count = batch->refused = 0;
    batch->foreign = false;
    for (unsigned i = 0; i < n; i++) {
        if (UNLIKELY(views[i].run.vnet && !vm_takes_headers(&e->vm))) {
            peer->rx.broken = true;
            return;
        }
        if (UNLIKELY(is_pinned_elsewhere(e, views[i].run.src, peer))) {
            batch->foreign = i == 0;
            if (batch->foreign)
                batch->spans[batch->count++] = (struct span){.bytes = views[0].bytes};
            return;
        }
        if (!add_view(e, peer->port, &views[i], batch))
            return;
    }
}

static uint64_t total_bytes(const struct batch *batch)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < batch->count; i++)
        total += batch->spans[i].bytes;
    return total;
}

/* Write, stage or refuse the batch; returns the finished bytes. */
static uint64_t take_batch(struct engine *e, struct peer *peer, const struct run_view *views, const struct batch *batch,
                           bool *garbled, uint64_t now)
{
    uint64_t taken;
    if (UNLIKELY(batch->foreign)) {
        taken = total_bytes(batch);
        port_sight(e, views[0].records, views[0].bytes, views[0].run.vnet ? VNET_BYTES : 0, CAPTURE_DROP, &e->count.filtered);
        e->count.filtered += ring_consume(&peer->rx, views, 1, taken);
    } else if (UNLIKELY(batch->refused > 0)) {
        taken = total_bytes(batch);
        *batch->counter += batch->refused;
        port_sight(e, batch->spans[0].records, batch->spans[0].bytes, batch->spans[0].vnet ? VNET_BYTES : 0, CAPTURE_DROP,
                   batch->counter);
        ring_consume(&peer->rx, views, batch->count, taken);
    } else if (e->vm.kind == KIND_STREAM && egress_write_stream(e, views, batch->spans, batch->count, &taken, now)) {
        ring_consume(&peer->rx, views, batch->count, taken);
    } else if (vm_is_stream(&e->vm)) {
        taken = stage_runs(e, batch->spans, batch->count, garbled);
        ring_consume(&peer->rx, views, batch->count, taken); /* its frames count when the staging has been written */
        egress_flush(e, now);
    } else {
        taken = egress_write(e, batch->spans, batch->count, e->intake.longest, garbled, now);
        ring_consume(&peer->rx, views, batch->count, taken);
    }
    return taken;
}

/* Take one call's worth of runs. False if there was nothing. */
static bool take_ring(struct engine *e, struct peer *peer, uint64_t now)
{
    struct run_view views[MAX_SPANS];
    struct batch batch;
    bool garbled = false;
    uint64_t taken = 0;
    uint64_t allowance = peer->deficit > 0 ? (uint64_t)peer->deficit : 0;
    if (vm_is_stream(&e->vm) && allowance > RUN_BYTES)
        allowance = RUN_BYTES; /* of it there is a copy, which stays in the cache */
    unsigned n = ring_view(&peer->rx, views, MAX_SPANS, allowance);
    make_batch(e, peer, views, n, &batch);
    uint32_t answers = UNLIKELY(asking_awaits(&e->asking, now)) ? asking_answers(&e->asking, views, batch.count) : 0;
    if (batch.count > 0)
        taken = take_batch(e, peer, views, &batch, &garbled, now);
    if (UNLIKELY(answers > 0) && taken == total_bytes(&batch))
        asking_answered(&e->asking, answers);
    peer->deficit -= (int64_t)taken;
    e->out.taken += taken;
    if (UNLIKELY(garbled))
        peer->rx.broken = true;
    if (UNLIKELY(peer->rx.broken)) {
        egress_drop_source(e, peer);
        return false;
    }
    return taken > 0;
}

/* A visit that ends blocked spends nothing; its deficit must not be saved for a later burst. */
static void earn(struct peer *peer, bool alone)
{
    int64_t most = alone ? ALONE_BYTES : 2 * QUANTUM_BYTES;
    peer->deficit += alone ? ALONE_BYTES : QUANTUM_BYTES;
    if (peer->deficit > most)
        peer->deficit = most;
}

/* One visit; `alone`: no other source had anything since the last one. False if the source had nothing. */
static bool serve(struct engine *e, struct peer *peer, bool alone, uint64_t now)
{
    if (peer->rx.done == 0) {
        bool unicast = peer->rx.shared != NULL && ring_refresh(&peer->rx);
        bool flooded = flood_has_news(&peer->flood);
        if (!unicast && !flooded) {
            if (UNLIKELY(peer->rx.broken))
                egress_drop_source(e, peer);
            return false;
        }
        earn(peer, alone);
        if (flooded)
            take_floods(e, peer);
        egress_flush(e, now);
        if (!unicast || e->out.blocked || e->down || peer->deficit <= 0)
            return true;
    }
    /* One write takes a number of runs; with short runs, several writes make the source's share. */
    while (take_ring(e, peer, now) && peer->deficit > 0 && !e->out.blocked && !e->down)
        continue;
    return true;
}

bool egress_poll(struct engine *e, uint64_t now)
{
    struct egress *out = &e->out;
    uint64_t start = out->taken;
    uint32_t quiet = 0;
    if (out->blocked)
        return false;
    egress_flush(e, now);
    while (quiet < e->peers.count && !out->blocked && !e->down && out->taken - start < EGRESS_BUDGET) {
        if (out->turn >= e->peers.count)
            out->turn = 0;
        struct peer *peer = e->peers.at[e->peers.port[out->turn]];
        if (serve(e, peer, quiet + 1 == e->peers.count, now)) {
            quiet = 0;
            out->taken += VISIT_BYTES;
        } else {
            peer->deficit = 0;
            quiet++;
        }
        if (peer->rx.done == 0)
            out->turn++;
    }
    return out->taken != start;
}

bool egress_has_news(const struct engine *e)
{
    if (e->out.blocked)
        return false;
    for (uint32_t i = 0; i < e->peers.count; i++) {
        const struct peer *peer = e->peers.at[e->peers.port[i]];
        if (flood_has_news(&peer->flood) || (peer->rx.shared != NULL && ring_has_news(&peer->rx)))
            return true;
    }
    return false;
}
