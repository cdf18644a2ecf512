/* Find the headers of a packet behind the Ethernet header. Pure functions, for any thread. */
#ifndef BULKHEAD_PACKET_H
#define BULKHEAD_PACKET_H

#include "common.h"

#define ETHERTYPE_AT 12u
#define ETHERTYPE_IPV4 0x0800u
#define ETHERTYPE_IPV6 0x86ddu
#define TAG_BYTES 4u
#define MOST_TAGS 2u

#define IPV4_LEAST 20u
#define IPV4_TOTAL 2u
#define IPV4_ID 4u
#define IPV4_FRAGMENT 6u
#define IPV4_PART_OF_MORE 0x3fffu /* more fragments, or behind the first one */
#define IPV4_OFFSET 0x1fffu /* of a fragment, in units of 8 bytes */
#define IPV4_PROTOCOL 9u
#define IPV4_SUM 10u
#define IPV4_ADDRESSES 12u
#define IPV6_BYTES 40u
#define IPV6_LENGTH 4u
#define IPV6_NEXT 6u
#define IPV6_ADDRESSES 8u

#define TCP_LEAST 20u
#define TCP_SEQUENCE 4u
#define TCP_OFFSET 12u
#define TCP_FLAGS 13u
#define TCP_SUM 16u
#define TCP_FIN 0x01u
#define TCP_SYN 0x02u
#define TCP_PSH 0x08u
#define TCP_ACK 0x10u
#define TCP_CWR 0x80u
#define UDP_BYTES 8u
#define UDP_LENGTH 4u
#define UDP_SUM 6u
#define ICMP_SUM 2u /* also of ICMPv6 */

/* Where the network header begins and its type; 0: behind more tags than a frame has. */
static inline uint32_t network_of(const uint8_t *frame, uint32_t bytes, uint32_t *type)
{
    uint32_t at = ETHERTYPE_AT;
    for (uint32_t tags = 0; tags <= MOST_TAGS && at + 2 <= bytes; tags++, at += TAG_BYTES) {
        *type = load_be16(frame + at);
        if (*type != 0x8100u && *type != 0x88a8u)
            return at + 2;
    }
    return 0;
}

static inline uint32_t ipv4_header_bytes(const uint8_t *ip)
{
    return (ip[0] & 15u) * 4u;
}

static inline uint32_t tcp_header_bytes(const uint8_t *tcp)
{
    return (tcp[TCP_OFFSET] >> 4) * 4u;
}

/* A complete packet: IPv4, or IPv6 with the extension headers that a whole packet may have (RFC 8200, section 4.1). */
struct packet {
    bool is_ipv4;
    uint32_t protocol;  /* of the transport */
    uint32_t ip;        /* where its header begins in the frame */
    uint32_t transport; /* where its payload begins, up to the end of the frame */
    uint32_t end;       /* where the packet ends, as its header says: in front of `transport` or behind the frame,
                           if the header lies */
};

/* Parse a frame up to its transport; false if it holds no such packet, or only a part. */
bool packet_open(struct packet *packet, const uint8_t *frame, uint32_t bytes);

#endif
