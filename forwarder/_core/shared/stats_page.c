#include "shared/stats_page.h"

#include <errno.h>

#define STATS_PAGE_MAGIC 0x42424c4bu /* "BBLK" */

const char *const counter_names[COUNTER_COUNT] = {
#define X(name) #name,
    COUNTERS(X)
#undef X
};

_Static_assert(sizeof(struct counters) == COUNTER_COUNT * sizeof(uint64_t), "counters are an array of numbers");

int stats_page_create(uint64_t secret)
{
    int fd = shm_create("bulkhead-stats", sizeof(struct stats_page));
    struct shm shm;
    if (fd < 0)
        return -1;
    if (shm_map_flat(&shm, fd, sizeof(struct stats_page), SHM_WRITE) == 0) {
        struct stats_page *page = shm.header;
        page->magic = STATS_PAGE_MAGIC;
        page->layout = LAYOUT_VERSION;
        page->fdb.secret = secret;
        page->at_boundary = 1; /* no worker has touched the stream yet */
        shm_unmap(&shm);
        return fd;
    }
    return shm_fail(fd);
}

struct stats_page *stats_page_map(struct shm *shm, int fd, enum shm_access access)
{
    if (shm_map_flat(shm, fd, sizeof(struct stats_page), access) < 0)
        return NULL;
    struct stats_page *page = shm->header;
    if (page->magic == STATS_PAGE_MAGIC && page->layout == LAYOUT_VERSION)
        return page;
    shm_unmap(shm);
    errno = EINVAL;
    return NULL;
}

void stats_page_publish(struct stats_page *page, const struct counters *counters, uint64_t now)
{
    const uint64_t *value = (const uint64_t *)counters;
    for (size_t i = 0; i < COUNTER_COUNT; i++)
        atomic_store_explicit(&page->published[i], value[i], memory_order_relaxed);
    atomic_store_explicit(&page->published_ns, now, memory_order_release);
}

void stats_page_read(const struct stats_page *page, struct counters *counters)
{
    uint64_t *value = (uint64_t *)counters;
    for (size_t i = 0; i < COUNTER_COUNT; i++)
        value[i] = atomic_load_explicit(&((struct stats_page *)(uintptr_t)page)->published[i], memory_order_relaxed);
}

void stats_page_forget(struct stats_page *page, uint32_t port, uint64_t attachment)
{
    struct loss *loss = &page->loss[port];
    sent_reset(&page->sent[port]);
    atomic_store_explicit(&loss->towards, 0, memory_order_relaxed);
    atomic_store_explicit(&loss->from, 0, memory_order_relaxed);
    atomic_store_explicit(&loss->flood_ring, 0, memory_order_relaxed);
    atomic_store_explicit(&loss->attachment, attachment, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* before the addresses of the new VM */
}

uint64_t stats_page_attachment(const struct stats_page *page, uint32_t port)
{
    if (port >= MAX_PORTS)
        return 0;
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&((struct stats_page *)(uintptr_t)page)->loss[port].attachment, memory_order_relaxed);
}
