/* Label the conversation of a frame, by its addresses, protocol and ports.

   Theory of operation. A label is 16 bits of a hash. It distinguishes flows of one pair of VMs; a collision costs two
   flows a share of their rate, and happens among eight flows once in 2,000 cases. A label lets no frame in or out, so
   it needs no secret: a VM that forges its flows only harms itself.

   Frames of one connection in one direction have the same label, whatever else is in their headers: IP addresses and
   protocol, and the ports of TCP and UDP where each frame has them (the parts of a fragmented packet do not; nor are
   IPv6's extension headers followed). Other traffic is one flow for each EtherType.

   Example. Two TCP connections from 10.0.0.2 to 10.0.0.3:443, from ports 40000 and 40001, are two flows, and so is each
   one's way back. All ARP of a VM is one.

   Calls. A pure function, for any thread. */
#ifndef BULKHEAD_FLOW_H
#define BULKHEAD_FLOW_H

#include "common.h"

/* Of a frame of `bytes`, MIN_FRAME at least. */
uint16_t flow_of(const uint8_t *frame, uint32_t bytes);

#endif
