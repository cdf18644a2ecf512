/* Write to the VM without blocking, and decide when to try again.

   Theory of operation. A write that does not take everything blocks the egress: nothing more is written, and nothing is
   read from rings, until

     state            left by                          meanwhile
     open             -                                writes go out
     blocked, FULL    the descriptor becomes writable  nothing is read from rings; senders drop at the tail
     blocked, timer   retry_at passes (50 us, doubling to 10 ms; reset by any byte written)

   A guest's queue that has no buffers is full, and its kick makes it writable (guest_queues.h); one with too few for
   a frame is asked again by the timer.

   FULL becomes the timer if the kernel reports "writable" and then accepts nothing: a socket that polls writable
   while every send fails must not make the worker spin.

   The staging holds frames that are not in a ring any more; they are written before anything else. Bytes enter it
   at its end and leave it at its front; at most one frame in it is cut.

   Example. A datagram VM has no buffer at 0 us: the retry is due at 50 us and fails, then at 150 us, 350 us and so
   on, 10 ms apart in the end. A frame gets through, and the next failure waits 50 us again. */
#ifndef BULKHEAD_EGRESS_WRITE_H
#define BULKHEAD_EGRESS_WRITE_H

#include "port/port.h"

/* Write spans, with no frame longer than `longest`, which is garbled then; returns the bytes taken. Blocks the egress if
   that was not everything. */
uint64_t egress_write(struct engine *e, const struct span *spans, unsigned count, uint32_t longest, bool *garbled,
                      uint64_t now);

/* The same with parts of our own and of others' memory, `total` bytes, for a stream; its frames are not counted yet. */
uint64_t egress_write_parts(struct engine *e, struct iovec *parts, unsigned count, uint64_t total, uint64_t now);

/* Count frames of a stream. Their sources do so, since a write may end inside of a frame; those in the staging count when
   all of it has been written. */
void egress_count_frames(struct engine *e, uint32_t frames);

/* Write the staging, as far as the VM accepts it. */
void egress_flush(struct engine *e, uint64_t now);

/* Bytes of a frame's length in the VM's framing. */
uint32_t egress_prefix_bytes(const struct engine *e);

/* When the next retry is due, ns; UINT64_MAX: no timer runs. */
uint64_t egress_deadline(const struct engine *e);

#endif
