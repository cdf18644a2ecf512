#include "shared/flood.h"

#include <errno.h>

#include "packet/frame.h"

#define FLOOD_MAGIC 0x42464c44u /* "BFLD" */
#define ALIGN 8u

_Static_assert(sizeof(struct flood_record) == 16, "the record header is part of the shared layout");
_Static_assert(sizeof(struct flood_shared) <= SHM_HEADER_BYTES, "header must fit");

static uint32_t footprint(uint32_t bytes)
{
    return (uint32_t)sizeof(struct flood_record) + ((bytes + ALIGN - 1) & ~(ALIGN - 1));
}

int flood_create(uint32_t size, uint32_t port, uint64_t epoch)
{
    int fd = shm_create("bulkhead-flood", SHM_HEADER_BYTES + (size_t)size);
    struct shm shm;
    if (fd < 0)
        return -1;
    if (size < 2 * footprint(MAX_FRAME)) {
        errno = EINVAL;
    } else if (shm_map_ring(&shm, fd, SHM_WRITE) == 0) {
        struct flood_shared *shared = shm.header;
        shared->magic = FLOOD_MAGIC;
        shared->layout = LAYOUT_VERSION;
        shared->port = port;
        shared->epoch = epoch;
        atomic_init(&shared->intake, (uint64_t)MAX_FRAME << 32);
        shm_unmap(&shm);
        return fd;
    }
    return shm_fail(fd);
}

static int flood_map(struct shm *shm, int fd, enum shm_access access, uint32_t port, uint64_t epoch)
{
    if (shm_map_ring(shm, fd, access) < 0)
        return -1;
    const struct flood_shared *shared = shm->header;
    bool is_flood = shared->magic == FLOOD_MAGIC && shared->layout == LAYOUT_VERSION
                    && shm->size >= 2 * footprint(MAX_FRAME);
    if (is_flood && shared->port == port && shared->epoch == epoch)
        return 0;
    shm_unmap(shm);
    errno = is_flood ? ESTALE : EINVAL;
    return -1;
}

int flood_tx_open(struct flood_tx *tx, int fd, uint32_t port, uint64_t epoch)
{
    *tx = (struct flood_tx){0};
    if (flood_map(&tx->shm, fd, SHM_WRITE, port, epoch) < 0)
        return -1;
    if (shm_seal_writers(fd) < 0) {
        int saved = errno;
        shm_unmap(&tx->shm);
        errno = saved;
        return -1;
    }
    tx->shared = tx->shm.header;
    return 0;
}

