/* Exhale: from the other ports' rings to the VM.

   Theory of operation. Sources are served by deficit round robin in bytes, with larger turns for one that is alone,
   since every write costs its reader a wake-up. A visit to a source takes first
   what it flooded, then what it sent here alone: the unicast cursor is read before the flood cursor, so a
   frame that was flooded before its destination was learned is never overtaken by a later one.

   Flooded frames are copied to the staging (their memory may be overwritten at any time); unicast runs
   go to the kernel from the ring as they lie there. The staging is emptied before any ring is touched, and
   a ring whose run is begun stays in service until the run is finished: so at any instant at most one
   record is cut, and the next byte written is the next byte of that record. To a VM with lengths of 16 bits
   unicast goes through the staging as well (framing16.h), as much of it as one visit may take.

     state            left by                          meanwhile
     open             -                                writes go out
     blocked, FULL    the descriptor becomes writable  nothing is read from rings; senders drop at the tail
     blocked, timer   retry_at passes (50 us, doubling to 10 ms; reset by any byte written)

   FULL becomes the timer when the kernel said "writable" and then took nothing: a socket that polls
   writable while every send fails must not make us spin. */
#include <stdlib.h>

#include "engine/engine.h"
#include "packet/framing16.h"

#define RETRY_FIRST_NS 50000u
#define RETRY_MOST_NS 10000000u

/* What a visit costs of a turn's budget besides the bytes, so that one which yields none (a lapped flood
   ring) does not make a turn endless: about the time in which so many bytes could be copied. */
#define VISIT_BYTES 512u

static void progress(struct engine *e, const struct vm_sent *sent)
{
    e->out.written += sent->bytes;
    e->out.fruitless = false;
    e->out.retry_ns = 0;
    e->count.tx_bytes += sent->payload;
    e->count.tx_frames += sent->frames;
    if (UNLIKELY(sent->refused > 0))
        e->count.refused += sent->refused;
}

static void start_timer(struct engine *e, uint64_t now)
{
    uint64_t pause = e->out.retry_ns == 0 ? RETRY_FIRST_NS : 2 * e->out.retry_ns;
    e->out.retry_ns = pause < RETRY_MOST_NS ? pause : RETRY_MOST_NS;
    e->out.retry_at = now + e->out.retry_ns;
}

static void block(struct engine *e, enum vm_status status, int error, uint64_t now)
{
    if (status == VM_DOWN) {
        engine_link_down(e, "writing to the VM", error);
        return;
    }
    e->out.blocked = true;
    if (status == VM_NO_BUFFER) {
        e->count.enobufs++;
        start_timer(e, now);
        return;
    }
    e->count.eagain++;
    if (e->out.fruitless)
        start_timer(e, now);
    else
        waiter_want(&e->waiter, e->vm.fd, WANT_WRITE, true);
}

/* Write spans; returns what was taken. Blocks the egress where that was not everything. */
static uint64_t write_spans(struct engine *e, const struct span *spans, unsigned count, bool *garbled, uint64_t now)
{
    struct vm_sent sent;
    uint64_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += spans[i].bytes;
    engine_in_doubt(e);
    enum vm_status status = vm_write(&e->vm, spans, count, &sent);
    if (sent.bytes > 0)
        progress(e, &sent);
    *garbled = status == VM_GARBLED;
    if (status != VM_OK && status != VM_GARBLED)
        block(e, status, sent.error, now);
    else if (vm_is_stream(&e->vm) && sent.bytes < total)
        block(e, VM_FULL, 0, now);
    return sent.bytes;
}

static uint32_t prefix_bytes(const struct engine *e)
{
    return e->vm.kind == KIND_STREAM16 ? LENGTH16_BYTES : LENGTH_BYTES;
}

static void count_stream_frames(struct engine *e, uint32_t frames)
{
    if (!vm_is_stream(&e->vm))
        return;
    e->count.tx_frames += frames;
    e->count.tx_bytes -= (uint64_t)frames * prefix_bytes(e);
}

void egress_flush(struct engine *e, uint64_t now)
{
    struct egress *out = &e->out;
    while (out->from < out->to && !out->blocked && !e->down) {
        struct span span = {.records = out->staging + out->from, .bytes = out->to - out->from};
        bool garbled;
        out->from += (uint32_t)write_spans(e, &span, 1, &garbled, now);
        if (garbled)
            out->from = out->to;
    }
    if (out->from < out->to)
        return;
    count_stream_frames(e, out->staged_frames);
    out->from = out->to = out->staged_frames = 0;
}

/* Write `bytes` next; `frames` count as written with them. */
bool egress_stage(struct engine *e, const uint8_t *bytes, uint32_t count, uint32_t frames)
{
    if (STAGING_BYTES - e->out.to < count)
        return false;
    memcpy(e->out.staging + e->out.to, bytes, count);
    e->out.to += count;
    e->out.staged_frames += frames;
    return true;
}

/* Is this flooded frame for our VM? Answers an unknown address that lives here. */
static bool accepts(struct engine *e, const struct flood_record *record, const uint8_t *frame)
{
    if (record->kind == FLOOD_GROUP)
        return true;
    if (record->kind == FLOOD_ANNOUNCE)
        return false;
    uint32_t port = fdb_lookup(&e->block->fdb, frame_dst(frame));
    if (port == e->port && !e->announce_due) {
        e->announce_due = true;
        memcpy(e->announce, frame_src(frame), MAC_BYTES);
        memcpy(e->announce + MAC_BYTES, frame_dst(frame), MAC_BYTES);
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
    const uint32_t prefix = prefix_bytes(e);
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
            e->count.filtered += record.kind != FLOOD_ANNOUNCE;
            continue;
        }
        fdb_learn(&e->block->fdb, frame_src(at + prefix), peer->port);
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
        loss_add(&e->block->loss[peer->port].from, lost);
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
        fdb_learn(&e->block->fdb, views[i].run.src, peer->port);
    }
    if (n > 0 && e->vm.kind == KIND_STREAM16) {
        taken = stage_runs(e, spans, n, &garbled);
        ring_consume(&peer->rx, views, n, taken); /* its frames count when the staging has been written */
        egress_flush(e, now);
    } else if (n > 0) {
        taken = write_spans(e, spans, n, &garbled, now);
        count_stream_frames(e, ring_consume(&peer->rx, views, n, taken));
    }
    peer->deficit -= (int64_t)taken;
    e->out.taken += taken;
    if (UNLIKELY(garbled))
        peer->rx.broken = true;
    if (UNLIKELY(peer->rx.broken)) {
        engine_drop_source(e, peer);
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
                engine_drop_source(e, peer);
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

bool egress_exhale(struct engine *e, uint64_t now)
{
    struct egress *out = &e->out;
    uint64_t start = out->taken;
    uint32_t quiet = 0;
    if (out->blocked)
        return false;
    egress_flush(e, now);
    while (quiet < e->peers.count && !out->blocked && !e->down && out->taken - start < EXHALE_BYTES) {
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

uint64_t egress_deadline(const struct engine *e)
{
    return e->out.blocked && e->out.retry_at != 0 ? e->out.retry_at : UINT64_MAX;
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
