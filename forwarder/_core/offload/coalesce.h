/* Join TCP segments on their way to a TAP into one frame: the inverse of offload.h.

   Theory of operation. For small frames, most of the cost at a TAP is per frame: a system call and a way through the
   kernel's stack. So adjacent segments of one connection in a ring go as one frame of up to 64 KiB. A virtio_net_hdr
   in front gives the length of the parts, as from a network card with LRO, or the kernel's own GRO, or another TAP.
   Only headers are copied, and the worker does not wait for further segments.

   Two segments are joined if the second only continues the first: the same headers, options and acknowledgement, the
   next sequence number, no flags but ACK and PSH (which ends the frame), and no more payload than the first. A
   segment with less payload is the last. IPv4 has no options and may not be fragmented, so its identification means
   nothing (RFC 6864, section 4.1). The joined frame has no finished checksum, so the parts' checksums are verified
   here. A segment with a wrong one goes alone, for the kernel to refuse.

   The frames lie in a ring that its producer may change at any time. Headers are checked and sent as a private copy;
   the producer could have sent a changed payload in the first place.

   Example. 45 segments of 1,448 bytes of one connection and an ACK of another lie in a ring. The 45 go as one frame of
   65,226 bytes with one system call instead of 45, and the ACK goes alone.

   Calls. A pure function of its arguments, for any thread. `whole` and the frames must stay until it is written. */
#ifndef BULKHEAD_COALESCE_H
#define BULKHEAD_COALESCE_H

#include <sys/uio.h>

#include "common.h"

/* Ethernet, IPv6 and TCP with all its options. */
#define COALESCE_HEADERS 114u
#define COALESCE_MOST 64u

struct coalesced {
    uint8_t head[VNET_BYTES + COALESCE_HEADERS];
    struct iovec parts[1 + COALESCE_MOST];
};

/* How many of `count` plain frames, from the first on, can go as one: 1 or, with `whole` made, more. */
unsigned coalesce(struct coalesced *whole, const struct iovec *frames, unsigned count);

#endif
