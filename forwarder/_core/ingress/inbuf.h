/* Where a burst from the VM is received.

   Theory of operation. A stream, a TAP and a guest's queue have one linear buffer of records. The rest at the end of a
   burst is one partial record; the next burst goes behind it.

   A burst is received where it is expected to stay: at the front of the ring to which the last run went. Frames for
   that peer stay there (ring_commit); others are copied from there, as from any buffer. So a wrong guess costs
   nothing, except that the peer's worker could read the burst; it cannot change it, since only this worker can write
   to that memory. If the ring has no room for a burst, or no ring is expected, the burst goes to own memory, and
   frames that find no room then are dropped.

     the burst goes                   because
     to the front of a peer's ring    the last run went there, and there is room for a burst
     to own memory                    otherwise; a stream always whose frames are no records as they come: with lengths of
                                      16 bits, or with headers to be inferred (infer.h). It is switched from a second
                                      buffer (framing.h)
     to slots, one a datagram         how long they are is known only afterwards

   Example. The last run went to port 2. The next read brings 3,000 bytes to the front of its ring: a frame of 1,514
   bytes for port 2, one of 100 for port 3, and 1,374 bytes of a third. The first is committed where it lies, the second
   is copied to port 3's ring. The third is moved up to behind the first, and the next read continues it there.

   Calls. From the engine's thread. inbuf_open makes the buffers, inbuf_close frees them. A ring that goes away is
   announced by inbuf_leave_ring, which takes the partial record out of it. */
#ifndef BULKHEAD_INBUF_H
#define BULKHEAD_INBUF_H

#include "port/port.h"

int inbuf_open(struct engine *e);
void inbuf_close(struct engine *e);
/* Choose the place of the next burst, and move the rest of the last one there. */
void inbuf_choose(struct engine *e);
/* The same, in own memory. */
void inbuf_choose_own(struct inbuf *in);
/* The first `used` of the `bytes` in the burst have been switched: the rest is to be the front of the next one. */
void inbuf_keep_rest(struct inbuf *in, uint32_t used, uint32_t bytes);
/* The peer's ring is about to go, or to be written by something other than the poll. */
void inbuf_leave_ring(struct engine *e, const struct peer *peer);

#endif
