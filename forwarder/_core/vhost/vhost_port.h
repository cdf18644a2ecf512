/* A virtio-net device for a guest's driver, with both queues in the guest's memory.

   Theory of operation. Queue 0 is for frames to the guest, queue 1 for frames from it (Virtual I/O Device 1.2, section
   5.1.2). Here frames go between these queues and records (frame.h), each behind the first VNET_BYTES of its
   virtio_net_hdr. In a queue the header is two bytes longer where the driver has VERSION_1 or mergeable buffers; these
   say how many buffers a frame lies in.

     from the guest    one chain is one frame; a senseless chain costs that frame
     to the guest      mergeable: as many chains as it takes; else one, and a frame that is too long for it is refused

   A frame that finds too few buffers waits (VM_FULL; a kick tells of more). If the guest has posted too few buffers
   for a frame, and for SHORT_NS no others, the frame is refused; otherwise it would block all others for a driver
   that posts no more. A guest whose queue is not started is a network card without a driver: frames for it are
   refused, not kept.

   Returned chains are shown once for a burst (vhost_from_done) or a write, and the driver is called at most once for
   each queue and turn (vhost_call). */
#ifndef BULKHEAD_VHOST_PORT_H
#define BULKHEAD_VHOST_PORT_H

#include "offload/intake.h"
#include "system/vm.h"
#include "vhost/virtqueue.h"

enum { QUEUE_TO_GUEST, QUEUE_FROM_GUEST, QUEUES };

/* Ten times what a busy machine keeps a guest from its driver for. */
#define SHORT_NS 100000000u

struct vhost_port {
    struct guest_memory memory;
    struct virtqueue queue[QUEUES];
    uint32_t header_bytes; /* in the queues */
    bool mergeable;
    uint64_t short_since;  /* ns; 0: the last frame found its buffers */
    struct segments segments;
};

/* `moved`: where the queues store their positions; `memory_gone` is set when the guest takes its memory away, and the
   process ends. NULL and errno. */
struct vhost_port *vhost_open(_Atomic uint32_t moved[QUEUES], _Atomic uint32_t *memory_gone);
void vhost_close(struct vhost_port *port);

/* Set the features that the driver has accepted: VIRTIO_* as bits. */
void vhost_set_features(struct vhost_port *port, uint64_t features);

/* Regions have changed. */
void vhost_memory_changed(struct vhost_port *port);

/* The contradiction of the guest, as a text; NULL if there is none. */
const char *vhost_fault(const struct vhost_port *port);

/* The next frame from the guest, behind its header of VNET_BYTES, at `to`. Returns the bytes of both, `size` at the
   most; 0: the chain was none (its frame is lost), UINT32_MAX: it is longer; -1: there is none. */
int64_t vhost_read(struct vhost_port *port, uint8_t *to, uint32_t size);

/* All frames read are in memory of ours now: their chains are the driver's again. */
void vhost_from_done(struct vhost_port *port);

/* Like vm_write, for frames that the driver accepts; others are refused. VM_FULL, VM_NO_BUFFER: not all went. */
enum vm_status vhost_write(struct vhost_port *port, const struct intake *intake, const struct span *spans,
                           unsigned count, struct vm_sent *sent, uint64_t now);

/* Call the driver where it has asked for it; returns the calls. */
unsigned vhost_call(struct vhost_port *port);

#endif
