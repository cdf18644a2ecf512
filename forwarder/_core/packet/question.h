/* The IP address for which a frame asks its neighbours, or that it says its sender has, and in which VLAN. ARP (RFC 826)
   and neighbour discovery (RFC 4861), with up to MOST_TAGS VLAN tags. A gratuitous request asks for its sender's own
   address; an answer asks for none.

   Pure functions of one frame, which may be of any length from an Ethernet header on.

     02:..:07 to all, 0806, request for 10.0.0.9, sender 10.0.0.7    asks for ::ffff:10.0.0.9, as ::ffff:10.0.0.7
     02:..:09 to 02:..:07, 0806, answer, sender 10.0.0.9             asks for nothing, as ::ffff:10.0.0.9 */
#ifndef BULKHEAD_QUESTION_H
#define BULKHEAD_QUESTION_H

#include "packet/claim.h"

#define QUESTION_ICMPV6 58u

struct question {
    uint8_t sender[ADDRESS_BYTES]; /* IPv6, or IPv4 as ::ffff:a.b.c.d; all zero: not said */
    uint8_t target[ADDRESS_BYTES]; /* all zero: it is an answer */
    uint16_t vlan; /* of the outer tag; 0: no tag, or one that only gives a priority (IEEE 802.1Q) */
};

/* Whether a frame is about neighbours: ARP or neighbour discovery. False for a tagged one. */
static inline bool question_possible(const uint8_t *frame, uint32_t bytes)
{
    const uint8_t *ip = frame + ETHERTYPE_AT + 2;
    uint32_t type = load_be16(frame + ETHERTYPE_AT);
    if (type != ETHERTYPE_IPV6)
        return type == ETHERTYPE_ARP;
    return bytes > ETHERTYPE_AT + 2 + IPV6_BYTES && ip[IPV6_NEXT] == QUESTION_ICMPV6
           && ip[IPV6_BYTES] >= ND_FIRST && ip[IPV6_BYTES] <= ND_REDIRECT;
}

/* Whether the frame is a question or an answer; `question` is written only then. */
bool question_read(struct question *question, const uint8_t *frame, uint32_t bytes);

#endif
