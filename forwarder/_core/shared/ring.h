/* Unicast ring: single-producer single-consumer byte ring between two workers, in shared memory.

   Theory of operation. The ring carries runs. A run is records in the QEMU wire format, one behind the other: all
   from one source address, at most RUN_BYTES of them. So the cost per frame becomes a cost per run: the consumer
   learns an address, counts frames and charges its scheduler once a run, and hands the records to the kernel in
   place. A description (struct run), apart from the records, says where a run lies and what it holds; bytes between
   two runs belong to none.

   This serves records that are received in place. A producer may receive its VM's bytes at the front of the ring
   (ring_front), inspect them there, and commit the records for this consumer as runs (ring_commit). It copies the
   rest elsewhere, or leaves it for the next burst to overwrite.

   There are two pieces of memory, each written by one process only. The producer's has the records and their
   descriptions. It is read-only for the consumer: the producer inspects its VM's frames there, so no neighbour may
   change them. The consumer's has the tail.

     end        writes                    when
     producer   records, runs, head       a run first, then head (release), once per burst
     consumer   tail: bytes and runs      after the kernel has taken a whole run (release, each)

   Cursors count runs, or bytes, since the ring was made and never wrap (2^64). The free space is size - (head - tail)
   in bytes. A frame that finds too little space, or no place for another description, is dropped here, at the tail,
   as a whole, and counted by the caller; the producer never waits.

   The tail moves at ends of runs only: until then the producer may not overwrite the run.

   Distrust. The other end is another process that a guest may have taken over. Each side reads the
   other's cursor once per use, checks it against what it knows itself (never backwards, never more than
   the ring holds), copies a description before it believes it, and marks the ring broken at the first
   contradiction: a broken ring carries nothing any more. Nothing read from shared memory is ever used as
   an address or a length unchecked.

   Between two TAPs the records of a run have virtio_net_hdrs in front of their frames (offload.h). All of a run's
   have one or none has: its description says which.

   Example. The head is at run 7, byte 10,000. A burst of three frames of 1,514 bytes (4,554 with their lengths) is put
   as run 7: `at` 10,000, `bytes` 4,554, `frames` 3; head becomes 8 with ring_publish. The consumer views run 7, writes the
   first datagram of it, and its VM is full: `done` is 1,518, the tail stays at 7. Later the other two are taken, and the
   tail becomes 8 and 14,554, from where on the producer may write again.

   Calls. Each end from the one thread that opened it (ring_memory.h). ring_depth and ring_has_news change
   nothing. What ring_view returns points into the ring and is good until ring_consume. */
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

/* Do records lie in the ring's memory? Then `at` becomes their cursor, as ring_commit takes it. */
bool ring_holds(const struct ring_tx *tx, const uint8_t *records, uint64_t *at);

/* Append records like ring_put, but in place: `at` is where the first begins, at or behind the end of the last run,
   within the free space. All fit, or none. */
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

/* Published bytes that are not yet consumed. Changes nothing: the consumer's view stays that of its last refresh. */
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

/* Frames published and not consumed: closing the ring loses them. */
uint64_t ring_unread_frames(struct ring_rx *rx);

/* Consumer: abandon a ring whose unread frames have been counted here. The producer, which may go on for a moment,
   counts only later frames. */
void ring_abandon(struct ring_rx *rx);

/* Producer: frames published and never taken, because the consumer died or abandoned the ring: closing it loses them.
   A dead consumer may have taken up to MAX_SPANS runs more than its tail shows, so this may be too many, never too
   few. 0 if the consumer's cursor cannot be true. */
uint64_t ring_untaken_frames(const struct ring_tx *tx);

#endif
