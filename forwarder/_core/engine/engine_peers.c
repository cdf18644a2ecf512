#include "engine/engine_peers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "egress/egress.h"
#include "ingress/inbuf.h"
#include "ingress/send.h"
#include "ingress/switch.h"

/* The frames in the ring that were not read. A hostile writer may go on meanwhile: a whole ring is the most. */
static uint64_t unread_floods(struct peer *peer)
{
    uint64_t frames = 0, lost = 0, begin = peer->flood.cursor;
    struct flood_record record;
    uint8_t *scratch = peer->flood.shared != NULL ? malloc(MAX_FRAME) : NULL;
    while (scratch != NULL && peer->flood.cursor - begin < peer->flood.shm.size
           && flood_next(&peer->flood, scratch, MAX_FRAME, &record, &lost) == FLOOD_FRAME)
        frames += record.kind != FLOOD_REPLY;
    free(scratch);
    return frames + lost;
}

/* Deliver the frames of a leaving peer, as far as the VM accepts them now. */
static void drain(struct engine *e)
{
    if (!e->down)
        egress_poll(e, monotonic_ns());
}

static void flush_pending(struct engine *e, struct peer *peer)
{
    uint32_t at = 0;
    while (at < peer->pending_bytes) {
        const uint8_t *record = peer->pending + at;
        uint32_t bytes = load_be32(record);
        const uint8_t *frame = record_frame(record);
        if (peer->path != PATH_RING)
            send_flood(e, frame, bytes, FLOOD_UNKNOWN);
        else if (ring_put(&peer->tx, record, LENGTH_BYTES + bytes, 1, frame_src(frame), false) == 0)
            page_add(&e->stats->loss[peer->port].towards, 1);
        at += LENGTH_BYTES + bytes;
    }
    free(peer->pending);
    peer->pending = NULL;
    peer->pending_bytes = 0;
    if (peer->path == PATH_RING)
        bells_touch(&e->bells, peer);
    switch_end(e);
}

static uint64_t pending_frames(const struct peer *peer)
{
    uint64_t frames = 0;
    for (uint32_t at = 0; at < peer->pending_bytes; frames++)
        at += LENGTH_BYTES + load_be32(peer->pending + at);
    return frames;
}

/* Free everything that belongs to the peer's present epoch. */
static void disconnect(struct engine *e, struct peer *peer)
{
    inbuf_leave_ring(e, peer);
    page_add(&e->stats->loss[peer->port].towards, pending_frames(peer) + ring_untaken_frames(&peer->tx));
    e->count.stale_ring += unread_floods(peer);
    egress_drop_source(e, peer);
    flood_rx_close(&peer->flood);
    atomic_store_explicit(&e->stats->loss[peer->port].flood_ring, 0, memory_order_relaxed);
    peer_close_path(peer);
    peer->rung = 0;
    peer->is_new = false;
    e->wanted[peer->port] = false;
}

static void forget_addresses(struct engine *e, uint32_t port)
{
    fdb_forget(&e->stats->fdb, port);
    if (e->sources != NULL)
        sources_forget(e->sources, port);
}

/* A number can be reused: forget its last VM. */
static void forget_predecessor(struct engine *e, uint32_t port, uint64_t attachment)
{
    forget_addresses(e, port);
    stats_page_forget(e->stats, port, attachment);
}

int engine_peer_join(struct engine *e, uint32_t port, uint64_t epoch, uint64_t attachment)
{
    struct peer *peer = peers_get(&e->peers, port);
    if (peer != NULL && peer->epoch == epoch)
        return 0;
    if (peer != NULL) {
        drain(e);
        disconnect(e, peer);
    } else if ((peer = peers_add(&e->peers, port)) == NULL)
        return -1;
    peer->epoch = epoch;
    peer->attachment = attachment;
    peer->is_new = atomic_load_explicit(&e->stats->loss[port].attachment, memory_order_relaxed) != attachment;
    if (peer->is_new)
        forget_predecessor(e, port, attachment);
    return 0;
}

void engine_peer_leave(struct engine *e, uint32_t port)
{
    struct peer *peer = peers_get(&e->peers, port);
    if (peer == NULL)
        return;
    drain(e);
    disconnect(e, peer);
    forget_addresses(e, port);
    /* The source in service stays in service: the VM may have had the first half of its frame. */
    if (peers_remove(&e->peers, port) < e->out.turn)
        e->out.turn--;
}

/* The peer, if it exists under exactly this epoch and is in reach. */
static struct peer *current(struct engine *e, uint32_t port, uint64_t epoch)
{
    struct peer *peer = peers_get(&e->peers, port);
    if (peer != NULL && peer->epoch == epoch && !peer->out_of_reach)
        return peer;
    errno = peer != NULL && peer->out_of_reach ? EACCES : ESTALE;
    return NULL;
}

/* Has the port's last worker not heard of this ring? */
static bool is_unheard(const struct engine *e, const struct peer *peer, uint64_t ring)
{
    uint64_t heard = atomic_load_explicit(&e->stats->loss[peer->port].flood_ring, memory_order_relaxed);
    return e->follows && (peer->is_new || (heard != 0 && heard != ring));
}

