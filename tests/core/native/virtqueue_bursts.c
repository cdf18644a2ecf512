/* sanitize: address,undefined */
/* When what waits in a queue is taken: a burst, or as soon as the driver adds no more. */
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "vhost/virtqueue.h"

#define AT 0x10000u
#define ENTRIES 256u
#define BYTES 0x4000u
#define AVAILABLE 0x1000u
#define USED 0x2000u

static struct guest_memory regions;
static uint8_t *memory;
static _Atomic uint32_t moved;
static struct virtqueue queue = {.moved = &moved, .enabled = true, .kick = -1, .call = -1};

/* The driver has so many chains waiting. */
static void waiting(uint16_t chains)
{
    uint16_t *available = (uint16_t *)(void *)(memory + AVAILABLE);
    __atomic_store_n(&available[1], (uint16_t)(queue.taken + chains), __ATOMIC_RELEASE);
}

static bool look(uint16_t chains)
{
    waiting(chains);
    return virtqueue_has_burst(&queue);
}

int main(void)
{
    int file = memfd_create("guest", 0);
    CHECK(ftruncate(file, BYTES) == 0, "a file");
    memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(memory_add(&regions, AT, AT, BYTES, 0, file) == MEMORY_FINE, "a region");
    const struct queue_place place = {.entries = ENTRIES, .descriptors = AT, .available = AT + AVAILABLE, .used = AT + USED};
    CHECK(virtqueue_start(&queue, &regions, &place, 65530, false), "a queue");

    CHECK(!look(0) && !look(0), "nothing waits");
    CHECK(!look(1) && look(1), "one that stays alone is taken at the second look");
    CHECK(!look(5) && !look(19) && !look(31) && look(31), "a driver that adds is left to it");
    CHECK(look(BURST_CHAINS), "a burst is taken at once");
    CHECK(!look(BURST_CHAINS - 1) && look(BURST_CHAINS), "however it became one");
    waiting(1);
    CHECK(virtqueue_arm(&queue), "before sleeping any is enough");
    CHECK(!look(ENTRIES + 1) && queue.broken, "an index that runs away");

    virtqueue_stop(&queue);
    CHECK(!virtqueue_has_burst(&queue), "a stopped queue has none");
    memory_close(&regions);
    return munmap(memory, BYTES) + close(file);
}
