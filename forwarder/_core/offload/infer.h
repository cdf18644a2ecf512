/* Infer the missing virtio_net_hdr of a frame: the unfinished work that its VM's kernel had described there.

   Theory of operation. A VM with offloads hands its frames to a virtio device behind a virtio_net_hdr (offload.h). Some
   devices cut that header off and send the bare frame through a socket (libkrun does, and so do krunkit and podman's
   machines): TCP of up to 64 KiB, with a partial checksum. The header's contents can be inferred from the frame:

     is a sum to be finished?   The field of TCP or UDP holds the folded sum of the pseudo header, as the kernel leaves
                                it: a finished one is the complement of a sum of everything.
     from where, to where?      From the transport header to the end, into the field.
     is it to be cut?           A TCP packet longer than its VM's MTU is: no kernel could have sent it otherwise.
     into which parts?          Such that each has the length of the MTU. The connection may have agreed upon less, if
                                its other end has a smaller MTU.

   Example, MTU 1500: an IPv4 packet of 2,948 bytes with 12 bytes of TCP options, 2,896 of payload, its field the sum of
   its addresses, 6 and 2,928. It becomes {NEEDS_CSUM, GSO TCPV4, headers 66, segment 1448, from 34, offset 16}.

   A finished sum looks like a begun one by chance, once in 65,536 frames. That is harmless: let P be the sum of the
   pseudo header, S that of all else but the field. The field is P and finished, so P + S + P = 0xffff; finished again,
   it is the complement of S + P, which is P. So a finished sum passes unchanged. Bytes behind the packet's end, by
   its IP header, must be zeros, which add nothing to a sum; otherwise nothing is inferred.

   0 and 0xffff are one number in this arithmetic, and a NAT in the VM may leave either; but for UDP over IPv4, 0
   means that there is no sum (RFC 768), and the frame is left alone.

   Not detected: unfinished sums inside a tunnel, SCTP, fragments, and packets with a source route (their destination
   is not that of the IP header). These pass as they are, and their receivers find a wrong sum. */
#ifndef BULKHEAD_INFER_H
#define BULKHEAD_INFER_H

#include "common.h"

enum inferred {
    SUM_NONE,     /* not a complete TCP or UDP packet, or one without a sum: unknown */
    SUM_FINISHED,
    SUM_BEGUN
};

/* Write the header of the frame, of at least MIN_FRAME, to `vnet` (VNET_BYTES): all zeros if nothing is unfinished.
   `mtu`: of its VM, the longest IP packet that was not meant to be cut. */
enum inferred infer(uint8_t *vnet, const uint8_t *frame, uint32_t bytes, uint32_t mtu);

#endif
