/* The intake of a destination: which offloads it accepts undone in a frame, and how long a frame may be.

   Theory of operation. It is one word of 64 bits in the header of the destination's flood ring, which all others map
   for reading anyway. Only the destination's worker writes it, at any time: a guest with a virtio device may change
   its features while it runs, and an operator may change settings (flood_take). Nothing else is published with it, so
   it needs no memory order.

   The sender reads it once for each run of unfinished frames (flood_intake), and does the work that the destination
   does not accept (switch.c), at the sender's cost:

     the frame's header asks for    the destination takes     the frame
     anything                       all of that               goes with its header, as it is
     a sum                          no TAKES_SUM              is finished
     to be cut                      not that kind             is finished and cut, TAKES_LARGE: TCP only finished
     nothing                        no TAKES_SUM              loses its header

   A destination without TAKES_SUM accepts no headers at all. Floods and frames that wait for a ring are always
   finished and cut.

   `longest` is the length of a frame of one segment. The sender cuts frames to it; a frame that cannot be cut goes to
   the destination's worker, which refuses it.

   A frame may be under way when the destination begins to accept less. So the destination's worker enforces its last
   word, whatever the senders have seen: it refuses and counts frames that need more or are longer (egress_admit.h:
   `refused`). Accepting more needs nothing.

   Example. A guest gives up TSO6 while 12 frames of 60 KiB wait in the ring: its worker writes the word without the
   bit, refuses those of the 12 that are IPv6, and the senders' next runs come cut.

     port                          takes                             longest
     TAP                           all                               MAX_FRAME
     socket                        nothing                           its MTU and the headers, or MAX_FRAME
     socket with receive=large     TAKES_LARGE                       LARGEST_FRAME
     virtqueue                     what its guest has negotiated     as a socket's */
#ifndef BULKHEAD_INTAKE_H
#define BULKHEAD_INTAKE_H

#include "common.h"

#define TAKES_SUM 1u   /* a checksum that is begun, and with it headers */
#define TAKES_TSO4 2u  /* TCP over IPv4 of many segments */
#define TAKES_TSO6 4u  /* over IPv6 */
#define TAKES_ECN 8u   /* those with CWR set in the first one (RFC 3168) */
#define TAKES_USO4 16u /* UDP of many segments over IPv4 */
#define TAKES_USO6 32u /* over IPv6 */
#define TAKES_ALL 63u
#define TAKES_LARGE 64u /* finished frames of many segments of TCP, without a header; datagrams would become one */

/* In front of an IP packet there are an Ethernet header and room for one tag: what Linux's driver of virtio has buffers
   for (GOOD_PACKET_LEN). */
#define LINK_BYTES 18u
/* The smallest MTU there is (RFC 791): no frame is cut into smaller parts for a destination, whatever it says. */
#define LEAST_MTU 68u
/* Of libkrun: its buffer of 65,562 bytes less the 12 of its header. */
#define LARGEST_FRAME 65550u

struct intake {
    uint32_t takes;
    uint32_t longest; /* bytes */
};

/* The intake of an unknown VM. */
#define INTAKE_PLAIN ((struct intake){.takes = 0, .longest = MAX_FRAME})

#endif
