#include "capture/capture_ring.h"

#include <errno.h>

#define CAPTURE_MAGIC 0x42434150u /* "BCAP" */
#define ALIGN 8u

/* A full ring is written again when one of so many parts is free. */
#define PARTS 4u

_Static_assert(sizeof(struct capture_head) == 24, "the head of a captured frame is part of the shared layout");
_Static_assert(sizeof(struct capture_shared) <= SHM_HEADER_BYTES, "header must fit");

static uint64_t footprint(uint32_t kept)
{
    return sizeof(struct capture_head) + ((kept + ALIGN - 1) & ~(uint64_t)(ALIGN - 1));
}

int capture_ring_create(uint32_t size, uint32_t port, uint64_t epoch)
{
    int fd = shm_create("bulkhead-capture", SHM_HEADER_BYTES + (size_t)size);
    struct shm shm;
    if (fd < 0)
        return -1;
    if (size < PARTS / 2 * footprint(MAX_FRAME)) {
        errno = EINVAL;
    } else if (shm_map_ring(&shm, fd, SHM_WRITE) == 0) {
        struct capture_shared *shared = shm.header;
        shared->magic = CAPTURE_MAGIC;
        shared->layout = LAYOUT_VERSION;
        shared->port = port;
        shared->epoch = epoch;
        shm_unmap(&shm);
        return fd;
    }
    return shm_fail(fd);
}

static int capture_map(struct shm *shm, int fd, uint32_t port, uint64_t epoch)
{
    if (shm_map_ring(shm, fd, SHM_WRITE) < 0)
        return -1;
    const struct capture_shared *shared = shm->header;
    bool is_capture = shared->magic == CAPTURE_MAGIC && shared->layout == LAYOUT_VERSION
                      && shm->size >= PARTS / 2 * footprint(MAX_FRAME);
    if (is_capture && shared->port == port && shared->epoch == epoch)
        return 0;
    shm_unmap(shm);
    errno = is_capture ? ESTALE : EINVAL;
    return -1;
}

int capture_tx_open(struct capture_tx *tx, int fd, uint32_t port, uint64_t epoch)
{
    *tx = (struct capture_tx){0};
    if (capture_map(&tx->shm, fd, port, epoch) < 0)
        return -1;
    tx->shared = tx->shm.header;
    return 0;
}

int capture_rx_open(struct capture_rx *rx, int fd, uint32_t port, uint64_t epoch)
{
    *rx = (struct capture_rx){0};
    if (capture_map(&rx->shm, fd, port, epoch) < 0)
        return -1;
    rx->shared = rx->shm.header;
    return 0;
}

void capture_tx_close(struct capture_tx *tx)
{
    shm_unmap(&tx->shm);
    *tx = (struct capture_tx){0};
}

void capture_rx_close(struct capture_rx *rx)
{
    shm_unmap(&rx->shm);
    *rx = (struct capture_rx){0};
}

static uint64_t free_bytes(const struct capture_tx *tx)
{
    return tx->shm.size - (tx->head - tx->tail);
}

static void read_tail(struct capture_tx *tx)
{
    uint64_t tail = atomic_load_explicit(&tx->shared->tail, memory_order_acquire);
    if (tail < tx->tail || tail > tx->shown_head)
        tx->broken = true;
    else
        tx->tail = tail;
}

static bool has_room(struct capture_tx *tx, uint64_t bytes)
{
    uint64_t part = tx->shm.size / PARTS, wanted = tx->full && part > bytes ? part : bytes;
    if (free_bytes(tx) < wanted)
        read_tail(tx);
    tx->full = tx->broken || free_bytes(tx) < wanted;
    return !tx->full;
}

void capture_put(struct capture_tx *tx, const struct capture_head *head, const uint8_t *frame)
{
    uint64_t bytes = footprint(head->kept);
    if (!has_room(tx, bytes)) {
        tx->lost++;
        return;
    }
    uint8_t *at = tx->shm.data + (tx->head & (tx->shm.size - 1));
    memcpy(at, head, sizeof *head);
    memcpy(at + sizeof *head, frame, head->kept);
    tx->head += bytes;
}

void capture_publish(struct capture_tx *tx)
{
    if (tx->lost != tx->shown_lost) {
        tx->shown_lost = tx->lost;
        atomic_store_explicit(&tx->shared->lost, tx->lost, memory_order_release);
    }
    if (tx->head != tx->shown_head) {
        tx->shown_head = tx->head;
        atomic_store_explicit(&tx->shared->head, tx->head, memory_order_release);
    }
}

const uint8_t *capture_next(struct capture_rx *rx, struct capture_head *head)
{
    uint64_t ready = rx->broken ? 0 : atomic_load_explicit(&rx->shared->head, memory_order_acquire) - rx->at;
    if (ready == 0)
        return NULL;
    const uint8_t *record = rx->shm.data + (rx->at & (rx->shm.size - 1));
    bool is_sane = ready <= rx->shm.size && ready >= sizeof *head;
    if (is_sane) {
        memcpy(head, record, sizeof *head);
        is_sane = head->kept <= MAX_FRAME && footprint(head->kept) <= ready;
    }
    if (!is_sane) {
        rx->broken = true;
        return NULL;
    }
    rx->at += footprint(head->kept);
    return record + sizeof *head;
}

void capture_take(struct capture_rx *rx)
{
    atomic_store_explicit(&rx->shared->tail, rx->at, memory_order_release);
}
