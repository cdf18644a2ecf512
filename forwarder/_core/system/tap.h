/* TAP devices: the kernel's own network stack as a VM (Documentation/networking/tuntap.rst). Linux only.

   Theory of operation. A TAP is a network card whose wire is a descriptor: what the kernel sends can be read, and what
   is written arrives there. With IFF_VNET_HDR it is a card that does offloads (offload.h); which ones is asked from the
   most that a kernel has down to none, since it refuses a set of which it does not know one.

   A device of another network namespace is opened by going there for the time of the call, in this thread only.

   Calls. From any thread. The descriptor is the caller's. Errors: -1 and errno; where the way home from the namespace
   fails, the thread must not go on, and the call fails with its errno. */
#ifndef BULKHEAD_TAP_H
#define BULKHEAD_TAP_H

#include <net/if.h>

/* Open TAP `name` in network namespace `netns` (-1: this one), non-blocking, and set it up. Each frame is behind a
   virtio_net_hdr of VNET_BYTES, little-endian, without packet information, and the offloads that this allows are on.
   The kernel's name for the device goes to `actual`. Returns the descriptor, or -1 and errno. */
int tap_open(const char *name, int netns, char actual[IFNAMSIZ]);

#endif
