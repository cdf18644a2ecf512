#include "packet/packet.h"

#include <netinet/in.h>

#define MOST_EXTENSIONS 8u

static bool open_ipv4(struct packet *packet, const uint8_t *frame, uint32_t bytes)
{
    const uint8_t *ip = frame + packet->ip;
    if (packet->ip + IPV4_LEAST > bytes || ip[0] >> 4 != 4 || ipv4_header_bytes(ip) < IPV4_LEAST
        || (load_be16(ip + IPV4_FRAGMENT) & IPV4_PART_OF_MORE) != 0)
        return false;
    packet->protocol = ip[IPV4_PROTOCOL];
    packet->transport = packet->ip + ipv4_header_bytes(ip);
    packet->end = packet->ip + load_be16(ip + IPV4_TOTAL);
    return packet->transport <= bytes;
}

static bool is_extension(uint32_t protocol)
{
    return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS;
}

static bool open_ipv6(struct packet *packet, const uint8_t *frame, uint32_t bytes)
{
    const uint8_t *ip = frame + packet->ip;
    uint32_t at = packet->ip + IPV6_BYTES;
    if (at > bytes || ip[0] >> 4 != 6)
        return false;
    uint32_t next = ip[IPV6_NEXT];
    for (uint32_t i = 0; is_extension(next) && i < MOST_EXTENSIONS && at + 2 <= bytes; i++) {
        next = frame[at];
        at += (frame[at + 1] + 1u) * 8u;
    }
    packet->protocol = next;
    packet->transport = at;
    packet->end = packet->ip + IPV6_BYTES + load_be16(ip + IPV6_LENGTH);
    return at <= bytes && !is_extension(next);
}

bool packet_open(struct packet *packet, const uint8_t *frame, uint32_t bytes)
{
    uint32_t type = 0;
    packet->ip = network_of(frame, bytes, &type);
    packet->is_ipv4 = type == ETHERTYPE_IPV4;
    if (packet->ip == 0)
        return false;
    if (packet->is_ipv4)
        return open_ipv4(packet, frame, bytes);
    return type == ETHERTYPE_IPV6 && open_ipv6(packet, frame, bytes);
}
