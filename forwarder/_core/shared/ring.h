/* Unicast ring: single-producer single-consumer byte ring between two workers, in shared memory.

   Theory of operation. The ring carries runs. A run is records in the QEMU wire format, one behind the other: all
   from one source address, at most RUN_BYTES of them. What costs time per frame is thus paid per run: the consumer
   learns an address, counts frames and charges its scheduler once a run, and hands the records to the kernel as they
   lie there. Where a run lies and what it is says its description (struct run), apart from the records; so whatever
   lies between two runs belongs to none.

   That is for records that come in at the place where they are to be. A producer may have its VM's bytes written to
   the front of the ring (ring_front), look at them there, and keep as runs what is for this consumer (ring_commit); the
   rest it copies to where it belongs, or leaves for the next burst to write over.

   There are two pieces of memory, each written by one process only. The producer's has the records and their
   descriptions, and for the consumer it is read-only: what a VM has sent is judged there, so no neighbour may change
   it. The consumer's has the tail.

     end        writes                    when
     producer   records, runs, head       a run first, then head (release), once per burst
     consumer   tail: bytes and runs      after the kernel has taken a whole run (release, each)

   Cursors count runs, or bytes, since the ring was made and never wrap (2^64). The free space is size - (head - tail)
   in bytes. Where there is not enough for a frame, or no place for another description, it is dropped here, at the
   tail, whole, and counted by the caller; the producer never waits.

   The tail moves at ends of runs only: until then the producer may not overwrite the run, so that a
   consumer that is cut off in the middle of one can still find its frame boundaries.

   Distrust. The other end is another process that a guest may have taken over. Each side reads the
   other's cursor once per use, checks it against what it knows itself (never backwards, never more than
   the ring holds), copies a description before it believes it, and marks the ring broken at the first
   contradiction: a broken ring carries nothing any more. Nothing read from shared memory is ever used as
   an address or a length unchecked.

   Between two TAPs the records of a run have virtio_net_hdrs in front of their frames (offload.h). All of a run's
   have one or none has: its description says which.

   Example. The head is at run 7, byte 10,000. A burst of three frames of 1,514 bytes (4,554 with their lengths) is put
   as run 7: `at` 10,000, `bytes` 4,554, `frames` 3; head becomes 8 with ring_publish. The consumer views run 7, writes
   2,000 bytes of it, and its VM is full: `done` is 2,000, the tail stays at 7. Later the other 2,554 are taken, and the
   tail becomes 8 and 14,554, from where on the producer may write again.

   Calls. Each end from the one thread that opened it (ring_memory.h). ring_depth, ring_has_news and ring_cut_frame
   change nothing. What ring_view returns points into the ring and is good until ring_consume. */
#ifndef BULKHEAD_RING_H
#define BULKHEAD_RING_H

#include "shared/ring_memory.h"

/* Append whole records from one source address, all with a virtio_net_hdr or all without; returns how many of the
   frames fitted, from the first on. */
uint32_t ring_put(struct ring_tx *tx, const uint8_t *records, uint32_t bytes, uint32_t frames, const uint8_t *src,
                  bool vnet);

/* Are there `bytes` free behind the last run? */
bool ring_has_room(struct ring_tx *tx, uint64_t bytes);

/* Where they are. ring_put writes there, too. */
uint8_t *ring_front(const struct ring_tx *tx);

/* Append records as ring_put does, that are already where they shall stay: `at` is where the first begins, at or
   behind the end of the last run, within the room there was. All fit, or none. */
uint32_t ring_commit(struct ring_tx *tx, uint64_t at, uint32_t bytes, uint32_t frames, const uint8_t *src, bool vnet);

/* Show the consumer everything put so far. True if there was something new. */
bool ring_publish(struct ring_tx *tx);

/* Consumer: see what the producer has published; true if there is anything to consume. */
bool ring_refresh(struct ring_rx *rx);

/* Consumer: is there anything to consume? Reads one cache line, changes nothing. */
static inline bool ring_has_news(const struct ring_rx *rx)
{
    return !rx->broken && atomic_load_explicit(&rx->shared->head, memory_order_relaxed) != rx->tail_runs;
}

/* Bytes up to the end of the last run published that are not yet consumed. Only looks: what the consumer takes next
   stays what it was when it refreshed. */
uint64_t ring_depth(const struct ring_rx *rx);

/* One run as the consumer sees it: a private copy of its description, and the records not yet consumed. */
struct run_view {
    struct run run;
    const uint8_t *records;
    uint32_t bytes;
};

/* View up to `max` runs, in order, stopping before the sum of bytes would pass `allowance` (the first run
   is viewed whatever its size). Returns the number of views. */
unsigned ring_view(struct ring_rx *rx, struct run_view *views, unsigned max, uint64_t allowance);

/* Consume `bytes` of record bytes from the runs viewed; returns the frames in the runs that this finished. */
uint32_t ring_consume(struct ring_rx *rx, const struct run_view *views, unsigned count, uint64_t bytes);

/* The rest of the frame that consumption has stopped inside of (0 bytes: it stopped at a boundary), and how many
   frames of the run were begun. False if the producer has tampered with the run since, so that the boundary
   cannot be known. */
bool ring_cut_frame(const struct ring_rx *rx, const uint8_t **rest, uint32_t *bytes, uint32_t *begun);

/* Frames published and not consumed (a cut frame counts as consumed): what closing the ring loses. */
uint64_t ring_unread_frames(struct ring_rx *rx);

/* Consumer: let go of a ring whose unread frames have been counted here. The producer, which may go on for a
   moment, counts only what it puts after that. */
void ring_abandon(struct ring_rx *rx);

/* Producer: frames published and never taken, because the consumer died or let go: what closing the ring loses.
   A consumer that died took up to MAX_SPANS runs more than it could say, so this may be too many, never too
   few. 0 if the consumer's cursor cannot be true. */
uint64_t ring_untaken_frames(const struct ring_tx *tx);

#endif
