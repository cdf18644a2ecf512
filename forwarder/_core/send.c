/* What becomes of a run that is for one peer: its ring, its pen, or the flood.

   Theory of operation. The path to the peer (peer.h) says where it goes. Into a ring it goes with one memcpy, or stays
   where it is if it was read to there (ingress.c). A frame that the ring has no room for is lost here, at the tail, and
   charged to the destination; nobody waits for it.

   Towards a TAP a frame may be lost earlier, for the sake of fairness between streams (early.h): the kernels behind
   TAPs send most, and their rings are long. What a TAP has sent may be up to 45 segments in one frame, and then only
   the last of them is lost, as it would be if the frame had come in parts (offload_shorten): the sender learns the
   same from it and has less to send again. The rest goes on; one frame counts as lost. */
#include "early.h"
#include "engine.h"
#include "flow.h"
#include "offload.h"

/* Half: what is left is for what all may send before the one has heard of its loss. */
static bool is_deep(struct ring_tx *tx)
{
    return !ring_has_room(tx, tx->shm.size / 2);
}

static void want_ring(struct engine *e, struct peer *peer)
{
    peer->path = PATH_PEN;
    e->wanted[peer->port] = true;
    e->any_wanted = true;
}

static void touch(struct engine *e, struct peer *peer)
{
    if (!peer->touched) {
        peer->touched = true;
        e->touched[e->touched_count++] = peer;
    }
}

static uint32_t put(struct engine *e, struct peer *peer, const struct pending_run *run)
{
    const uint8_t *src = frame_src(first_frame(run));
    if (peer != e->in.landing)
        return ring_put(&peer->tx, run->start, run->bytes, run->frames, src, run->vnet);
    uint64_t at = e->in.landed_at + (uint64_t)(run->start - e->in.burst);
    return ring_keep(&peer->tx, at, run->bytes, run->frames, src, run->vnet);
}

/* Put the frames that go on; what did not fit has been lost. */
static uint32_t lost_of(struct engine *e, struct peer *peer, const struct pending_run *run)
{
    return run->frames > 0 ? run->frames - put(e, peer, run) : 0;
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

/* Frame by frame, of which one may have to be lost. A run ends there, since between two there may be anything. */
static uint32_t put_early(struct engine *e, struct peer *peer, const struct pending_run *run)
{
    uint32_t lost = 0, header = run->vnet ? VNET_BYTES : 0, at = 0;
    struct pending_run part = {.start = run->start, .vnet = run->vnet};
    while (at < run->bytes) {
        uint8_t *record = run->start + at;
        uint32_t bytes = LENGTH_BYTES + load_be32(record), left = bytes;
        uint16_t flow = flow_of(record_frame(record) + header, bytes - LENGTH_BYTES - header);
        bool early = early_drops(&peer->early, flow, bytes, is_deep(&peer->tx));
        if (UNLIKELY(early)) {
            left = shorten(record, run->vnet);
            lost++;
        }
        part.frames += left > 0;
        part.bytes += left;
        at += bytes;
        if (UNLIKELY(early)) {
            lost += lost_of(e, peer, &part);
            part = (struct pending_run){.start = run->start + at, .vnet = run->vnet};
        }
    }
    return lost + lost_of(e, peer, &part);
}

void send_run(struct engine *e, struct peer *peer, const struct pending_run *run)
{
    uint32_t lost = 0;
    if (peer->path == PATH_NONE)
        want_ring(e, peer);
    if (LIKELY(peer->path == PATH_RING)) {
        lost = peer->takes_vnet ? put_early(e, peer, run) : lost_of(e, peer, run);
        touch(e, peer);
    } else if (peer->path == PATH_PEN) {
        lost = run->frames - pen_put(peer, run->start, run->frames);
    } else {
        flood_run(e, run, FLOOD_UNKNOWN);
    }
    if (UNLIKELY(lost > 0))
        loss_add(&e->block->loss[peer->port].towards, lost);
}
