/* A guest behind a vhost-user socket: see guest.h. */
#include "guest.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

enum {
    TO_GUEST, FROM_GUEST, /* the queues */
    DESCRIPTORS = 0, AVAILABLE = 0x2000, USED = 0x3000, QUEUE_BYTES = 0x5000,
    TABLES = 2 * QUEUE_BYTES, PIECES = 4, PIECE_BYTES = 32768,
    BUFFERS = 0x20000,
    NEXT = 1, WRITE = 2, INDIRECT = 4,
    GET_FEATURES = 1, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 5, SET_NUM = 8, SET_ADDR, SET_BASE, GET_BASE, SET_KICK, SET_CALL,
    SET_ENABLE = 18,
};
static const uint64_t MEMORY = 256u << 20, FRONT_END = 0x7f0000000000;
static const uint64_t FEATURES = UINT64_C(1) << 32 | 1u << 30 | 1u << 29 | 1u << 28 | 1u << 15 /* mergeable */
                                 | 1u << 0 | 1u << 1 | 1u << 7 | 1u << 8 | 1u << 11 | 1u << 12 /* sums, segments */;

struct descriptor { uint64_t address; uint32_t bytes; uint16_t flags, next; };
struct used { uint32_t head, bytes; };

struct queue {
    struct descriptor *descriptors;
    _Atomic uint16_t *available; /* flags, index, heads, used_event */
    _Atomic uint16_t *used;      /* flags, index, entries, avail_event */
    uint16_t index, seen;
    int kick, call;
};

struct guest {
    int fd;
    uint8_t *memory;
    size_t taken; /* by guest_memory */
    struct queue queue[2];
    uint8_t *whole; /* a frame that lies around the end of the buffers */
    unsigned held;  /* buffers of the last frame, to be posted again */
};

static void say(const struct guest *guest, uint32_t request, const void *payload, uint32_t bytes, int fd) {
    uint32_t header[3] = {request, 1, bytes};
    struct iovec parts[2] = {{header, sizeof header}, {(void *)(uintptr_t)payload, bytes}};
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        *rights = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    }
    if (sendmsg(guest->fd, &message, MSG_NOSIGNAL) != (ssize_t)(sizeof header + bytes)) die("vhost-user message");
}

static uint64_t ask(const struct guest *guest, uint32_t request, const void *payload, uint32_t bytes) {
    uint8_t answer[20];
    uint64_t value;
    say(guest, request, payload, bytes, -1);
    for (size_t got = 0; got < sizeof answer;) {
        ssize_t some = recv(guest->fd, answer + got, sizeof answer - got, 0);
        if (some == 0) errno = ECONNRESET;
        if (some <= 0 && errno != EAGAIN && errno != EINTR) die("vhost-user answer"); /* a stop is heeded later */
        got += some > 0 ? (size_t)some : 0;
    }
    memcpy(&value, answer + 12, sizeof value);
    return value;
}

static void start(struct guest *guest, uint32_t which) {
    struct queue *queue = &guest->queue[which];
    uint64_t at = FRONT_END + which * QUEUE_BYTES, index = which;
    struct { uint32_t index, flags; uint64_t descriptors, used, available, log; } place = {
        which, 0, at + DESCRIPTORS, at + USED, at + AVAILABLE, 0};
    uint8_t *base = guest->memory + which * QUEUE_BYTES;
    *queue = (struct queue){.descriptors = (void *)(base + DESCRIPTORS), .available = (void *)(base + AVAILABLE),
                            .used = (void *)(base + USED), .kick = eventfd(0, EFD_NONBLOCK), .call = eventfd(0, EFD_NONBLOCK)};
    say(guest, SET_NUM, (uint32_t[]){which, GUEST_ENTRIES}, 8, -1);
    say(guest, SET_BASE, (uint32_t[]){which, 0}, 8, -1);
    say(guest, SET_ADDR, &place, sizeof place, -1);
    say(guest, SET_KICK, &index, 8, queue->kick);
    say(guest, SET_CALL, &index, 8, queue->call);
    say(guest, SET_ENABLE, (uint32_t[]){which, 1}, 8, -1);
}

