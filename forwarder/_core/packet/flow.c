#include "packet/flow.h"

#include <netinet/in.h>

#include "packet/packet.h"

#define PORTS_BYTES 4u

/* Steele and Vigna, "Computationally easy, spectrally good multipliers" (2021): one of 64 bits. */
#define MULTIPLIER 0xd1342543de82ef95ull

/* `bytes` is a multiple of 4. */
static uint64_t mixed(uint64_t hash, const uint8_t *p, uint32_t bytes)
{
    uint32_t word;
    for (; bytes > 0; bytes -= (uint32_t)sizeof word, p += sizeof word) {
        memcpy(&word, p, sizeof word);
        hash = (hash ^ word) * MULTIPLIER;
        hash ^= hash >> 32;
    }
    return hash;
}

static bool has_ports(uint32_t protocol)
{
    return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static uint64_t hash_ipv4(const uint8_t *ip, uint32_t bytes)
{
    uint32_t header = ipv4_header_bytes(ip);
    uint64_t hash = mixed(ip[IPV4_PROTOCOL], ip + IPV4_ADDRESSES, 8);
    bool whole = (load_be16(ip + IPV4_FRAGMENT) & IPV4_PART_OF_MORE) == 0;
    return has_ports(ip[IPV4_PROTOCOL]) && whole && header + PORTS_BYTES <= bytes
               ? mixed(hash, ip + header, PORTS_BYTES)
               : hash;
}

static uint64_t hash_ipv6(const uint8_t *ip, uint32_t bytes)
{
    uint64_t hash = mixed(ip[IPV6_NEXT], ip + IPV6_ADDRESSES, 32);
    return has_ports(ip[IPV6_NEXT]) && IPV6_BYTES + PORTS_BYTES <= bytes ? mixed(hash, ip + IPV6_BYTES, PORTS_BYTES)
                                                                         : hash;
}

uint16_t flow_of(const uint8_t *frame, uint32_t bytes)
{
    uint32_t type = 0, at = network_of(frame, bytes, &type);
    uint64_t hash = mixed(0, (const uint8_t *)&type, sizeof type);
    if (type == ETHERTYPE_IPV4 && at + IPV4_LEAST <= bytes)
        hash = hash_ipv4(frame + at, bytes - at);
    else if (type == ETHERTYPE_IPV6 && at + IPV6_BYTES <= bytes)
        hash = hash_ipv6(frame + at, bytes - at);
    return (uint16_t)(hash >> 48);
}
