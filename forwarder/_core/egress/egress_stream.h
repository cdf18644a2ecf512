/* Write records from a peer's memory to a stream of QEMU's.

   Theory of operation. Records in a ring are what such a VM reads, lengths included, but the peer can write over them at any
   moment. So each length is read once into our own memory, checked there, and written from there. There are two ways:

     copy     short frames: records are copied into the staging, and the copy is written
     gather   long frames, which cost less so: they are written where they lie, each behind a length of ours

   What the VM did not take goes back: only frames that are begun count as taken, and the rest of a cut frame stays in the
   staging. So frames that wait for a full VM lie in the ring, and outlive this worker.

   Example. A run of 40 frames of 1,514 bytes is copied, 60,720 bytes with lengths. The VM's socket takes 20,000 bytes: 14
   frames are taken, 1,252 bytes of the fourteenth wait in the staging, and 26 frames are still in the ring. */
#ifndef BULKHEAD_EGRESS_STREAM_H
#define BULKHEAD_EGRESS_STREAM_H

#include "port/port.h"

/* Write the viewed runs' records, which are the spans; the staging is empty. `taken` becomes the bytes of the frames that
   are begun. False, and nothing is written, if the first record makes no sense or is longer than the VM takes. */
bool egress_write_stream(struct engine *e, const struct run_view *views, const struct span *spans, unsigned count,
                         uint64_t *taken, uint64_t now);

#endif
