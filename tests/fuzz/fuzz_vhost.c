/* Fuzz target: what a guest may write into the memory that it shares: its queues, and all that descriptors point to.

   The memory begins as an honest driver would have it, with chains waiting in both queues. The input is a list of
   patches, each followed by a turn of the engine: an offset, a length and bytes. Nothing outside of the region may
   change, and the frames that come out must fit their records (harness.h reads the ring as a neighbour does). */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/guest_queues.h"
#include "harness.h"
#include "vhost/virtio.h"

#define FILE_BYTES 0x20000u
#define BEHIND 64u
#define MEMORY_BYTES (FILE_BYTES - BEHIND)
#define ENTRIES 16u
#define QUEUE_BYTES 0x1000u
#define AVAILABLE 0x400u
#define USED 0x800u
#define TABLE 0x3000u
#define BUFFERS 0x4000u
#define BUFFER_BYTES 0x800u

struct patch {
    uint16_t at;
    uint8_t bytes;
    uint8_t index; /* where the available index of a queue is moved to, or 0 */
};

static void must(bool done)
{
    if (!done)
        abort();
}

static void lay_out(uint8_t *memory)
{
    memset(memory, 0, FILE_BYTES);
    for (uint32_t which = 0; which < QUEUES; which++) {
        struct descriptor *table = (struct descriptor *)(void *)(memory + which * QUEUE_BYTES);
        uint16_t *available = (uint16_t *)(void *)(memory + which * QUEUE_BYTES + AVAILABLE);
        for (uint16_t i = 0; i < ENTRIES; i++) {
            table[i] = (struct descriptor){.address = BUFFERS + (which * ENTRIES + i) * BUFFER_BYTES,
                                           .bytes = 100 + i,
                                           .flags = which == QUEUE_TO_GUEST ? DESCRIPTOR_WRITE : 0};
            available[2 + i] = i;
        }
        available[1] = ENTRIES / 2;
    }
    struct descriptor *indirect = (struct descriptor *)(void *)(memory + TABLE);
    indirect[0] = (struct descriptor){.address = BUFFERS, .bytes = 12, .flags = DESCRIPTOR_NEXT, .next = 1};
    indirect[1] = (struct descriptor){.address = BUFFERS + 12, .bytes = 300};
    struct descriptor *first = (struct descriptor *)(void *)(memory + QUEUE_BYTES);
    *first = (struct descriptor){.address = TABLE, .bytes = 32, .flags = DESCRIPTOR_INDIRECT};
}

static void start(struct engine *e, int file, const int *kicks, uint64_t features)
{
    queues_set_features(e, features);
    must(memory_add(&e->vhost->memory, 0, 0, MEMORY_BYTES, 0, file) == MEMORY_FINE);
    for (unsigned which = 0; which < QUEUES; which++) {
        struct queue_place place = {.entries = ENTRIES,
                                    .descriptors = which * QUEUE_BYTES,
                                    .available = which * QUEUE_BYTES + AVAILABLE,
                                    .used = which * QUEUE_BYTES + USED};
        e->vhost->queue[which].enabled = true;
        must(queues_start(e, which, &place, 0, false, kicks[which], -1) == 0);
    }
}

static size_t apply(uint8_t *memory, const uint8_t *data, size_t size)
{
    struct patch patch;
    if (size < sizeof patch)
        return size;
    memcpy(&patch, data, sizeof patch);
    size_t bytes = patch.bytes % 64u, left = size - sizeof patch;
    if (bytes > left)
        bytes = left;
    size_t at = patch.at % (MEMORY_BYTES - 64u);
    memcpy(memory + at, data + sizeof patch, bytes);
    if (patch.index != 0) {
        uint16_t index = (uint16_t)(patch.index >> 1);
        memcpy(memory + (patch.index & 1u) * QUEUE_BYTES + AVAILABLE + 2, &index, sizeof index);
    }
    return sizeof patch + bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t forms[] = {0, 1ull << VIRTIO_VERSION_1, 1ull << VIRTIO_NET_MRG_RXBUF,
                                     1ull << VIRTIO_VERSION_1 | 1ull << VIRTIO_NET_MRG_RXBUF
                                         | 1ull << VIRTIO_RING_EVENT_IDX | 1ull << VIRTIO_NET_HOST_TSO4
                                         | 1ull << VIRTIO_NET_GUEST_CSUM};
    if (size < 1)
        return 0;
    struct pair *pair = pair_open_as(KIND_VHOST);
    struct engine *e = &pair->engine;
    int file = memfd_create("guest", MFD_CLOEXEC), kicks[] = {doorbell_create(), doorbell_create()};
    must(file >= 0 && ftruncate(file, FILE_BYTES) == 0);
    uint8_t *memory = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    must(memory != MAP_FAILED);
    lay_out(memory);
    memset(memory + MEMORY_BYTES, 0xa5, BEHIND);
    start(e, file, kicks, forms[data[0] % (sizeof forms / sizeof *forms)]);
    for (size_t at = 1; at < size && !e->down;) {
        at += apply(memory, data + at, size - at);
        engine_run(e, 0);
        pair_digest(pair);
        pair_speak(pair);
    }
    engine_run(e, 0);
    for (uint32_t i = 0; i < BEHIND; i++)
        must(memory[MEMORY_BYTES + i] == 0xa5);
    pair_digest(pair);
    pair_close(pair);
    munmap(memory, FILE_BYTES);
    close(file);
    close(kicks[0]);
    close(kicks[1]);
    return 0;
}
