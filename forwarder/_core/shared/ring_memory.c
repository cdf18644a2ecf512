#include "shared/ring_memory.h"

#include <errno.h>
#include <unistd.h>

#define RING_MAGIC 0x42524e47u /* "BRNG" */
#define TAIL_MAGIC 0x4254414cu /* "BTAL" */

_Static_assert(sizeof(struct run) == 24, "a run's description is part of the shared layout");
_Static_assert(sizeof(struct ring_shared) <= SHM_HEADER_BYTES, "header must fit");

static int create_tail(const struct ring_id *id)
{
    struct shm shm;
    int fd = shm_create("bulkhead-tail", sizeof(struct ring_tail));
    if (fd < 0 || shm_map_flat(&shm, fd, sizeof(struct ring_tail), SHM_WRITE) < 0)
        return fd < 0 ? -1 : shm_fail(fd);
    struct ring_tail *tail = shm.header;
    tail->magic = TAIL_MAGIC;
    tail->layout = LAYOUT_VERSION;
    tail->id = *id;
    shm_unmap(&shm);
    return fd;
}

static int create_ring(uint32_t size, const struct ring_id *id)
{
    int fd = shm_create("bulkhead-ring", SHM_HEADER_BYTES + (size_t)size);
    struct shm shm;
    if (fd < 0)
        return -1;
    if (size < 2 * RUN_LIMIT) {
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

int ring_create(uint32_t size, const struct ring_id *id, struct ring_fds *fds)
{
    fds->ring = create_ring(size, id);
    if (fds->ring < 0)
        return -1;
    fds->tail = create_tail(id);
    return fds->tail < 0 ? shm_fail(fds->ring) : 0;
}

static bool is_expected(const struct ring_id *id, const struct ring_id *expected)
{
    return id->src_port == expected->src_port && id->dst_port == expected->dst_port
           && id->src_epoch == expected->src_epoch && id->dst_epoch == expected->dst_epoch;
}

/* Check the mapped memory, or unmap it. */
static int check(struct shm *ring, struct shm *tail, const struct ring_id *expected)
{
    const struct ring_shared *shared = ring->header;
    const struct ring_tail *taken = tail->header;
    bool sound = shared->magic == RING_MAGIC && shared->layout == LAYOUT_VERSION && ring->size >= 2 * RUN_LIMIT
                 && taken->magic == TAIL_MAGIC && taken->layout == LAYOUT_VERSION;
    if (sound && is_expected(&shared->id, expected) && is_expected(&taken->id, expected))
        return 0;
    shm_unmap(ring);
    shm_unmap(tail);
    errno = sound ? ESTALE : EINVAL;
    return -1;
}

static int map_both(struct shm *ring, struct shm *tail, struct ring_fds fds, bool producer,
                    const struct ring_id *expected)
{
    if (shm_map_ring(ring, fds.ring, producer ? SHM_WRITE : SHM_READ) < 0)
        return -1;
    if (shm_map_flat(tail, fds.tail, sizeof(struct ring_tail), producer ? SHM_READ : SHM_WRITE) == 0)
        return check(ring, tail, expected);
    int saved = errno;
    shm_unmap(ring);
    errno = saved;
    return -1;
}

int ring_tx_open(struct ring_tx *tx, struct ring_fds fds, const struct ring_id *expected)
{
    *tx = (struct ring_tx){0};
    if (map_both(&tx->shm, &tx->tail_shm, fds, true, expected) < 0)
        return -1;
    tx->shared = tx->shm.header;
    tx->taken = tx->tail_shm.header;
    if (shm_seal_writers(fds.ring) == 0)
        return 0;
    int saved = errno;
    ring_tx_close(tx);
    errno = saved;
    return -1;
}

int ring_rx_open(struct ring_rx *rx, struct ring_fds fds, const struct ring_id *expected)
{
    *rx = (struct ring_rx){0};
    if (map_both(&rx->shm, &rx->tail_shm, fds, false, expected) < 0)
        return -1;
    rx->shared = rx->shm.header;
    rx->taken = rx->tail_shm.header;
    rx->tail_runs = rx->head = atomic_load_explicit(&rx->taken->runs, memory_order_relaxed);
    rx->tail = atomic_load_explicit(&rx->taken->bytes, memory_order_relaxed);
    return 0;
}

void ring_tx_close(struct ring_tx *tx)
{
    shm_unmap(&tx->shm);
    shm_unmap(&tx->tail_shm);
    *tx = (struct ring_tx){0};
}

void ring_rx_close(struct ring_rx *rx)
{
    shm_unmap(&rx->shm);
    shm_unmap(&rx->tail_shm);
    *rx = (struct ring_rx){0};
}
