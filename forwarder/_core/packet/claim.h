/* Read a frame's claims that only some ports may make: to be a router, to give leases, to have an address.

   Theory of operation. Pure functions of one frame. `claim_possible` looks at two or three bytes of every frame whose
   type may claim anything; it excludes TCP and nearly all of UDP. `claim_read` reads the others:

     PAUSE                   IEEE 802.3 annex 31B: for the other end of a cable; a switch must not forward it
     router advertisement    also a redirect: only routers send them (RFC 4861; of IPv4: RFC 1256, RFC 792)
     DHCP answer             UDP to port 68 or 546: clients look at the destination only
     ARP                     its sender has that address, in a request, a reply or unasked (RFC 826, RFC 5227), of any
                             type of network, and also if its end is missing, which a network card fills with zeros
     neighbour discovery     the target of an advertisement, the source of everything else (RFC 4861)

   A receiver may parse more than a guard does, which must not be a way round it. So up to MOST_TAGS VLAN tags, an
   LLC/SNAP header and IPv6 extension headers are skipped (CVE-2021-27853, -27854, -27861, -27862). A frame with more
   of them or of neighbour discovery's options, a first fragment without the whole chain of headers (RFC 7113), and
   fragmented neighbour discovery (RFC 6980) are *hidden*, and treated as the worst case. Later fragments are harmless
   without the first.

     02:..:07 to all, 8100 0001, 86dd, hop-by-hop, fragment 0, ICMPv6 134    CLAIM_HIDDEN
     02:..:07 to all, 0806, request for .9, sender 192.168.127.1            CLAIM_ADDRESS of ::ffff:192.168.127.1 */
#ifndef BULKHEAD_CLAIM_H
#define BULKHEAD_CLAIM_H

#include "packet/address.h"
#include "packet/packet.h"

#define ETHERTYPE_MAC_CONTROL 0x8808u
#define LONGEST_LLC 1535u /* up to here a type is a length: to IEEE 802.3 up to 1,500, to Linux below 1,536 */

enum claim_kind { CLAIM_NOTHING, CLAIM_PAUSE, CLAIM_ROUTER, CLAIM_SERVER, CLAIM_ADDRESS, CLAIM_HIDDEN };

struct claim {
    enum claim_kind kind;
    uint32_t count; /* CLAIM_ADDRESS: how many */
    uint8_t address[2][ADDRESS_BYTES]; /* IPv6, or IPv4 as ::ffff:a.b.c.d */
    const uint8_t *mac; /* the link address that goes with them, in the frame; NULL: none */
};

#define CLAIM_PROTOCOL_ICMP 1u
#define CLAIM_PROTOCOL_TCP 6u
#define CLAIM_PROTOCOL_UDP 17u
#define CLAIM_DHCP_CLIENT 68u
#define CLAIM_DHCP6_CLIENT 546u

/* Whether only a router sends ICMP of this type: redirect, router advertisement. */
static inline bool claim_is_of_router(uint32_t icmp_type)
{
    return icmp_type == 5 || icmp_type == 9;
}

/* Whether a frame of this EtherType may claim anything. It is asked once for a run of frames of one type. */
static inline bool claim_possible_for(uint32_t type)
{
    return type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6 || type == ETHERTYPE_ARP || type == ETHERTYPE_MAC_CONTROL
           || type <= LONGEST_LLC || type == 0x8100u || type == 0x88a8u || type == 0x9100u || type == 0x9200u;
}

/* Whether a frame has to be read. False for the ordinary one. */
static inline bool claim_possible(const uint8_t *frame, uint32_t bytes)
{
    uint32_t type = load_be16(frame + ETHERTYPE_AT);
    const uint8_t *ip = frame + ETHERTYPE_AT + 2;
    if (LIKELY(type == ETHERTYPE_IPV4)) {
        if (bytes < ETHERTYPE_AT + 2 + IPV4_LEAST)
            return false;
        if (ip[IPV4_PROTOCOL] != CLAIM_PROTOCOL_UDP)
            return ip[IPV4_PROTOCOL] == CLAIM_PROTOCOL_ICMP
                   && (ip[0] != 0x45 || (bytes > ETHERTYPE_AT + 2 + IPV4_LEAST && claim_is_of_router(ip[IPV4_LEAST])));
        return ip[0] != 0x45 || bytes < ETHERTYPE_AT + 2 + IPV4_LEAST + UDP_BYTES
               || load_be16(ip + IPV4_LEAST + 2) == CLAIM_DHCP_CLIENT;
    }
    if (LIKELY(type == ETHERTYPE_IPV6)) {
        if (bytes < ETHERTYPE_AT + 2 + IPV6_BYTES + UDP_BYTES || ip[IPV6_NEXT] != CLAIM_PROTOCOL_UDP)
            return bytes < ETHERTYPE_AT + 2 + IPV6_BYTES || ip[IPV6_NEXT] != CLAIM_PROTOCOL_TCP;
        return load_be16(ip + IPV6_BYTES + 2) == CLAIM_DHCP6_CLIENT;
    }
    return claim_possible_for(type);
}

/* Whether more of a packet is read behind an IPv6 header of this type. */
bool claim_reads_behind(uint32_t next);

void claim_read(struct claim *claim, const uint8_t *frame, uint32_t bytes);

#endif
