#include "ring.h"

#include <errno.h>

#include "frame.h"

#define RING_MAGIC 0x42524e47u /* "BRNG" */

_Static_assert(sizeof(struct run) == 16, "the run header is part of the shared layout");
_Static_assert(sizeof(struct ring_shared) <= SHM_HEADER_BYTES, "header must fit");

int ring_create(uint32_t size, const struct ring_id *id)
{
    int fd = shm_create("bulkhead-ring", SHM_HEADER_BYTES + (size_t)size);
    struct shm shm;
    if (fd < 0)
        return -1;
    if (size < 2 * (sizeof(struct run) + RUN_LIMIT)) {
        errno = EINVAL;
    } else if (shm_map_ring(&shm, fd, SHM_WRITE) == 0) {
        struct ring_shared *shared = shm.header;
        shared->magic = RING_MAGIC;
        shared->layout = LAYOUT_VERSION;
        shared->id = *id;
        shm_unmap(&shm);
        return fd;
    }
    return shm_fail(fd);
}

static int ring_map(struct shm *shm, int fd, const struct ring_id *expected)
{
    if (shm_map_ring(shm, fd, SHM_WRITE) < 0)
        return -1;
    const struct ring_shared *shared = shm->header;
    struct ring_id id = shared->id;
    bool is_ring = shared->magic == RING_MAGIC && shared->layout == LAYOUT_VERSION
                   && shm->size >= 2 * (sizeof(struct run) + RUN_LIMIT);
    bool is_this = id.src_port == expected->src_port && id.dst_port == expected->dst_port
                   && id.src_epoch == expected->src_epoch && id.dst_epoch == expected->dst_epoch;
    if (is_ring && is_this)
        return 0;
    shm_unmap(shm);
    errno = is_ring ? ESTALE : EINVAL;
    return -1;
}

int ring_tx_open(struct ring_tx *tx, int fd, const struct ring_id *expected)
{
    *tx = (struct ring_tx){0};
    if (ring_map(&tx->shm, fd, expected) < 0)
        return -1;
    tx->shared = tx->shm.header;
    tx->head = tx->shown = atomic_load_explicit(&tx->shared->head, memory_order_relaxed);
    tx->tail = atomic_load_explicit(&tx->shared->tail, memory_order_acquire);
    if (tx->head - tx->tail <= tx->shm.size)
        return 0;
    ring_tx_close(tx);
    errno = EINVAL;
    return -1;
}

int ring_rx_open(struct ring_rx *rx, int fd, const struct ring_id *expected)
{
    *rx = (struct ring_rx){0};
    if (ring_map(&rx->shm, fd, expected) < 0)
        return -1;
    rx->shared = rx->shm.header;
    rx->tail = rx->head = atomic_load_explicit(&rx->shared->tail, memory_order_relaxed);
    return 0;
}

void ring_tx_close(struct ring_tx *tx)
{
    shm_unmap(&tx->shm);
    *tx = (struct ring_tx){0};
}

void ring_rx_close(struct ring_rx *rx)
{
    shm_unmap(&rx->shm);
    *rx = (struct ring_rx){0};
}

static uint8_t *tx_at(const struct ring_tx *tx, uint64_t cursor)
{
    return tx->shm.data + (cursor & (tx->shm.size - 1));
}

static const uint8_t *rx_at(const struct ring_rx *rx, uint64_t cursor)
{
    return rx->shm.data + (cursor & (rx->shm.size - 1));
}

static uint64_t free_bytes(struct ring_tx *tx, uint64_t wanted)
{
    uint64_t space = tx->shm.size - (tx->head - tx->tail);
    if (LIKELY(space >= wanted))
        return space;
    uint64_t tail = atomic_load_explicit(&tx->shared->tail, memory_order_acquire);
    if (UNLIKELY(tail < tx->tail || tail > tx->shown)) {
        tx->broken = true;
        return 0;
    }
    tx->tail = tail;
    return tx->shm.size - (tx->head - tail);
}

/* How many of the records fit into `space`, and how many bytes those are. */
static uint32_t fitting(const uint8_t *records, uint32_t frames, uint64_t space, uint32_t *bytes)
{
    uint32_t n = 0, used = 0;
    while (n < frames) {
        uint32_t size = LENGTH_BYTES + load_be32(records + used);
        if (used + size > space)
            break;
        used += size;
        n++;
    }
    *bytes = used;
    return n;
}

uint32_t ring_put(struct ring_tx *tx, const uint8_t *records, uint32_t bytes, uint32_t frames, const uint8_t *src,
                  bool vnet)
{
    if (UNLIKELY(tx->broken))
        return 0;
    bool grow = tx->open.bytes != 0 && tx->open.bytes + bytes <= RUN_BYTES && tx->open.vnet == vnet
                && memcmp(tx->open.src, src, MAC_BYTES) == 0;
    uint32_t header = grow ? 0 : (uint32_t)sizeof(struct run);
    uint64_t space = free_bytes(tx, header + (uint64_t)bytes);
    if (UNLIKELY(space < header + (uint64_t)bytes)) {
        frames = space > header ? fitting(records, frames, space - header, &bytes) : 0;
        if (frames == 0)
            return 0;
    }
    if (!grow) {
        tx->open_at = tx->head;
        tx->open = (struct run){.vnet = vnet};
        memcpy(tx->open.src, src, MAC_BYTES);
        tx->head += sizeof(struct run);
    }
    memcpy(tx_at(tx, tx->head), records, bytes);
    tx->head += bytes;
    tx->open.bytes += bytes;
    tx->open.frames += frames;
    memcpy(tx_at(tx, tx->open_at), &tx->open, sizeof tx->open);
    return frames;
}

