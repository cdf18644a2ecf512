#include "vhost/virtqueue.h"

#include "vhost/virtio.h"

#define DESCRIPTOR_BYTES 16u

_Static_assert(sizeof(struct descriptor) == DESCRIPTOR_BYTES, "read as one");
_Static_assert(sizeof(struct queue_used) == 8, "head and bytes");

/* Words of the available and the used ring, 16 bits each. */
enum { AT_FLAGS, AT_INDEX, AT_ENTRIES };

static uint16_t load16(const uint16_t *at)
{
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

static void store16(uint16_t *at, uint16_t value)
{
    __atomic_store_n(at, value, __ATOMIC_RELAXED);
}

static uint32_t entries(const struct virtqueue *queue)
{
    return queue->place.entries;
}

/* The event index behind the entries of one ring concerns the other ring. */
static uint16_t *used_event(const struct virtqueue *queue)
{
    return queue->available + AT_ENTRIES + entries(queue);
}

static uint16_t *avail_event(const struct virtqueue *queue)
{
    return queue->used + AT_ENTRIES + entries(queue) * (sizeof(struct queue_used) / sizeof(uint16_t));
}

static bool is_aligned(const void *at, uintptr_t to)
{
    return ((uintptr_t)at & (to - 1)) == 0;
}

void virtqueue_resolve(struct virtqueue *queue, const struct guest_memory *memory)
{
    const struct queue_place *place = &queue->place;
    uint64_t words = 3; /* flags, index, event index */
    uint8_t *descriptors = memory_at_front_end(memory, place->descriptors, (uint64_t)place->entries * DESCRIPTOR_BYTES);
    uint8_t *available = memory_at_front_end(memory, place->available, 2 * (words + place->entries));
    uint8_t *used =
        memory_at_front_end(memory, place->used, 2 * words + place->entries * sizeof(struct queue_used));
    bool found = descriptors != NULL && available != NULL && used != NULL && is_aligned(available, 2)
                 && is_aligned(used, 4);
    queue->descriptors = found ? descriptors : NULL;
    queue->available = found ? (uint16_t *)(void *)available : NULL;
    queue->used = found ? (uint16_t *)(void *)used : NULL;
}

/* Where the last worker stopped, by its stored pair and the guest's memory. */
static uint16_t resumed_at(const struct virtqueue *queue)
{
    uint32_t pair = atomic_load_explicit(queue->moved, memory_order_acquire);
    uint16_t from = (uint16_t)pair, to = (uint16_t)(pair >> 16), says = load16(queue->used + AT_INDEX);
    return says == to ? to : from;
}

bool virtqueue_start(struct virtqueue *queue, const struct guest_memory *memory, const struct queue_place *place,
                     uint16_t index, bool resumed)
{
    queue->place = *place;
    virtqueue_resolve(queue, memory);
    if (queue->descriptors == NULL)
        return false;
    if (resumed)
        index = resumed_at(queue);
    else
        atomic_store_explicit(queue->moved, index | (uint32_t)index << 16, memory_order_release);
    queue->broken = false;
    queue->gathered = 0;
    queue->seen = queue->taken = queue->returned = queue->shown = queue->called = index;
    queue->call_due = resumed; /* one may have been lost with the last worker */
    virtqueue_suppress(queue);
    return true;
}

uint16_t virtqueue_stop(struct virtqueue *queue)
{
    queue->place = (struct queue_place){0};
    queue->descriptors = NULL;
    queue->available = queue->used = NULL;
    return queue->shown;
}

uint16_t virtqueue_waiting(struct virtqueue *queue)
{
    if (!virtqueue_runs(queue))
        return 0;
    if (queue->seen == queue->taken)
        queue->seen = __atomic_load_n(queue->available + AT_INDEX, __ATOMIC_ACQUIRE);
    uint16_t waiting = (uint16_t)(queue->seen - queue->taken);
    if (UNLIKELY(waiting > entries(queue))) {
        queue->broken = true;
        return 0;
    }
    return waiting;
}

bool virtqueue_has_burst(struct virtqueue *queue)
{
    uint16_t before = queue->gathered;
    queue->seen = queue->taken; /* so that the driver's index is read again */
    uint16_t waiting = virtqueue_waiting(queue);
    bool is_burst = waiting >= BURST_CHAINS || (waiting > 0 && waiting == before);
    queue->gathered = is_burst ? 0 : waiting;
    return is_burst;
}

/* The compiler must not look again at what the guest may have changed. */
static struct descriptor copy_of(const uint8_t *table, uint32_t index)
{
    struct descriptor descriptor;
    memcpy(&descriptor, table + (size_t)index * DESCRIPTOR_BYTES, sizeof descriptor);
    __asm__ volatile("" ::: "memory");
    return descriptor;
}

/* Add the memory of a buffer, which two regions may share. */
static bool add_buffer(struct segments *segments, struct guest_memory *memory, uint64_t address, uint32_t bytes)
{
    if (UNLIKELY(bytes > UINT32_MAX - segments->bytes))
        return false;
    segments->bytes += bytes;
    while (bytes > 0) {
        uint32_t here = bytes;
        uint8_t *at = memory_at_guest(memory, address, &here);
        if (UNLIKELY(at == NULL || segments->count == MOST_SEGMENTS))
            return false;
        segments->piece[segments->count++] = (struct segment){.at = at, .bytes = here};
        address += here;
        bytes -= here;
    }
    return true;
}

static bool follow(struct virtqueue *queue, struct guest_memory *memory, bool writable, uint16_t head,
                   struct segments *segments)
{
    const uint8_t *table = queue->descriptors;
    uint32_t size = entries(queue), index = head, steps = 0;
    const uint16_t direction = writable ? DESCRIPTOR_WRITE : 0;
    bool indirect = false; /* a table may lie in the queue's own */
    for (;;) {
        if (UNLIKELY(index >= size || ++steps > size))
            return false;
        struct descriptor descriptor = copy_of(table, index);
        if (descriptor.flags & DESCRIPTOR_INDIRECT) {
            uint32_t bytes = descriptor.bytes;
            if (indirect || (descriptor.flags & DESCRIPTOR_NEXT) || bytes == 0
                || bytes % DESCRIPTOR_BYTES != 0 || bytes > MOST_SEGMENTS * DESCRIPTOR_BYTES)
                return false;
            table = memory_at_guest(memory, descriptor.address, &bytes);
            if (table == NULL || bytes != descriptor.bytes)
                return false;
            size = bytes / DESCRIPTOR_BYTES;
            index = steps = 0;
            indirect = true;
            continue;
        }
        if (UNLIKELY((descriptor.flags & DESCRIPTOR_WRITE) != direction
                     || !add_buffer(segments, memory, descriptor.address, descriptor.bytes)))
            return false;
        if (!(descriptor.flags & DESCRIPTOR_NEXT))
            return true;
        index = descriptor.next;
    }
}

enum chain virtqueue_take(struct virtqueue *queue, struct guest_memory *memory, bool writable, uint16_t *head,
                          struct segments *segments)
{
    if (virtqueue_waiting(queue) == 0)
        return CHAIN_NONE;
    uint32_t mask = entries(queue) - 1;
    *head = load16(queue->available + AT_ENTRIES + (queue->taken & mask));
    if (UNLIKELY(*head >= entries(queue))) {
        queue->broken = true;
        return CHAIN_NONE;
    }
    queue->taken++;
    return LIKELY(follow(queue, memory, writable, *head, segments)) ? CHAIN_GOOD : CHAIN_BAD;
}

void virtqueue_return(struct virtqueue *queue, uint16_t head, uint32_t bytes)
{
    struct queue_used *used = (struct queue_used *)(void *)(queue->used + AT_ENTRIES);
    used[queue->returned & (entries(queue) - 1)] = (struct queue_used){.head = head, .bytes = bytes};
    queue->returned++;
}

void virtqueue_show(struct virtqueue *queue)
{
    if (queue->returned == queue->shown || queue->used == NULL)
        return;
    atomic_store_explicit(queue->moved, queue->shown | (uint32_t)queue->returned << 16, memory_order_release);
    __atomic_store_n(queue->used + AT_INDEX, queue->returned, __ATOMIC_RELEASE);
    queue->shown = queue->returned;
}

bool virtqueue_call(struct virtqueue *queue)
{
    uint16_t from = queue->called, to = queue->shown;
    if ((from == to && !queue->call_due) || queue->available == NULL)
        return false;
    queue->called = to;
    if (UNLIKELY(queue->call_due)) {
        queue->call_due = false;
        return true;
    }
    atomic_thread_fence(memory_order_seq_cst); /* the index is out before the driver's wish is read */
    if (queue->event_idx)
        return passes_event(load16(used_event(queue)), from, to) != 0;
    return (load16(queue->available + AT_FLAGS) & AVAILABLE_NO_INTERRUPT) == 0;
}

bool virtqueue_arm(struct virtqueue *queue)
{
    if (!virtqueue_runs(queue))
        return false;
    if (queue->event_idx)
        store16(avail_event(queue), queue->taken);
    else
        store16(queue->used + AT_FLAGS, 0);
    atomic_thread_fence(memory_order_seq_cst); /* the wish is out before the index is read */
    return virtqueue_waiting(queue) > 0;
}

void virtqueue_suppress(struct virtqueue *queue)
{
    if (queue->used != NULL && !queue->event_idx)
        store16(queue->used + AT_FLAGS, USED_NO_NOTIFY);
}
