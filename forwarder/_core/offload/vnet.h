/* struct virtio_net_hdr, the short one (Virtual I/O Device 1.2, section 5.1.6): VNET_BYTES in front of a frame, which
   say what its sender has left to be done. All fields are little-endian.

     byte   0       flags: VNET_NEEDS_SUM
            1       how the frame is to be cut: VNET_GSO_*
            2..3    bytes of headers: a hint
            4..5    payload of a segment
            6..7    where the checksum begins
            8..9    where it is stored, from there on

   The same on every system, so it does not come from a header of Linux. */
#ifndef BULKHEAD_VNET_H
#define BULKHEAD_VNET_H

#include "common.h"

#define VNET_NEEDS_SUM 1u

#define VNET_GSO_NONE 0u
#define VNET_GSO_TCPV4 1u
#define VNET_GSO_TCPV6 4u
#define VNET_GSO_UDP 5u
#define VNET_GSO_ECN 0x80u

struct vnet {
    uint32_t flags;
    uint32_t type;
    uint32_t headers;
    uint32_t segment;
    uint32_t sum_from;
    uint32_t sum_offset;
};

static inline struct vnet vnet_load(const uint8_t *at)
{
    return (struct vnet){.flags = at[0],
                         .type = at[1],
                         .headers = load_le16(at + 2),
                         .segment = load_le16(at + 4),
                         .sum_from = load_le16(at + 6),
                         .sum_offset = load_le16(at + 8)};
}

static inline void vnet_store(uint8_t *at, const struct vnet *vnet)
{
    at[0] = (uint8_t)vnet->flags;
    at[1] = (uint8_t)vnet->type;
    store_le16(at + 2, vnet->headers);
    store_le16(at + 4, vnet->segment);
    store_le16(at + 6, vnet->sum_from);
    store_le16(at + 8, vnet->sum_offset);
}

#endif
