/* Capture ring: copies of one port's frames, from its worker to one reader.

   Theory of operation. A single-producer single-consumer byte ring in one memfd. The worker looks whether a frame has
   room before it copies it; a frame without room is counted as lost, which costs no copy. So a reader that is slow, or
   stopped, makes its capture cheap instead of dear, and captured and lost frames together are all there were.

     end      writes                    when
     worker   records, lost, head       records first, then lost and head (release), once a turn
     reader   tail                      after it has copied records out (release)

   Cursors count bytes since the ring was made and never wrap (2^64). The worker reads the tail only when its last view
   of it leaves no room. A ring that was full is written again when a fourth of it is free, and room for the frame: else
   the worker would copy single frames, one for each that the reader takes, and both would wait for the same cache
   lines.

   Distrust. The reader is an operator's own process, and writes to no more than the tail; the worker checks the tail
   against its own cursors and reads nothing else of the ring. The worker may be a guest's: the reader checks the head
   and each record, and marks the ring broken at the first contradiction.

   Example. 8 MiB hold 5,400 frames of 1,514 bytes. The reader takes 50,000 frames a second of 1,000,000: the ring is full
   after 6 ms, and from then on the worker copies 1,350 frames of 27,000, and counts the others.

   Calls. Each end from the one thread that opened it. Descriptors stay the caller's; the close functions free the
   mappings, also of a struct of zeroes. */
#ifndef BULKHEAD_CAPTURE_RING_H
#define BULKHEAD_CAPTURE_RING_H

#include <stdatomic.h>

#include "shared/ring_memory.h"

/* In front of the kept bytes of a frame. */
struct capture_head {
    uint64_t time_ns; /* CLOCK_MONOTONIC, at the start of the turn */
    uint32_t length;  /* of the frame */
    uint32_t kept;    /* bytes of it that follow */
    uint16_t peer;    /* port that a dropped frame was for; 0: none, or not known */
    uint8_t way;
    uint8_t reason;   /* of a drop: the counter's index in struct counters, or CAPTURE_EGRESS_FULL */
    uint32_t zero;
};

struct capture_shared {
    uint32_t magic;
    uint32_t layout;
    uint64_t epoch;
    uint32_t port;
    _Alignas(CACHE_LINE) _Atomic uint64_t head;
    _Atomic uint64_t lost;
    _Alignas(CACHE_LINE) _Atomic uint64_t tail;
};

struct capture_tx {
    struct shm shm;
    struct capture_shared *shared;
    uint64_t head, tail, lost;
    uint64_t shown_head, shown_lost;
    bool full; /* until a fourth is free */
    bool broken;
};

struct capture_rx {
    struct shm shm;
    struct capture_shared *shared;
    uint64_t at; /* of the next record; the tail follows with capture_take */
    bool broken;
};

/* -1 and errno (EINVAL: too small for a frame). */
int capture_ring_create(uint32_t size, uint32_t port, uint64_t epoch);

/* -1 and errno (ESTALE: another port's). */
int capture_tx_open(struct capture_tx *tx, int fd, uint32_t port, uint64_t epoch);
int capture_rx_open(struct capture_rx *rx, int fd, uint32_t port, uint64_t epoch);
void capture_tx_close(struct capture_tx *tx);
void capture_rx_close(struct capture_rx *rx);

/* Copy `head->kept` bytes of a frame, or count it as lost. */
void capture_put(struct capture_tx *tx, const struct capture_head *head, const uint8_t *frame);

/* Show the reader what was put or lost so far. */
void capture_publish(struct capture_tx *tx);

/* The next record's kept bytes, which stay there until capture_take; NULL: there is none. `head` is a private copy. */
const uint8_t *capture_next(struct capture_rx *rx, struct capture_head *head);

/* Give the worker back what capture_next has returned. */
void capture_take(struct capture_rx *rx);

/* Frames that had no room until now. */
static inline uint64_t capture_lost(const struct capture_rx *rx)
{
    return rx->shared == NULL ? 0 : atomic_load_explicit(&rx->shared->lost, memory_order_acquire);
}

#endif
