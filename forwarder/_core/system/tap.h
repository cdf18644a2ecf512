/* TAP devices: the kernel's own network stack as a VM (Documentation/networking/tuntap.rst). Linux only. */
#ifndef BULKHEAD_TAP_H
#define BULKHEAD_TAP_H

#include <net/if.h>

/* Open TAP `name`, without packet information and with a virtio_net_hdr of VNET_BYTES, little-endian, in front of
   each frame; the offloads that this allows are on, as many as the kernel knows. Non-blocking, in network namespace `netns` (-1: this one), and
   set it up. The kernel's name for it goes to `actual`. -1 and errno. */
int tap_open(const char *name, int netns, char actual[IFNAMSIZ]);

#endif
