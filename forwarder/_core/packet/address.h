/* IP addresses, and where ARP (RFC 826) and neighbour discovery (RFC 4861) have them.

   An address is 16 bytes: IPv6, or IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2). All zero: none is said. */
#ifndef BULKHEAD_ADDRESS_H
#define BULKHEAD_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ADDRESS_BYTES 16u

#define ETHERTYPE_ARP 0x0806u
#define ARP_BYTES 28u
#define ARP_SENDER_MAC 8u
#define ARP_SENDER 14u
#define ARP_SENDER_END 18u

#define ND_FIRST 133u
#define ND_SOLICIT 135u
#define ND_ADVERTISE 136u
#define ND_REDIRECT 137u /* the last */
#define ND_TARGET 8u

/* Is ARP about addresses of IPv4? By their lengths alone: receivers accept more than one type of network (Linux also 6, of
   IEEE 802), and some another protocol (0x1000, of trailers). */
static inline bool arp_is_of_ipv4(const uint8_t *arp)
{
    return arp[4] == 6 && arp[5] == 4;
}

/* Write an IPv4 address; false, and none is written, if it is 0.0.0.0. */
static inline bool address_from_ipv4(uint8_t *address, const uint8_t *ipv4)
{
    static const uint8_t unset[4], prefix[ADDRESS_BYTES] = {[10] = 0xff, [11] = 0xff};
    memset(address, 0, ADDRESS_BYTES);
    if (memcmp(ipv4, unset, sizeof unset) == 0)
        return false;
    memcpy(address, prefix, ADDRESS_BYTES);
    memcpy(address + ADDRESS_BYTES - 4, ipv4, 4);
    return true;
}

#endif
