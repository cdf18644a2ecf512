#include "shared/stats_page.h"

#include <errno.h>

#define BLOCK_MAGIC 0x42424c4bu /* "BBLK" */

const char *const counter_names[COUNTER_COUNT] = {
#define X(name) #name,
    COUNTERS(X)
#undef X
};

_Static_assert(sizeof(struct counters) == COUNTER_COUNT * sizeof(uint64_t), "counters are an array of numbers");

int block_create(uint64_t secret)
{
    int fd = shm_create("bulkhead-block", sizeof(struct block));
    struct shm shm;
    if (fd < 0)
        return -1;
    if (shm_map_flat(&shm, fd, sizeof(struct block), SHM_WRITE) == 0) {
        struct block *block = shm.header;
        block->magic = BLOCK_MAGIC;
        block->layout = LAYOUT_VERSION;
        block->fdb.secret = secret;
        block->at_boundary = 1; /* nobody has touched the stream yet */
        shm_unmap(&shm);
        return fd;
    }
    return shm_fail(fd);
}

struct block *block_map(struct shm *shm, int fd, enum shm_access access)
{
    if (shm_map_flat(shm, fd, sizeof(struct block), access) < 0)
        return NULL;
    struct block *block = shm->header;
    if (block->magic == BLOCK_MAGIC && block->layout == LAYOUT_VERSION)
        return block;
    shm_unmap(shm);
    errno = EINVAL;
    return NULL;
}

void block_publish(struct block *block, const struct counters *counters, uint64_t now)
{
    const uint64_t *value = (const uint64_t *)counters;
    for (size_t i = 0; i < COUNTER_COUNT; i++)
        atomic_store_explicit(&block->published[i], value[i], memory_order_relaxed);
    atomic_store_explicit(&block->published_ns, now, memory_order_relaxed);
}

void block_read(const struct block *block, struct counters *counters)
{
    uint64_t *value = (uint64_t *)counters;
    for (size_t i = 0; i < COUNTER_COUNT; i++)
        value[i] = atomic_load_explicit(&((struct block *)(uintptr_t)block)->published[i], memory_order_relaxed);
}

void loss_reset(struct loss *loss, uint64_t born)
{
    atomic_store_explicit(&loss->towards, 0, memory_order_relaxed);
    atomic_store_explicit(&loss->from, 0, memory_order_relaxed);
    atomic_store_explicit(&loss->born, born, memory_order_relaxed);
}
