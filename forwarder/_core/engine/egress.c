#include "engine/egress.h"

#include "engine/egress_write.h"
#include "packet/framing16.h"

/* What a visit costs of a turn's budget besides the bytes, so that one which yields none (a lapped flood
   ring) does not make a turn endless: about the time in which so many bytes could be copied. */
#define VISIT_BYTES 512u

/* The rest of a cut frame must follow its beginning, whatever becomes of the ring. The frames of an unfinished
   run were not counted as written yet. */
static void rescue_cut_frame(struct engine *e, struct peer *peer)
{
    const uint8_t *rest;
    uint32_t bytes, begun;
    if (e->vm.kind != KIND_STREAM || peer->rx.done == 0 || e->down)
        return;
    if (!ring_cut_frame(&peer->rx, &rest, &bytes, &begun))
        port_link_down(e, "a neighbour's ring was tampered with inside of a frame", 0);
    else
        egress_stage(e, rest, bytes, begun);
}

void egress_drop_source(struct engine *e, struct peer *peer)
{
    if (peer->rx.shared == NULL)
        return;
    rescue_cut_frame(e, peer);
    e->count.stale_ring += ring_unread_frames(&peer->rx);
    if (peer->rx.broken)
        e->count.stale_ring++;
    ring_abandon(&peer->rx);
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
    e->count.filtered++;
    return false;
}

/* Write a staged frame's length in front of it; false if our VM's framing cannot say it. */
static bool seal(const struct engine *e, uint8_t *at, uint32_t bytes)
{
    if (e->vm.kind != KIND_STREAM16)
        store_be32(at, bytes);
    else if (bytes <= MAX_FRAME16)
        store_le16(at, bytes);
    else
        return false;
    return true;
}

/* Stage what the source has flooded, as far as its deficit and the staging go. */
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
        if (UNLIKELY(peer->out_of_reach)) {
            e->count.filtered += record.kind != FLOOD_REPLY;
            continue;
        }
        fdb_learn(&e->stats->fdb, frame_src(at + prefix), peer->port);
        if (!accepts(e, &record, at + prefix))
            continue;
        if (UNLIKELY(!seal(e, at, record.bytes))) {
            e->count.refused++;
            continue;
        }
        out->to += prefix + record.bytes;
        out->staged_frames++;
    }
    if (UNLIKELY(lost > 0)) {
        loss_add(&e->stats->loss[peer->port].from, lost);
        e->count.flood_lost += lost;
    }
    if (UNLIKELY(peer->flood.broken))
        e->count.stale_ring++;
}

/* A visit finds the staging empty and views a deficit of records at the most, or one run. */
_Static_assert(STAGING_BYTES >= 2 * QUANTUM_BYTES && STAGING_BYTES >= RUN_LIMIT, "what is viewed fits into the staging");

/* Stage runs for a VM with lengths of 16 bits; returns what was taken of them. */
static uint64_t stage_runs(struct engine *e, const struct span *spans, unsigned count, bool *garbled)
{
    struct egress *out = &e->out;
    uint64_t taken = 0;
    for (unsigned i = 0; i < count && !*garbled; i++) {
        struct packed packed = framing16_pack(spans[i].records, spans[i].bytes, out->staging + out->to);
        out->to += packed.bytes;
        out->staged_frames += packed.frames;
        e->count.refused += packed.refused;
        taken += packed.taken;
        *garbled = packed.taken < spans[i].bytes;
    }
    return taken;
}

/* Write what one call takes. False if that was nothing. */
static bool take_ring(struct engine *e, struct peer *peer, uint64_t now)
{
    struct run_view views[MAX_SPANS];
    struct span spans[MAX_SPANS];
    bool garbled = false;
    uint64_t taken = 0;
    unsigned n = ring_view(&peer->rx, views, MAX_SPANS, peer->deficit > 0 ? (uint64_t)peer->deficit : 0);
    for (unsigned i = 0; i < n; i++) {
        if (UNLIKELY(views[i].run.vnet && e->vm.kind != KIND_TAP)) {
            peer->rx.broken = true;
            n = i;
            break;
        }
        spans[i] = (struct span){.records = views[i].records, .bytes = views[i].bytes, .vnet = views[i].run.vnet};
        fdb_learn(&e->stats->fdb, views[i].run.src, peer->port);
    }
    if (n > 0 && e->vm.kind == KIND_STREAM16) {
        taken = stage_runs(e, spans, n, &garbled);
        ring_consume(&peer->rx, views, n, taken); /* its frames count when the staging has been written */
        egress_flush(e, now);
    } else if (n > 0) {
        taken = egress_write(e, spans, n, &garbled, now);
        egress_count_frames(e, ring_consume(&peer->rx, views, n, taken));
    }
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

/* A visit that ends blocked spends nothing, and must not be saved up for a burst later. */
static void earn(struct peer *peer, bool alone)
{
    int64_t most = alone ? ALONE_BYTES : 2 * QUANTUM_BYTES;
    peer->deficit += alone ? ALONE_BYTES : QUANTUM_BYTES;
    if (peer->deficit > most)
        peer->deficit = most;
}

/* One visit; `alone`: all others had nothing since the last one. False if the source had nothing. */
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
    /* One write takes a number of runs: where these are short, several writes make the source's share. */
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
