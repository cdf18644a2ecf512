#include "egress/egress.h"

#include "egress/egress_admit.h"
#include "egress/egress_stage.h"
#include "egress/egress_stream.h"
#include "egress/egress_write.h"

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
        if (UNLIKELY(egress_is_foreign(e, views[i].run.src, peer))) {
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
        taken = egress_stage_runs(e, batch->spans, batch->count, garbled);
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
        bool more = flooded && egress_stage_floods(e, peer);
        egress_flush(e, now);
        if (!unicast || more || e->out.blocked || e->down || peer->deficit <= 0)
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
