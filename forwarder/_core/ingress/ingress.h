/* Ingress: a burst from the VM into memory that no other process can write to, where it is switched.

   Theory of operation. A stream's bytes are records already, a TAP's frames get their length written in front, before
   the virtio_net_hdr that they come with. A guest's queue is read like a TAP, a frame at a time, from the guest's memory
   (vhost_port.h). inbuf.h says where a burst is received.

   A length is checked here, in framing.c or in switch_records, and nowhere later. A bad length on a stream ends the
   link, since no later byte can be trusted to be a length; a bad datagram is dropped and counted.

   Calls. From the engine's thread. */
#ifndef BULKHEAD_INGRESS_H
#define BULKHEAD_INGRESS_H

#include "port/port.h"

bool ingress_poll(struct engine *e);
/* When to read a paced VM again, ns; 0: now. */
uint64_t ingress_resumes(const struct engine *e);

#endif
