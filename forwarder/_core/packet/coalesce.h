/* Segments of TCP on their way to a TAP, several as one: the inverse of offload.h.

   Theory of operation. What each frame costs the kernel behind a TAP, a system call and a way through its stack, is
   most of the price of a small one. Segments of one connection that lie one behind the other in a ring go as one
   frame of up to 64 KiB, behind a virtio_net_hdr that says how long the parts were: what a network card with LRO or
   the kernel's own GRO would make of them, and what a TAP gets from another TAP anyway. Nothing is copied but headers,
   and a segment that is not there yet is not waited for.

   Two segments are joined if the second says nothing that the first has not said: the same headers, options and
   acknowledgement, the next sequence number, no flags but ACK and PSH, which ends the frame, and no more payload; one
   with less is the last. IPv4 has no options and may not be fragmented, so its identification means nothing (RFC
   6864, section 4.1). Checksums end here, since the kernel takes the whole for one whose sum is still to be made:
   they are computed, and a segment whose sum is wrong goes alone, for the kernel to refuse.

   The frames lie in a ring that its producer may change at any time. Headers are judged and sent as a private copy;
   payload that is changed behind our back is what the producer could have sent in the first place.

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
