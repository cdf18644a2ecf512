/* Flood ring: frames of one port for all others, written once, read by each other worker with its own cursor.

   Theory of operation. Its worker is the only writer; every other worker maps it read-only. The writer
   never looks at a reader: it overwrites the oldest records when it comes round. A reader therefore
   copies a record out and asks afterwards whether the writer had begun to overwrite it meanwhile:

     writer: reserve = head + n (relaxed), release fence, write n bytes, head += n (release)
     reader: read head (acquire), copy, acquire fence, read reserve; the copy is good only if
             reserve - cursor <= size

   A reader that was lapped skips to the writer's head. Every deliverable record is numbered, so the gap
   in the numbers is exactly what the reader lost. The pair (head, number) is kept consistent by a
   version that is odd while the pair changes.

   A record is a frame to deliver, or a reply (no frame: "this address is behind me"). A reply answers a flooded frame
   to an unknown address. Without it, frames to a station that only listens would be flooded for ever, since only its
   partner sees its frames.

   The header also holds two words that all may read and only the owner may write: the owner's sleep word
   (doorbell.h), and the offloads that its VM accepts (intake.h).

   No reader's mapping can be taken away. If a port may not hear the writer any more, the writer moves to another ring,
   which only the others get. It copies the two words, and says in the old ring that this one is over. A reader of a ring
   that is over reads it to its end, always rings its owner, and asks for the other ring, which it reads from its start.
   So a move loses nothing.

   Example. The ring has 512 KiB and 340 frames of 1,514 bytes fit into it. A reader is stuck at frame 100 while the
   writer puts frame 600. The reader's next look finds itself lapped: it goes to the head, frame 601, and counts 500
   lost.

   Calls. flood_put and flood_publish from the one thread that opened the ring for writing; each flood_rx belongs to one
   thread. Descriptors stay the caller's; the close functions free the mappings, also of a struct of zeroes. */
#ifndef BULKHEAD_FLOOD_H
#define BULKHEAD_FLOOD_H

#include <stdatomic.h>

#include "offload/intake.h"
#include "shared/doorbell.h"
#include "shared/ring.h"

enum flood_kind {
    FLOOD_GROUP = 1,   /* broadcast or multicast */
    FLOOD_UNKNOWN = 2, /* unicast to an address that the writer has not learned */
    FLOOD_REPLY = 3 /* 12 bytes: destination and source address only; not delivered, not numbered */
};

struct flood_record {
    uint32_t bytes; /* of the frame */
    uint32_t number;
    uint32_t kind;
    uint32_t zero;
};

struct flood_shared {
    uint32_t magic;
    uint32_t layout;
    uint64_t epoch;
    uint32_t port;
    _Atomic uint64_t intake; /* `takes` in the lower half, `longest` in the upper one */
    _Alignas(CACHE_LINE) _Atomic uint64_t reserve;
    _Atomic uint64_t head;
    _Atomic uint32_t version;
    _Atomic uint32_t number; /* deliverable records before head */
    _Alignas(CACHE_LINE) struct sleep_word sleep;
    _Atomic uint32_t over; /* 1: the writer has another ring */
};

struct flood_tx {
    struct shm shm;
    struct flood_shared *shared;
    uint64_t head;  /* published by flood_publish */
    uint64_t shown;
    uint32_t number;
};

struct flood_rx {
    struct shm shm;
    const struct flood_shared *shared;
    uint64_t cursor;
    uint32_t number; /* of the next deliverable record */
    bool recount;    /* skipped without knowing how far: the next record's number tells */
    bool broken;
};

int flood_create(uint32_t size, uint32_t port, uint64_t epoch);

/* Map for writing and seal: no other process can write from now on. -1 and errno (ESTALE: another port's). */
int flood_tx_open(struct flood_tx *tx, int fd, uint32_t port, uint64_t epoch);

/* Write to another ring of the same port and epoch from now on; everything put so far is published in the old one. -1
   and errno: the old ring stays. */
int flood_tx_move(struct flood_tx *tx, int fd);

/* `from_start`: read everything since the port came, else only new records. */
int flood_rx_open(struct flood_rx *rx, int fd, uint32_t port, uint64_t epoch, bool from_start);
/* Go back to `cursor`, where an earlier reader of this ring stopped; rx is at the writer's present position. If what lies
   there was overwritten, rx stays. False if it stays and is not there already. */
bool flood_go_back(struct flood_rx *rx, uint64_t cursor);
void flood_tx_close(struct flood_tx *tx);
void flood_rx_close(struct flood_rx *rx);

/* Publish what the VM accepts from now on. Earlier frames may still be under way: see intake.h. */
static inline void flood_take(struct flood_tx *tx, struct intake intake)
{
    uint64_t word = (uint64_t)intake.longest << 32 | intake.takes;
    atomic_store_explicit(&tx->shared->intake, word, memory_order_relaxed);
}

/* What the other end's VM accepts now; only plain frames if that is not known. */
static inline struct intake flood_intake(const struct flood_rx *rx)
{
    if (rx->shared == NULL)
        return INTAKE_PLAIN;
    uint64_t word = atomic_load_explicit(&rx->shared->intake, memory_order_relaxed);
    return (struct intake){.takes = (uint32_t)word, .longest = (uint32_t)(word >> 32)};
}

static inline bool flood_has_news(const struct flood_rx *rx)
{
    return rx->shared != NULL && !rx->broken
           && atomic_load_explicit(&rx->shared->head, memory_order_relaxed) != rx->cursor;
}

/* Has the writer another ring, and was this one read to its end? */
static inline bool flood_is_over(const struct flood_rx *rx)
{
    return rx->shared != NULL && atomic_load_explicit(&rx->shared->over, memory_order_acquire) != 0
           && !flood_has_news(rx);
}

void flood_put(struct flood_tx *tx, const uint8_t *frame, uint32_t bytes, enum flood_kind kind);

/* Whether readers need a ring for the new records. A reply needs no doorbell: a port that still floods to that
   address reads it before its VM's next frame. */
bool flood_publish(struct flood_tx *tx);

enum flood_status { FLOOD_EMPTY, FLOOD_FRAME, FLOOD_NO_ROOM };

/* Copy the next record's frame to `out` (which holds `room` bytes). Records that do not fit stay. Records lost by a
   lap are added to *lost, also if nothing else is returned. */
enum flood_status flood_next(struct flood_rx *rx, uint8_t *out, uint32_t room, struct flood_record *record,
                             uint64_t *lost);

#endif
