#include "egress/egress_stage.h"

#include "egress/egress_admit.h"
#include "egress/egress_write.h"
#include "packet/framing.h"

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

bool egress_stage_floods(struct engine *e, struct peer *peer)
{
    struct egress *out = &e->out;
    const uint32_t prefix = egress_prefix_bytes(e);
    struct flood_record record;
    uint64_t lost = 0;
    enum flood_status status = FLOOD_FRAME;
    while (peer->deficit > 0 && out->to + MIN_RECORD <= STAGING_BYTES) {
        uint8_t *at = out->staging + out->to;
        status = flood_next(&peer->flood, at + prefix, STAGING_BYTES - out->to - prefix, &record, &lost);
        if (status != FLOOD_FRAME)
            break;
        peer->deficit -= record.bytes;
        out->taken += record.bytes;
        if (UNLIKELY(egress_is_foreign(e, frame_src(at + prefix), peer))) {
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
    return status == FLOOD_NO_ROOM || out->to + MIN_RECORD > STAGING_BYTES;
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

uint64_t egress_stage_runs(struct engine *e, const struct span *spans, unsigned count, bool *garbled)
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