int flood_tx_move(struct flood_tx *tx, int fd)
{
    struct flood_tx next;
    struct flood_shared *old = tx->shared;
    if (flood_tx_open(&next, fd, old->port, old->epoch) < 0)
        return -1;
    flood_publish(tx);
    atomic_store_explicit(&next.shared->intake, atomic_load_explicit(&old->intake, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&next.shared->sleep.number, atomic_load_explicit(&old->sleep.number, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&old->over, 1, memory_order_release);
    flood_tx_close(tx);
    *tx = next;
    return 0;
}

/* The consistent pair (head, number); false if the writer kept changing it. */
static bool read_position(const struct flood_shared *shared, uint64_t *head, uint32_t *number)
{
    for (int attempt = 0; attempt < 8; attempt++) {
        uint32_t before = atomic_load_explicit(&shared->version, memory_order_acquire);
        *head = atomic_load_explicit(&shared->head, memory_order_relaxed);
        *number = atomic_load_explicit(&shared->number, memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
        if ((before & 1u) == 0 && atomic_load_explicit(&shared->version, memory_order_relaxed) == before)
            return true;
    }
    return false;
}

int flood_rx_open(struct flood_rx *rx, int fd, uint32_t port, uint64_t epoch, bool from_start)
{
    *rx = (struct flood_rx){0};
    if (flood_map(&rx->shm, fd, SHM_READ, port, epoch) < 0)
        return -1;
    rx->shared = rx->shm.header;
    if (!from_start && !read_position(rx->shared, &rx->cursor, &rx->number)) {
        flood_rx_close(rx);
        errno = EAGAIN;
        return -1;
    }
    return 0;
}

static bool lapped(const struct flood_rx *rx)
{
    atomic_thread_fence(memory_order_acquire);
    uint64_t reserve = atomic_load_explicit(&rx->shared->reserve, memory_order_relaxed);
    return reserve - rx->cursor > rx->shm.size;
}

bool flood_go_back(struct flood_rx *rx, uint64_t cursor)
{
    struct flood_record record;
    struct flood_rx back = *rx;
    if (cursor == rx->cursor)
        return true;
    if (cursor > rx->cursor || cursor % ALIGN != 0)
        return false;
    back.cursor = cursor;
    memcpy(&record, rx->shm.data + (cursor & (rx->shm.size - 1)), sizeof record);
    if (lapped(&back))
        return false;
    rx->cursor = cursor;
    rx->number = record.number;
    return true;
}

void flood_tx_close(struct flood_tx *tx)
{
    shm_unmap(&tx->shm);
    *tx = (struct flood_tx){0};
}

void flood_rx_close(struct flood_rx *rx)
{
    shm_unmap(&rx->shm);
    *rx = (struct flood_rx){0};
}

void flood_put(struct flood_tx *tx, const uint8_t *frame, uint32_t bytes, enum flood_kind kind)
{
    struct flood_record record = {.bytes = bytes, .number = tx->number, .kind = kind};
    uint8_t *at = tx->shm.data + (tx->head & (tx->shm.size - 1));
    atomic_store_explicit(&tx->shared->reserve, tx->head + footprint(bytes), memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    memcpy(at, &record, sizeof record);
    memcpy(at + sizeof record, frame, bytes);
    tx->head += footprint(bytes);
    if (kind != FLOOD_REPLY)
        tx->number++;
}

bool flood_publish(struct flood_tx *tx)
{
    if (tx->head == tx->shown)
        return false;
    struct flood_shared *shared = tx->shared;
    bool deliverable = atomic_load_explicit(&shared->number, memory_order_relaxed) != tx->number;
    uint32_t version = atomic_load_explicit(&shared->version, memory_order_relaxed);
    atomic_store_explicit(&shared->version, version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&shared->number, tx->number, memory_order_relaxed);
    atomic_store_explicit(&shared->head, tx->head, memory_order_release);
    atomic_store_explicit(&shared->version, version + 2, memory_order_release);
    tx->shown = tx->head;
    return deliverable;
}

/* Never waits for the writer, which may be stopped inside of a publication. */
static enum flood_status skip_lap(struct flood_rx *rx, uint64_t head, uint64_t *lost)
{
    uint32_t number;
    rx->cursor = head;
    rx->recount = !read_position(rx->shared, &rx->cursor, &number);
    if (rx->recount)
        return FLOOD_EMPTY;
    *lost += (uint32_t)(number - rx->number);
    rx->number = number;
    return FLOOD_EMPTY;
}

enum flood_status flood_next(struct flood_rx *rx, uint8_t *out, uint32_t room, struct flood_record *record,
                             uint64_t *lost)
{
    uint64_t head = atomic_load_explicit(&rx->shared->head, memory_order_acquire);
    if (head == rx->cursor || rx->broken)
        return FLOOD_EMPTY;
    if (lapped(rx))
        return skip_lap(rx, head, lost);
    const uint8_t *at = rx->shm.data + (rx->cursor & (rx->shm.size - 1));
    memcpy(record, at, sizeof *record);
    bool is_reply = record->kind == FLOOD_REPLY;
    bool sane = record->bytes <= MAX_FRAME && record->bytes >= (is_reply ? ADDRESSES_BYTES : MIN_FRAME)
                && record->kind >= FLOOD_GROUP && record->kind <= FLOOD_REPLY
                && footprint(record->bytes) <= head - rx->cursor;
    if (sane && record->bytes > room)
        return lapped(rx) ? skip_lap(rx, head, lost) : FLOOD_NO_ROOM;
    if (sane)
        memcpy(out, at + sizeof *record, record->bytes);
    if (lapped(rx))
        return skip_lap(rx, head, lost);
    if (sane && rx->recount && !is_reply) {
        *lost += (uint32_t)(record->number - rx->number);
        rx->number = record->number;
        rx->recount = false;
    }
    if (!sane || (!is_reply && record->number != rx->number)) {
        rx->broken = true;
        return FLOOD_EMPTY;
    }
    rx->cursor += footprint(record->bytes);
    rx->number += is_reply ? 0 : 1;
    return FLOOD_FRAME;
}
