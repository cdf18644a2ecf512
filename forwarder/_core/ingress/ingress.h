/* Ingress: a burst from the VM into memory that no other process can write to, where it is switched.

   Theory of operation. A stream and a TAP have one linear buffer of records: a stream's bytes are
   records already, a TAP's frames get their length written in front, before the virtio_net_hdr that they come
   with. The rest at the end of a burst is one partial record; the next burst goes behind it.

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

   A guest's queue is read like a TAP, a frame at a time, from the guest's memory (vhost_port.h).

   A length is checked here, in framing.c or in switch_records, and nowhere later. A bad length on a stream ends the
   link, since no later byte can be trusted to be a length; a bad datagram is dropped and counted.

   Example. The last run went to port 2. The next read brings 3,000 bytes to the front of its ring: a frame of 1,514
   bytes for port 2, one of 100 for port 3, and 1,374 bytes of a third. The first is committed where it lies, the second
   is copied to port 3's ring. The third is moved up to behind the first, and the next read continues it there.

   Calls. From the engine's thread. ingress_open makes the buffers, ingress_close frees them. A ring that goes away is
   announced by ingress_stop_direct_rx, which takes the partial record out of it. */
#ifndef BULKHEAD_INGRESS_H
#define BULKHEAD_INGRESS_H

#include "port/port.h"

int ingress_open(struct engine *e);
void ingress_close(struct engine *e);
bool ingress_poll(struct engine *e);
/* The peer's ring is about to go, or to be written by something other than the poll. */
void ingress_stop_direct_rx(struct engine *e, const struct peer *peer);
/* When to read a paced VM again, ns; 0: now. */
uint64_t ingress_resumes(const struct engine *e);

#endif