bool ring_publish(struct ring_tx *tx)
{
    if (tx->head == tx->shown)
        return false;
    tx->open.bytes = 0;
    tx->shown = tx->head;
    atomic_store_explicit(&tx->shared->head, tx->head, memory_order_release);
    return true;
}

bool ring_refresh(struct ring_rx *rx)
{
    if (UNLIKELY(rx->broken))
        return false;
    uint64_t head = atomic_load_explicit(&rx->shared->head, memory_order_acquire);
    if (UNLIKELY(head < rx->head || head - rx->tail > rx->shm.size)) {
        rx->broken = true;
        return false;
    }
    rx->head = head;
    return head != rx->tail;
}

/* Copy the run header at `cursor` and believe it only if it fits what was published. */
static bool run_at(const struct ring_rx *rx, uint64_t cursor, struct run *run)
{
    uint64_t available = rx->head - cursor;
    if (available < sizeof *run)
        return false;
    memcpy(run, rx_at(rx, cursor), sizeof *run);
    return run->bytes >= MIN_RECORD && run->bytes <= RUN_LIMIT && run->bytes <= available - sizeof *run
           && run->frames >= 1 && run->frames <= run->bytes / MIN_RECORD && run->vnet <= 1;
}

unsigned ring_view(struct ring_rx *rx, struct run_view *views, unsigned max, uint64_t allowance)
{
    uint64_t cursor = rx->tail;
    uint64_t total = 0;
    unsigned n = 0;
    while (n < max && cursor != rx->head && !rx->broken) {
        struct run_view *view = &views[n];
        uint32_t done = n == 0 ? rx->done : 0;
        if (done > 0) {
            view->run = rx->run;
        } else if (UNLIKELY(!run_at(rx, cursor, &view->run))) {
            rx->broken = true;
            break;
        }
        view->records = rx_at(rx, cursor + sizeof(struct run)) + done;
        view->bytes = view->run.bytes - done;
        if (n > 0 && total + view->bytes > allowance)
            break;
        total += view->bytes;
        cursor += sizeof(struct run) + view->run.bytes;
        n++;
    }
    return n;
}

uint32_t ring_consume(struct ring_rx *rx, const struct run_view *views, unsigned count, uint64_t bytes)
{
    uint32_t frames = 0;
    for (unsigned i = 0; i < count && bytes > 0; i++) {
        if (bytes < views[i].bytes) {
            rx->run = views[i].run;
            rx->done = views[i].run.bytes - views[i].bytes + (uint32_t)bytes;
            break;
        }
        bytes -= views[i].bytes;
        rx->tail += sizeof(struct run) + views[i].run.bytes;
        rx->done = 0;
        frames += views[i].run.frames;
    }
    atomic_store_explicit(&rx->shared->tail, rx->tail, memory_order_release);
    return frames;
}

/* Walk the current run up to what was consumed: where the first frame not begun starts, and how many were
   begun. False if the lengths no longer add up. */
static bool walk_current(const struct ring_rx *rx, uint32_t *boundary, uint32_t *begun)
{
    const uint8_t *records = rx_at(rx, rx->tail + sizeof(struct run));
    uint32_t size = 0;
    *boundary = *begun = 0;
    while (*boundary < rx->done) {
        if (record_next(records + *boundary, rx->run.bytes - *boundary, &size) != RECORD_WHOLE)
            return false;
        *boundary += size;
        ++*begun;
    }
    return true;
}

bool ring_cut_frame(const struct ring_rx *rx, const uint8_t **rest, uint32_t *bytes, uint32_t *begun)
{
    uint32_t boundary;
    *bytes = *begun = 0;
    if (rx->done == 0)
        return true;
    if (!walk_current(rx, &boundary, begun))
        return false;
    *rest = rx_at(rx, rx->tail + sizeof(struct run)) + rx->done;
    *bytes = boundary - rx->done;
    return true;
}

/* Frames of whole runs from `cursor` on, as far as the headers make sense. */
static uint64_t frames_from(const struct ring_rx *rx, uint64_t cursor)
{
    uint64_t frames = 0;
    struct run run;
    for (; cursor != rx->head; cursor += sizeof run + run.bytes) {
        if (!run_at(rx, cursor, &run))
            break;
        frames += run.frames;
    }
    return frames;
}

uint64_t ring_unread_frames(struct ring_rx *rx)
{
    uint32_t boundary, begun = 0;
    ring_refresh(rx);
    if (rx->done > 0)
        walk_current(rx, &boundary, &begun);
    uint64_t frames = frames_from(rx, rx->tail);
    return frames > begun ? frames - begun : 0;
}

void ring_abandon(struct ring_rx *rx)
{
    if (!rx->broken)
        atomic_store_explicit(&rx->shared->tail, rx->head, memory_order_release);
    ring_rx_close(rx);
}

uint64_t ring_untaken_frames(const struct ring_tx *tx)
{
    if (tx->shared == NULL)
        return 0;
    struct ring_rx rx = {.shm = tx->shm, .shared = tx->shared, .head = tx->shown};
    rx.tail = atomic_load_explicit(&tx->shared->tail, memory_order_acquire);
    bool possible = rx.tail >= tx->tail && rx.tail <= tx->shown;
    return possible ? frames_from(&rx, rx.tail) : 0;
}
