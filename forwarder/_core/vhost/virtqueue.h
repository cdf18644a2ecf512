/* One split virtqueue in a guest's memory (Virtual I/O Device 1.2, section 2.7; legacy devices have the same layout on
   little-endian machines).

   Theory of operation. The driver puts heads of descriptor chains into the available ring and moves its index; the
   device takes them in order, uses the buffers and puts the heads into the used ring. The driver is a guest, which may
   write to all of this at any time:

     what                    is read          and then
     the available index     once a look      its distance from ours is at most the size, or the queue is broken
     a head                  once             it is below the size, or the queue is broken (it could not be returned)
     a descriptor            once, whole      only the copy is used; a fault in it spoils one chain
     flags, event indices    once             they decide about a kick or a call, nothing else

   A chain is a list of segments of mapped memory (guest_memory.h). Their contents may change during the copy, so the
   copy is checked.

   All taken chains are returned in order before the turn ends, so one index is enough for another worker to go on.
   The index is in the guest's memory, where the guest can write. So the worker also stores the last move of the
   index, from and to: virtqueue_show stores the pair first, then the index. The next worker uses the guest's index if
   it is one of the two, else the older one.

     example   size 256, index 10, three chains taken: the pair (10, 13), then used->idx = 13.
               Killed in between: used->idx is 10, and the three chains are used once more. Nothing was shown of them.

   Kicks and calls. While a worker is awake it needs no kicks. Before it sleeps, virtqueue_arm asks for one and checks
   again. virtqueue_call says whether the driver asked for a call for the chains shown since the last call.

   Bursts. A driver adds its frames one at a time. A worker that takes each frame as it comes pays a turn for it, and the
   cache lines of the rings pass between two cores for each frame. So a worker that is awake waits while the number of
   frames grows from one look to the next, up to BURST_CHAINS. A look takes some 300 ns, and a single frame waits that
   long. A worker that is about to sleep takes everything that is there.

     example   looks find 5, 19, 31, 31 chains: the fourth look takes 31. Looks find 1, 1: the second look takes it. */
#ifndef BULKHEAD_VIRTQUEUE_H
#define BULKHEAD_VIRTQUEUE_H

#include "vhost/guest_memory.h"

#define MOST_ENTRIES 32768u

/* A third of what a driver of 256 entries can have under way, so that it fills the next one meanwhile. */
#define BURST_CHAINS 64u

/* Pieces of memory of one frame: Linux has 18 at the most, QEMU's own devices allow more. */
#define MOST_SEGMENTS 128u

struct segment {
    uint8_t *at;
    uint32_t bytes;
};

struct segments {
    struct segment piece[MOST_SEGMENTS];
    uint32_t count;
    uint32_t bytes;
};

/* Where the driver has put the three parts, as addresses of the front-end. */
struct queue_place {
    uint32_t entries; /* a power of two, MOST_ENTRIES at the most; 0: the queue is stopped */
    uint64_t descriptors;
    uint64_t available;
    uint64_t used;
};

struct queue_used {
    uint32_t head;
    uint32_t bytes;
};

struct virtqueue {
    struct queue_place place;
    const uint8_t *descriptors; /* NULL: stopped, or not in the guest's memory any more */
    uint16_t *available;        /* flags, index, heads, used_event */
    uint16_t *used;             /* flags, index, entries, avail_event */
    _Atomic uint32_t *moved;    /* the pair: from where, and to where << 16 */
    uint16_t seen;              /* the driver's index, as last read */
    uint16_t taken;             /* ours: the next chain */
    uint16_t returned;          /* the next used entry */
    uint16_t shown;             /* used->idx as the driver sees it */
    uint16_t called;            /* as it was at the last call */
    uint16_t gathered;          /* chains seen at the last look, if they were left to become more */
    bool call_due;              /* call, whatever the driver asks for */
    bool event_idx;
    bool enabled;
    bool broken;                /* the driver has contradicted itself */
    int kick, call;             /* -1: none */
};

/* Begin at `index`, or where the last worker stopped if `resumed`. False: it is not in the guest's memory. */
bool virtqueue_start(struct virtqueue *queue, const struct guest_memory *memory, const struct queue_place *place,
                     uint16_t index, bool resumed);

/* Look the parts up again, since regions have changed. Without one of them the queue rests until it is there again. */
void virtqueue_resolve(struct virtqueue *queue, const struct guest_memory *memory);

/* Stop; returns the index of the next chain. */
uint16_t virtqueue_stop(struct virtqueue *queue);

static inline bool virtqueue_runs(const struct virtqueue *queue)
{
    return queue->descriptors != NULL && queue->enabled && !queue->broken;
}

/* How many chains wait. 0 where the queue is stopped or broken. */
uint16_t virtqueue_waiting(struct virtqueue *queue);

/* Look again at how many wait: are they a burst, or at least no more than at the last look? */
bool virtqueue_has_burst(struct virtqueue *queue);

enum chain { CHAIN_NONE, CHAIN_GOOD, CHAIN_BAD };

/* Take the next chain, of buffers for the device to read, or to write. Its segments are added to those there are.
   CHAIN_BAD: it was taken and makes no sense; return its head. */
enum chain virtqueue_take(struct virtqueue *queue, struct guest_memory *memory, bool writable, uint16_t *head,
                          struct segments *segments);

/* Put back the chains taken last. */
static inline void virtqueue_untake(struct virtqueue *queue, uint16_t count)
{
    queue->taken = (uint16_t)(queue->taken - count);
}

/* Return a chain with `bytes` written to it. */
void virtqueue_return(struct virtqueue *queue, uint16_t head, uint32_t bytes);

/* Let the driver see what was returned. */
void virtqueue_show(struct virtqueue *queue);

/* After that: is the driver to be called? */
bool virtqueue_call(struct virtqueue *queue);

/* Ask for a kick for new chains; true if there are some already. */
bool virtqueue_arm(struct virtqueue *queue);

/* Ask for none. */
void virtqueue_suppress(struct virtqueue *queue);

#endif