/* Move the index, and kick if the device asked to be told of this one (section 2.7.10). */
static void show(struct queue *queue, uint16_t count) {
    uint16_t before = queue->index;
    queue->index = (uint16_t)(queue->index + count);
    atomic_store_explicit(&queue->available[1], queue->index, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    uint16_t event = atomic_load_explicit(&queue->used[2 + 4 * GUEST_ENTRIES], memory_order_relaxed);
    if ((uint16_t)(queue->index - event - 1) < (uint16_t)(queue->index - before)) eventfd_write(queue->kick, 1);
}

static void post(struct guest *guest, unsigned count) {
    struct queue *queue = &guest->queue[TO_GUEST];
    for (unsigned i = 0; i < count; i++) {
        uint16_t slot = (uint16_t)(queue->index + i) % GUEST_ENTRIES;
        queue->descriptors[slot] = (struct descriptor){BUFFERS + slot * GUEST_BUFFER, GUEST_BUFFER, WRITE, 0};
        atomic_store_explicit(&queue->available[2 + slot], slot, memory_order_relaxed);
    }
    if (count) show(queue, (uint16_t)count);
}

static uint16_t used_index(const struct queue *queue) {
    return atomic_load_explicit(&queue->used[1], memory_order_acquire);
}

/* Sleep until the device has moved its index past `seen`. */
static void wait_for_device(struct queue *queue, uint16_t seen, unsigned ms) {
    eventfd_t calls;
    atomic_store_explicit(&queue->available[2 + GUEST_ENTRIES], seen, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if ((int16_t)(used_index(queue) - seen) > 0) return;
    struct pollfd called = {queue->call, POLLIN, 0};
    if (poll(&called, 1, (int)ms) > 0) eventfd_read(queue->call, &calls);
}

struct guest *guest_open(int fd) {
    struct guest *guest = calloc(1, sizeof *guest);
    int file = memfd_create("guest", MFD_CLOEXEC);
    uint64_t features = FEATURES, page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (!guest || file < 0 || ftruncate(file, (off_t)MEMORY)) die("no memory for a guest");
    guest->fd = fd;
    guest->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    guest->whole = malloc(LARGEST + GUEST_HEADER);
    if (guest->memory == MAP_FAILED || !guest->whole) die("no memory for a guest");
    guest->taken = (BUFFERS + GUEST_ENTRIES * GUEST_BUFFER + page - 1) / page * page;
    if (features & ~ask(guest, GET_FEATURES, NULL, 0)) die("the switch does not offer what the guest wants");
    struct { uint32_t count, padding; uint64_t guest, bytes, front_end, offset; } table = {1, 0, 0, MEMORY, FRONT_END, 0};
    /* The driver before this one stops. */
    for (uint32_t which = 0; which < 2; which++) ask(guest, GET_BASE, (uint32_t[]){which, 0}, 8);
    say(guest, SET_OWNER, NULL, 0, -1);
    say(guest, SET_FEATURES, &features, 8, -1);
    say(guest, SET_MEM_TABLE, &table, sizeof table, file);
    for (uint32_t which = 0; which < 2; which++) start(guest, which);
    ask(guest, GET_FEATURES, NULL, 0); /* all of it has been done */
    post(guest, GUEST_ENTRIES);
    close(file);
    return guest;
}

void guest_close(struct guest *guest) {
    for (unsigned i = 0; i < 2; i++) {
        close(guest->queue[i].kick);
        close(guest->queue[i].call);
    }
    munmap(guest->memory, MEMORY);
    free(guest->whole);
    free(guest);
}

uint8_t *guest_queues(struct guest *guest, size_t *bytes) {
    *bytes = BUFFERS;
    return guest->memory;
}

void guest_contradict(struct guest *guest) {
    show(&guest->queue[FROM_GUEST], GUEST_ENTRIES + 1);
}

uint8_t *guest_memory(struct guest *guest, size_t bytes) {
    uint8_t *at = guest->memory + guest->taken;
    guest->taken += (bytes + 63) & ~(size_t)63;
    if (guest->taken > MEMORY) die("the guest has no more memory");
    return at;
}

static unsigned in_flight(const struct queue *queue) {
    return (uint16_t)(queue->index - used_index(queue));
}

bool guest_send(struct guest *guest, uint8_t *at, size_t bytes, uint64_t deadline) {
    struct queue *queue = &guest->queue[FROM_GUEST];
    while (in_flight(queue) >= GUEST_IN_FLIGHT) {
        if (stopping || now_ns() >= deadline) return false;
        wait_for_device(queue, (uint16_t)(queue->index - GUEST_IN_FLIGHT / 2 - 1), PATIENCE_MS);
    }
    uint16_t slot = queue->index % GUEST_ENTRIES;
    uint64_t address = (uint64_t)(at - guest->memory), left = GUEST_HEADER + bytes;
    if (left <= GUEST_BUFFER) {
        queue->descriptors[slot] = (struct descriptor){address, (uint32_t)left, 0, 0};
    } else {
        struct descriptor *table = (void *)(guest->memory + TABLES + slot * PIECES * sizeof *table);
        uint16_t count = 0;
        for (; left; count++) {
            uint32_t some = left < PIECE_BYTES ? (uint32_t)left : PIECE_BYTES;
            table[count] = (struct descriptor){address, some, left > some ? NEXT : 0, (uint16_t)(count + 1)};
            address += some;
            left -= some;
        }
        queue->descriptors[slot] = (struct descriptor){(uint64_t)((uint8_t *)table - guest->memory),
                                                       (uint32_t)(count * sizeof *table), INDIRECT, 0};
    }
    atomic_store_explicit(&queue->available[2 + slot], slot, memory_order_relaxed);
    show(queue, 1);
    return true;
}

bool guest_wait(struct guest *guest, unsigned ms) {
    struct queue *queue = &guest->queue[TO_GUEST];
    if (used_index(queue) == queue->seen) wait_for_device(queue, queue->seen, ms);
    return used_index(queue) != queue->seen;
}

const uint8_t *guest_next(struct guest *guest, size_t *size) {
    struct queue *queue = &guest->queue[TO_GUEST];
    const struct used *entries = (const void *)(queue->used + 2);
    if (guest->held >= GUEST_ENTRIES / 8) {
        post(guest, guest->held);
        guest->held = 0;
    }
    if (used_index(queue) == queue->seen) {
        post(guest, guest->held);
        guest->held = 0;
        return NULL;
    }
    unsigned slot = queue->seen % GUEST_ENTRIES;
    uint8_t *at = guest->memory + BUFFERS + slot * GUEST_BUFFER;
    uint16_t buffers;
    memcpy(&buffers, at + 10, sizeof buffers);
    size_t bytes = 0, before_end = (GUEST_ENTRIES - slot) * GUEST_BUFFER;
    if (buffers == 0 || buffers > GUEST_ENTRIES) die("a frame in an impossible number of buffers");
    for (unsigned i = 0; i < buffers; i++) {
        if (entries[(slot + i) % GUEST_ENTRIES].head != (slot + i) % GUEST_ENTRIES) die("a buffer out of turn");
        bytes += entries[(slot + i) % GUEST_ENTRIES].bytes;
    }
    if (bytes > before_end) {
        memcpy(guest->whole, at, before_end);
        memcpy(guest->whole + before_end, guest->memory + BUFFERS, bytes - before_end);
        at = guest->whole;
    }
    queue->seen = (uint16_t)(queue->seen + buffers);
    guest->held += buffers;
    *size = bytes - GUEST_HEADER;
    return at + GUEST_HEADER;
}
