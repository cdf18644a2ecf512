#include "ingress/send.h"

#include "offload/offload.h"
#include "packet/flow.h"

/* The threshold is half: the rest holds the frames of all flows until one has noticed its loss. */
static bool is_half_full(struct ring_tx *tx)
{
    return !ring_has_room(tx, tx->shm.size / 2);
}

static void want_ring(struct engine *e, struct peer *peer)
{
    peer->path = PATH_PENDING;
    e->wanted[peer->port] = true;
    e->any_wanted = true;
}

static uint32_t put(struct peer *peer, const struct frame_run *run)
{
    const uint8_t *src = frame_src(first_frame(run));
    uint64_t at;
    if (ring_holds(&peer->tx, run->start, &at))
        return ring_commit(&peer->tx, at, run->bytes, run->frames, src, run->vnet);
    return ring_put(&peer->tx, run->start, run->bytes, run->frames, src, run->vnet);
}

/* Records for a peer whose ring had no room for them. */
static void sight_lost(const struct engine *e, const struct peer *peer, const uint8_t *records, uint32_t bytes, bool vnet)
{
    struct sighting sighting = port_sighting(e, CAPTURE_DROP, NULL);
    sighting.reason = CAPTURE_EGRESS_FULL;
    sighting.peer = (uint16_t)peer->port;
    sighting.header = vnet ? VNET_BYTES : 0;
    captures_records(e->captures, records, bytes, &sighting);
}

/* Count the lost frames of a run of which the first `kept` went on. */
static uint32_t lost_behind(const struct engine *e, const struct peer *peer, const struct frame_run *run, uint32_t kept)
{
    if (UNLIKELY(e->captures != NULL && kept < run->frames)) {
        uint32_t at = 0;
        for (uint32_t i = 0; i < kept; i++)
            at += LENGTH_BYTES + load_be32(run->start + at);
        sight_lost(e, peer, run->start + at, run->bytes - at, run->vnet);
    }
    return run->frames - kept;
}

/* Put the frames that go on; those that do not fit are lost. */
static uint32_t lost_of(struct engine *e, struct peer *peer, const struct frame_run *run)
{
    return run->frames > 0 ? lost_behind(e, peer, run, put(peer, run)) : 0;
}

/* Lose a segment of the frame at `record`, or all of it; returns the bytes of the record that go on. */
static uint32_t shorten(uint8_t *record, bool vnet)
{
    uint32_t left = vnet ? offload_shorten(record + LENGTH_BYTES, load_be32(record)) : 0;
    if (left == 0)
        return 0;
    store_be32(record, left);
    return LENGTH_BYTES + left;
}

static uint16_t flow_at(const uint8_t *record, bool vnet)
{
    uint32_t header = vnet ? VNET_BYTES : 0;
    return flow_of(record_frame(record) + header, load_be32(record) - header);
}

/* Put the run without its lost frame. The run ends there; bytes between two runs belong to none. */
static uint32_t put_early(struct engine *e, struct peer *peer, const struct frame_run *run)
{
    uint32_t lost = 0, at = 0;
    struct frame_run part = {.start = run->start, .vnet = run->vnet};
    while (at < run->bytes) {
        uint8_t *record = run->start + at;
        uint32_t bytes = LENGTH_BYTES + load_be32(record);
        bool early = early_drop_takes(&peer->early_drop, flow_at(record, run->vnet));
        if (UNLIKELY(early && e->captures != NULL))
            sight_lost(e, peer, record, bytes, run->vnet);
        uint32_t left = early ? shorten(record, run->vnet) : bytes;
        part.frames += left > 0;
        part.bytes += left;
        at += bytes;
        if (early) {
            lost += 1 + lost_of(e, peer, &part);
            part = (struct frame_run){.start = run->start + at, .vnet = run->vnet};
        }
    }
    return lost + lost_of(e, peer, &part);
}

/* The cost of a run here does not grow beyond that of a run of full-sized frames. */
#define SAMPLED_FRAMES 64u

static void sample(struct peer *peer, const struct frame_run *run)
{
    struct early_drop *drop = &peer->early_drop;
    uint32_t at = 0;
    for (uint32_t i = 0; i < run->frames && i < SAMPLED_FRAMES; i++) {
        const uint8_t *record = run->start + at;
        uint32_t bytes = LENGTH_BYTES + load_be32(record);
        if (!early_drop_passes(drop, bytes))
            early_drop_charge(drop, bytes, flow_at(record, run->vnet), is_half_full(&peer->tx));
        at += bytes;
    }
    drop->unseen += run->bytes - at;
}

static uint32_t send_to_ring(struct engine *e, struct peer *peer, const struct frame_run *run)
{
    if (!early_drop_passes(&peer->early_drop, run->bytes))
        sample(peer, run);
    return UNLIKELY(peer->early_drop.has_victim) ? put_early(e, peer, run) : lost_of(e, peer, run);
}

/* Also without any known peer: a worker that learns of this port later reads its floods from the start. */
void send_flood(struct engine *e, const uint8_t *frame, uint32_t bytes, enum flood_kind kind)
{
    flood_put(&e->flood, frame, bytes, kind);
    if (kind != FLOOD_REPLY)
        e->count.flooded++;
}

static const uint8_t broadcast[MAC_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static struct rate_limit *flood_rate(struct engine *e, const uint8_t *dst, enum flood_kind kind)
{
    if (kind == FLOOD_UNKNOWN)
        return &e->unknown_rate;
    return &e->group_rate[memcmp(dst, broadcast, MAC_BYTES) == 0 ? 0 : 1];
}

void send_flood_run(struct engine *e, const struct frame_run *run, enum flood_kind kind)
{
    const uint8_t *record = run->start;
    struct rate_limit *rate = flood_rate(e, frame_dst(record_frame(record)), kind);
    for (uint32_t i = 0; i < run->frames; i++) {
        uint32_t bytes = load_be32(record);
        if (rate_limit_admits(rate, e->now)) {
            if (kind == FLOOD_GROUP)
                questions_note(&e->stats->questions, record_frame(record), bytes, e->now);
            send_flood(e, record_frame(record), bytes, kind);
        } else {
            e->count.storm++;
            port_sight(e, record, LENGTH_BYTES + bytes, 0, CAPTURE_DROP, &e->count.storm);
            port_refused(e, 1);
        }
        record += LENGTH_BYTES + bytes;
    }
}

void send_run(struct engine *e, struct peer *peer, const struct frame_run *run)
{
    const uint32_t header = run->vnet ? VNET_BYTES : 0;
    const uint32_t bytes = run->bytes - run->frames * (LENGTH_BYTES + header);
    const uint8_t *first = record_frame(run->start) + header;
    const uint32_t first_bytes = load_be32(run->start) - header;
    const bool data = !question_possible(first, first_bytes);
    uint32_t lost = 0;
    sent_note(&e->stats->sent[peer->port], run->frames, bytes, first_bytes, data, e->now);
    if (UNLIKELY(!data))
        questions_note_sender(&e->stats->questions, first, first_bytes, e->now);
    if (peer->path == PATH_NONE)
        want_ring(e, peer);
    if (LIKELY(peer->path == PATH_RING)) {
        lost = send_to_ring(e, peer, run);
        bells_touch(&e->bells, peer);
    } else if (peer->path == PATH_PENDING) {
        lost = lost_behind(e, peer, run, pending_put(peer, run->start, run->frames));
    } else {
        send_flood_run(e, run, FLOOD_UNKNOWN);
    }
    if (UNLIKELY(lost > 0))
        page_add(&e->stats->loss[peer->port].towards, lost);
}
