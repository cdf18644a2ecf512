/* Features of a virtio-net driver as offloads: what it takes from us, and what it leaves for us to do.

   The features are those that the driver has accepted, VIRTIO_* as bits. GUEST_* are what the driver takes (its guest
   receives frames with that work undone), HOST_* what it leaves undone in frames that it sends.

   Example. A driver with GUEST_CSUM, GUEST_TSO4 and HOST_TSO4 takes frames without checksums and TCP segments of IPv4 that
   are not cut; it sends such segments, too, and cuts those of IPv6 itself. */
#ifndef BULKHEAD_VHOST_FEATURES_H
#define BULKHEAD_VHOST_FEATURES_H

#include "offload/intake.h"

/* The frames that it takes. */
struct intake vhost_intake(uint64_t features);
/* The offloads that it may leave undone, of TAKES_ALL. */
uint32_t vhost_sends(uint64_t features);

#endif
