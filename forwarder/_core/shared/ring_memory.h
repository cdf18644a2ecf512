/* The memory of a ring (ring.h): its layout, and how it is made, mapped and checked.

   Theory of operation. A ring is two memfds. Its producer's has a header of 64 KiB with the published head and 2,048
   descriptions of runs, and then the records; the consumer maps it read-only. The consumer's is one page with the tail.
   Both name the two ports and their epochs, and an end is opened only where they are the ones expected, so a ring of an
   earlier life is refused (ESTALE). Opening the producer's end seals its memory: one ring has one producer for good.

   Example. ring_create(1 MiB, {1 @ 11 -> 2 @ 22}) makes both. Port 1's worker opens the producer's end, port 2's the
   other one. Port 2's worker is killed and comes back under epoch 23: it opens a new ring, since this one says 22.

   Calls. From any thread; each end then belongs to one thread of one process. Descriptors stay the caller's, and an
   open ring needs them no more. ring_tx_close and ring_rx_close free the mappings, also of a struct of zeroes. */
#ifndef BULKHEAD_RING_MEMORY_H
#define BULKHEAD_RING_MEMORY_H

#include <stdatomic.h>

#include "shared/shm.h"

/* One run keeps the consumer on one source, so it bounds how unfair a turn of the scheduler can be. */
#define RUN_BYTES 65536u
#define RUN_LIMIT (RUN_BYTES > MAX_RECORD ? RUN_BYTES : MAX_RECORD)

/* Descriptions, a power of two: as many as the header has room for. Runs are short only where the frames of several
   stations behind one VM alternate; 1 MiB of full-sized ones are 700. */
#define RING_RUNS 2048u

#define CACHE_LINE 64

struct run {
    uint64_t at; /* its first record: bytes since the ring was made */
    uint32_t bytes;
    uint32_t frames;
    uint8_t src[MAC_BYTES];
    uint8_t vnet; /* 1: each frame is behind a virtio_net_hdr */
    uint8_t zero;
};

struct ring_id {
    uint64_t src_epoch;
    uint64_t dst_epoch;
    uint32_t src_port;
    uint32_t dst_port;
};

/* The producer's memory, in front of the records. */
struct ring_shared {
    uint32_t magic;
    uint32_t layout;
    struct ring_id id;
    _Alignas(CACHE_LINE) _Atomic uint64_t head; /* runs published */
    _Alignas(CACHE_LINE) struct run runs[RING_RUNS];
};

/* The consumer's memory. */
struct ring_tail {
    uint32_t magic;
    uint32_t layout;
    struct ring_id id;
    _Alignas(CACHE_LINE) _Atomic uint64_t runs;
    _Atomic uint64_t bytes; /* the end of the last of them */
};

/* The descriptors of both. */
struct ring_fds {
    int ring;
    int tail;
};

/* Producer's private side. */
struct ring_tx {
    struct shm shm;
    struct shm tail_shm;
    struct ring_shared *shared;
    const struct ring_tail *taken;
    uint64_t head;      /* where the next byte goes: the end of the last run */
    uint64_t runs;      /* put so far; published by ring_publish */
    uint64_t shown;     /* runs that the consumer can see */
    uint64_t tail;      /* the consumer's, as last read: bytes */
    uint64_t tail_runs; /* and runs */
    struct run open;    /* the unpublished run that may still grow; bytes == 0: none */
    bool broken;
};

/* Consumer's private side. */
struct ring_rx {
    struct shm shm;
    struct shm tail_shm;
    const struct ring_shared *shared;
    struct ring_tail *taken;
    uint64_t head;      /* the producer's, as last read: runs */
    uint64_t tail_runs; /* the first run that is not wholly consumed */
    uint64_t tail;      /* the end of the last run that is: bytes */
    struct run run;     /* copy of that first run's description once begun */
    uint32_t done;      /* bytes of its records consumed; > 0: the ring is in the middle of a run */
    bool broken;
};

int ring_create(uint32_t size, const struct ring_id *id, struct ring_fds *fds);

/* -1 and errno: not a ring, or not the one expected (ESTALE). A ring has one producer for good: opening it seals it,
   and no process can map it for writing any more (EPERM). */
int ring_tx_open(struct ring_tx *tx, struct ring_fds fds, const struct ring_id *expected);
int ring_rx_open(struct ring_rx *rx, struct ring_fds fds, const struct ring_id *expected);
void ring_tx_close(struct ring_tx *tx);
void ring_rx_close(struct ring_rx *rx);

#endif
