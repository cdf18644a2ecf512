/* struct virtio_net_hdr, the short one (Virtual I/O Device 1.2, section 5.1.6): VNET_BYTES in front of a frame, which say
   what its sender has left to be done. All fields are little-endian.

     byte   0       flags: VNET_NEEDS_SUM
            1       how the frame is to be cut: VNET_GSO_*
            2..3    bytes of headers
            4..5    payload of a segment
            6..7    where the checksum begins
            8..9    where it is stored, from there on

   The same on every system, so it does not come from a header of Linux. */
#ifndef BULKHEAD_VNET_H
#define BULKHEAD_VNET_H

#define VNET_NEEDS_SUM 1u

#define VNET_GSO_NONE 0u
#define VNET_GSO_TCPV4 1u
#define VNET_GSO_TCPV6 4u
#define VNET_GSO_UDP 5u
#define VNET_GSO_ECN 0x80u

#endif
