/* The IP address for which a frame asks its neighbours, and in which VLAN. ARP requests (RFC 826) and neighbour
   solicitations (RFC 4861), with up to MOST_TAGS VLAN tags; a gratuitous one asks for its sender's own address.

   Pure functions of one frame, which may be of any length from an Ethernet header on.

     02:..:07 to all, 0806, request for 10.0.0.9, sender 10.0.0.7    asks for ::ffff:10.0.0.9, as ::ffff:10.0.0.7 */
#ifndef BULKHEAD_QUESTION_H
#define BULKHEAD_QUESTION_H

#include "packet/claim.h"

struct question {
    uint8_t sender[ADDRESS_BYTES]; /* IPv6, or IPv4 as ::ffff:a.b.c.d; all zero: not said */
    uint8_t target[ADDRESS_BYTES];
    uint16_t vlan; /* of the outer tag; 0: no tag, or one that only gives a priority (IEEE 802.1Q) */
};

/* Whether the frame is a question; `question` is written only then. */
bool question_read(struct question *question, const uint8_t *frame, uint32_t bytes);

#endif