/* Read on where the port's last worker has stopped, and note for the next one what is read. */
static void follow_floods(struct engine *e, struct peer *peer, uint64_t ring)
{
    struct loss *page = &e->stats->loss[peer->port];
    uint64_t stopped = atomic_load_explicit(&page->flood_at, memory_order_relaxed);
    if (e->follows && ring == atomic_load_explicit(&page->flood_ring, memory_order_relaxed))
        flood_go_back(&peer->flood, stopped);
    atomic_store_explicit(&page->flood_ring, 0, memory_order_relaxed);
    atomic_store_explicit(&page->flood_at, peer->flood.cursor, memory_order_release);
    atomic_store_explicit(&page->flood_ring, ring, memory_order_release);
    peer->is_new = false;
}

/* Deliver what is left in a flood ring, as far as the VM accepts it now. Every source has its share in each round, a
   writer that has left the ring may be hostile and go on: so many polls are enough for a whole ring, and no more. */
static void read_to_end(struct engine *e, struct peer *peer)
{
    uint32_t rounds = peer->flood.shm.size / (uint32_t)QUANTUM_BYTES + 1;
    uint32_t polls = rounds * (1 + e->peers.count * 2 * (uint32_t)QUANTUM_BYTES / EGRESS_BUDGET);
    while (polls-- > 0 && flood_has_news(&peer->flood) && !e->down && egress_poll(e, monotonic_ns()))
        continue;
}

int engine_attach_flood(struct engine *e, uint32_t port, uint64_t epoch, int fd, bool from_start)
{
    struct peer *peer = current(e, port, epoch);
    struct flood_rx flood;
    struct stat ring;
    if (peer == NULL || fstat(fd, &ring) < 0
        || flood_rx_open(&flood, fd, port, epoch, from_start || is_unheard(e, peer, ring.st_ino)) < 0)
        return -1;
    read_to_end(e, peer);
    e->count.stale_ring += unread_floods(peer);
    flood_rx_close(&peer->flood);
    peer->flood = flood;
    follow_floods(e, peer, ring.st_ino);
    e->bells.flood_bell_owed = true;
    return 0;
}

int engine_move_floods(struct engine *e, int fd)
{
    return flood_tx_move(&e->flood, fd);
}

bool engine_floods_are_over(const struct engine *e, uint32_t port)
{
    const struct peer *peer = peers_get(&e->peers, port);
    return peer != NULL && flood_is_over(&peer->flood);
}

int engine_attach_tx(struct engine *e, uint32_t port, uint64_t epoch, struct ring_fds fds, int doorbell)
{
    struct peer *peer = current(e, port, epoch);
    struct ring_id id = {.src_epoch = e->epoch, .dst_epoch = epoch, .src_port = e->port, .dst_port = port};
    struct ring_tx tx;
    if (peer == NULL || ring_tx_open(&tx, fds, &id) < 0)
        return -1;
    inbuf_leave_ring(e, peer);
    page_add(&e->stats->loss[port].towards, ring_untaken_frames(&peer->tx));
    ring_tx_close(&peer->tx);
    if (peer->doorbell >= 0)
        close(peer->doorbell);
    peer->tx = tx;
    peer->early_drop = (struct early_drop){0};
    peer->doorbell = doorbell;
    peer->path = PATH_RING;
    flush_pending(e, peer);
    return 0;
}

int engine_attach_rx(struct engine *e, uint32_t port, uint64_t epoch, struct ring_fds fds)
{
    struct peer *peer = current(e, port, epoch);
    struct ring_id id = {.src_epoch = epoch, .dst_epoch = e->epoch, .src_port = port, .dst_port = e->port};
    struct ring_rx rx;
    if (peer == NULL || ring_rx_open(&rx, fds, &id) < 0)
        return -1;
    egress_drop_source(e, peer);
    peer->rx = rx;
    return 0;
}

void engine_give_up_ring(struct engine *e, uint32_t port)
{
    struct peer *peer = peers_get(&e->peers, port);
    if (peer == NULL || peer->path != PATH_PENDING)
        return;
    peer->path = PATH_FLOOD;
    flush_pending(e, peer);
}

bool engine_set_reach(struct engine *e, uint32_t port, bool reaches)
{
    struct peer *peer = peers_get(&e->peers, port);
    if (peer == NULL || peer->out_of_reach != reaches)
        return false;
    peer->out_of_reach = !reaches;
    e->verdict.valid = false;
    if (!reaches)
        disconnect(e, peer);
    return true;
}

bool engine_ring_is_idle(struct peer *peer)
{
    bool idle = peer->path == PATH_RING && peer->tx.runs == peer->runs_asked && ring_untaken_frames(&peer->tx) == 0;
    peer->runs_asked = peer->tx.runs;
    return idle;
}

bool engine_detach_tx(struct engine *e, uint32_t port)
{
    struct peer *peer = peers_get(&e->peers, port);
    if (peer == NULL || peer->path != PATH_RING || ring_untaken_frames(&peer->tx) > 0)
        return false;
    inbuf_leave_ring(e, peer);
    peer_close_path(peer);
    e->verdict.valid = false;
    return true;
}

void engine_detach_rx(struct engine *e, uint32_t port)
{
    struct peer *peer = peers_get(&e->peers, port);
    if (peer != NULL)
        egress_drop_source(e, peer);
}
