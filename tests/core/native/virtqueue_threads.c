/* sanitize: address,undefined */
/* A guest that rewrites its descriptors, tables, indices and event words while they are used.

   Not under ThreadSanitizer, on purpose: the guest may write to its memory at any time, and each word is read once
   and believed for nothing but one chain (virtqueue.h). One thread is an honest driver, another one scribbles over all
   that it says; the device must neither touch memory outside of the region nor say that a frame is longer than its
   buffer. The bytes behind the region, on its last page, are to stay as they are.

   An index that runs away ends a session; here the queue begins anew where the driver is.

   The first argument is how many chains to take, for a longer run. */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "vhost/vhost_port.h"
#include "vhost/virtio.h"

#define GUEST 0x100000u
#define FRONT_END 0x7f0000000000u
#define FILE_BYTES (1u << 20)
#define BEHIND 96u /* bytes of the last page that are not the guest's */
#define MEMORY_BYTES (FILE_BYTES - BEHIND)
#define ENTRIES 256u
#define QUEUE_BYTES 0x4000u
#define AVAILABLE 0x1000u
#define USED 0x2000u
#define TABLES 0x10000u /* indirect ones, in front of the buffers */
#define BUFFERS 0x20000u
#define CANARY 0xa5
#define SIZE MAX_FRAME

static uint8_t *memory; /* the guest's view */
static _Atomic bool finished;
static struct vhost_port *port;
static _Atomic uint32_t moved[QUEUES], gone;
static uint64_t chains, good, bad, frames_in, anew;

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static struct descriptor *descriptors(unsigned which)
{
    return (struct descriptor *)(void *)(memory + which * QUEUE_BYTES);
}

static uint16_t *available(unsigned which)
{
    return (uint16_t *)(void *)(memory + which * QUEUE_BYTES + AVAILABLE);
}

/* Each entry of a queue has its own piece of memory, and sometimes a table of four. */
static void describe(unsigned which, uint32_t index, uint64_t random)
{
    uint32_t at = BUFFERS + (which * ENTRIES + index) * 1536u;
    uint16_t write = which == QUEUE_TO_GUEST ? DESCRIPTOR_WRITE : 0;
    struct descriptor *d = &descriptors(which)[index];
    if (random % 4 != 0) {
        *d = (struct descriptor){.address = GUEST + at, .bytes = 100 + (uint32_t)(random >> 8) % 1400, .flags = write};
        return;
    }
    uint32_t table = TABLES + (which * ENTRIES + index) * 64u;
    struct descriptor *entries = (struct descriptor *)(void *)(memory + table);
    for (uint16_t i = 0; i < 4; i++)
        entries[i] = (struct descriptor){.address = GUEST + at + i * 300u,
                                         .bytes = 300,
                                         .flags = (uint16_t)(write | (i < 3 ? DESCRIPTOR_NEXT : 0)),
                                         .next = (uint16_t)(i + 1)};
    *d = (struct descriptor){.address = GUEST + table, .bytes = 64, .flags = DESCRIPTOR_INDIRECT};
}

static void *drive(void *unused)
{
    uint64_t state = 88172645463325252ull;
    uint16_t index[QUEUES] = {0};
    while (!finished) {
        for (unsigned which = 0; which < QUEUES; which++) {
            uint16_t *ring = available(which);
            /* The used index may have been scribbled over; the device knows. */
            uint16_t used = __atomic_load_n(&port->queue[which].returned, __ATOMIC_ACQUIRE);
            if ((uint16_t)(index[which] - used) > ENTRIES)
                index[which] = used;
            while ((uint16_t)(index[which] - used) < ENTRIES / 2) {
                describe(which, index[which] % ENTRIES, next(&state));
                __atomic_store_n(&ring[2 + index[which] % ENTRIES], (uint16_t)(index[which] % ENTRIES), __ATOMIC_RELAXED);
                __atomic_store_n(&ring[1], ++index[which], __ATOMIC_RELEASE);
            }
        }
        sched_yield();
    }
    return unused;
}

static void *scribble(void *unused)
{
    uint64_t state = 362436069ull;
    static const uint64_t words[] = {0, 1, 3, 5, 0xffff, GUEST, GUEST + MEMORY_BYTES - 8, UINT64_MAX, 1ull << 63};
    while (!finished) {
        uint64_t random = next(&state);
        uint32_t at = (uint32_t)(random % 2 ? random >> 32 : TABLES + (random >> 40)) % BUFFERS;
        uint64_t word = random % 3 == 0 ? next(&state) : words[(random >> 8) % (sizeof words / sizeof *words)];
        /* An index that runs away ends a session, so it is left alone but for now and then. */
        if ((at % QUEUE_BYTES == AVAILABLE && random % 512 != 0) || at % QUEUE_BYTES == USED)
            at += 8;
        memcpy(memory + (at & ~1u), &word, 2u << (random >> 16) % 3);
        if (random % 64 == 0)
            sched_yield();
    }
    return unused;
}

