/* Words of virtio that are used here (Virtual I/O Device 1.2: sections 2.2, 2.7, 5.1). The same on every system, so they
   do not come from headers of Linux. */
#ifndef BULKHEAD_VIRTIO_H
#define BULKHEAD_VIRTIO_H

#include <stdint.h>

/* Features, as bits. */
#define VIRTIO_NET_GUEST_CSUM 1
#define VIRTIO_NET_GUEST_TSO4 7
#define VIRTIO_NET_GUEST_TSO6 8
#define VIRTIO_NET_GUEST_ECN 9
#define VIRTIO_NET_HOST_TSO4 11
#define VIRTIO_NET_HOST_TSO6 12
#define VIRTIO_NET_HOST_ECN 13
#define VIRTIO_NET_MRG_RXBUF 15
#define VIRTIO_RING_EVENT_IDX 29
#define VIRTIO_VERSION_1 32
#define VIRTIO_NET_GUEST_USO4 54
#define VIRTIO_NET_GUEST_USO6 55
#define VIRTIO_NET_HOST_USO 56

/* An entry of a descriptor table, little-endian. */
struct descriptor {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags;
    uint16_t next;
};

#define DESCRIPTOR_NEXT 1u     /* the chain goes on at `next` */
#define DESCRIPTOR_WRITE 2u    /* for the device to write */
#define DESCRIPTOR_INDIRECT 4u /* of a table of descriptors */

#define AVAILABLE_NO_INTERRUPT 1u /* flags of the available ring: the driver wants no call */
#define USED_NO_NOTIFY 1u         /* flags of the used ring: the device wants no kick */

/* Did an index move past `event` on its way from `from` to `to` (section 2.7.7.2)? */
static inline int passes_event(uint16_t event, uint16_t from, uint16_t to)
{
    return (uint16_t)(to - event - 1) < (uint16_t)(to - from);
}

#endif
