/* TAP devices: the kernel's own network stack as a VM (Documentation/networking/tuntap.rst). Linux only.

   Theory of operation. A TAP is a network card whose wire is a descriptor: what the kernel sends can be read, and what
   is written arrives there. With IFF_VNET_HDR it is a card with offloads (offload.h). We ask for the largest set
   first and then for smaller ones, since a kernel refuses a set with an unknown offload.

   A device of another network namespace is opened by entering the namespace for the time of the call, in this thread
   only.

   Calls. From any thread. The caller closes the descriptor. Errors: -1 and errno; if the return from the namespace
   fails, the call fails with that errno and the thread must not go on. */
#ifndef BULKHEAD_TAP_H
#define BULKHEAD_TAP_H

#include <net/if.h>
#include <stdint.h>

/* Open TAP `name` in network namespace `netns` (-1: this one), non-blocking, and set it up, with MAC address `mac` from
   its first frame on (NULL: the one it has, or a random one). Each frame is behind a
   virtio_net_hdr of VNET_BYTES, little-endian, without packet information, and the offloads that this allows are on.
   The kernel's name for the device goes to `actual`. Returns the descriptor, or -1 and errno. */
int tap_open(const char *name, int netns, const uint8_t *mac, char actual[IFNAMSIZ]);

#endif