static void start(unsigned which, uint16_t index)
{
    struct queue_place place = {.entries = ENTRIES,
                                .descriptors = FRONT_END + which * QUEUE_BYTES,
                                .available = FRONT_END + which * QUEUE_BYTES + AVAILABLE,
                                .used = FRONT_END + which * QUEUE_BYTES + USED};
    port->queue[which].enabled = true;
    CHECK(virtqueue_start(&port->queue[which], &port->memory, &place, index, false), "queue %u", which);
}

static void begin_anew(unsigned which)
{
    if (!port->queue[which].broken)
        return;
    anew++;
    start(which, __atomic_load_n(&available(which)[1], __ATOMIC_ACQUIRE));
}

static void take(uint8_t *buffer)
{
    int64_t n;
    for (unsigned i = 0; i < 64 && (n = vhost_read(port, buffer, SIZE)) >= 0; i++) {
        CHECK(n <= SIZE || n == UINT32_MAX, "%" PRId64 " bytes", n);
        chains++;
        good += n > 0 && n <= SIZE;
        bad += n == 0 || n == UINT32_MAX;
    }
    vhost_from_done(port);
}

static void give(const uint8_t *record, uint64_t now)
{
    struct vm_sent sent;
    struct span span = {.records = record, .bytes = load_be32(record) + LENGTH_BYTES};
    enum vm_status status = vhost_write(port, &INTAKE_PLAIN, &span, 1, &sent, now);
    CHECK(status == VM_OK || status == VM_FULL || status == VM_NO_BUFFER, "status %d", (int)status);
    frames_in += sent.frames;
}

int main(int argc, char **argv)
{
    uint64_t wanted = argc > 1 ? strtoull(argv[1], NULL, 10) : 300000;
    static uint8_t buffer[SIZE], record[LENGTH_BYTES + 4000];
    int file = memfd_create("guest", MFD_CLOEXEC);
    CHECK(file >= 0 && ftruncate(file, FILE_BYTES) == 0, "a memfd");
    memory = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(memory != MAP_FAILED, "mmap");
    memset(memory + MEMORY_BYTES, CANARY, BEHIND);
    port = vhost_open(moved, &gone);
    CHECK(port != NULL, "a port");
    vhost_set_features(port, 1ull << VIRTIO_VERSION_1 | 1ull << VIRTIO_NET_MRG_RXBUF | 1ull << VIRTIO_RING_EVENT_IDX);
    CHECK(memory_add(&port->memory, GUEST, FRONT_END, MEMORY_BYTES, 0, file) == MEMORY_FINE, "a region");
    for (unsigned which = 0; which < QUEUES; which++)
        start(which, 0);
    pthread_t threads[2];
    CHECK(pthread_create(&threads[0], NULL, drive, NULL) == 0, "a thread");
    CHECK(pthread_create(&threads[1], NULL, scribble, NULL) == 0, "a thread");
    for (uint64_t round = 0; chains < wanted; round++) {
        store_be32(record, 60 + (uint32_t)(round * 37 % 3900));
        take(buffer);
        give(record, monotonic_ns());
        vhost_call(port);
        virtqueue_arm(&port->queue[round % QUEUES]);
        for (unsigned which = 0; which < QUEUES; which++)
            begin_anew(which);
        if (virtqueue_waiting(&port->queue[QUEUE_FROM_GUEST]) == 0)
            sched_yield();
    }
    finished = true;
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < BEHIND; i++)
        CHECK(memory[MEMORY_BYTES + i] == CANARY, "byte %" PRIu32 " behind the guest's memory was written", i);
    CHECK(good > 0 && bad > 0 && frames_in > 0, "%" PRIu64 " good, %" PRIu64 " bad, %" PRIu64 " in", good, bad, frames_in);
    printf("%" PRIu64 " chains: %" PRIu64 " good, %" PRIu64 " bad; %" PRIu64 " frames in; %" PRIu64 " begun anew\n", chains,
           good, bad, frames_in, anew);
    vhost_close(port);
    munmap(memory, FILE_BYTES);
    close(file);
    return 0;
}
