#include "packet/claim.h"

#include <netinet/in.h>

#define SNAP_BYTES 8u
#define MOST_HEADERS 16u
#define MOST_OPTIONS 16u
#define FRAGMENT_BYTES 8u
#define IPV6_OFFSET 0xfff8u /* the same, in bytes */

#define ND_ADVERTISE_ROUTER 134u
#define ND_TARGET_END (ND_TARGET + ADDRESS_BYTES)
#define ND_ROUTER_END 8u
#define OPTION_SOURCE_MAC 1u
#define OPTION_TARGET_MAC 2u
#define OPTION_UNIT 8u

struct reader {
    const uint8_t *frame;
    uint32_t bytes;
    struct claim *claim;
};

static bool is_tag(uint32_t type)
{
    return type == 0x8100u || type == 0x88a8u || type == 0x9100u || type == 0x9200u;
}

/* RFC 1042, and RFC 1390 for the other one: Ethernet's types behind an LLC header. */
static bool is_snap(const uint8_t *llc)
{
    static const uint8_t plain[] = {0xaa, 0xaa, 0x03, 0, 0, 0}, bridge[] = {0xaa, 0xaa, 0x03, 0, 0, 0xf8};
    return memcmp(llc, plain, sizeof plain) == 0 || memcmp(llc, bridge, sizeof bridge) == 0;
}

/* Where the payload begins and its type; 0: of no known kind, or hidden (noted). */
static uint32_t payload_of(const struct reader *r, uint32_t *type)
{
    uint32_t at = ETHERTYPE_AT, tags = 0;
    bool snap = false;
    while (at + 2 <= r->bytes) {
        *type = load_be16(r->frame + at);
        if (is_tag(*type)) {
            at += TAG_BYTES;
            if (++tags > MOST_TAGS) {
                r->claim->kind = CLAIM_HIDDEN;
                return 0;
            }
        } else if (*type <= LONGEST_LLC) {
            if (snap || at + 2 + SNAP_BYTES > r->bytes || !is_snap(r->frame + at + 2))
                return 0;
            snap = true;
            at += SNAP_BYTES;
        } else {
            return at + 2;
        }
    }
    return 0;
}

static bool is_zero(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static void claims(struct claim *claim, const uint8_t *address)
{
    if (is_zero(address, ADDRESS_BYTES))
        return;
    claim->kind = CLAIM_ADDRESS;
    memcpy(claim->address[claim->count++], address, ADDRESS_BYTES);
}

static void read_arp(const struct reader *r, uint32_t at)
{
    const uint8_t *arp = r->frame + at;
    uint8_t address[ADDRESS_BYTES];
    if (at + ARP_SENDER_END > r->bytes || !arp_is_of_ipv4(arp) /* what it lacks a network card may pad */
        || !address_from_ipv4(address, arp + ARP_SENDER))
        return;
    claims(r->claim, address);
    r->claim->mac = arp + ARP_SENDER_MAC;
}

/* `at`: where UDP begins, in a packet that is whole or a first fragment. */
static void read_udp(const struct reader *r, uint32_t at, uint32_t client)
{
    if (at + 4 > r->bytes)
        r->claim->kind = CLAIM_HIDDEN;
    else if (load_be16(r->frame + at + 2) == client)
        r->claim->kind = CLAIM_SERVER;
}

static void read_ipv4(const struct reader *r, uint32_t at)
{
    const uint8_t *ip = r->frame + at;
    if (at + IPV4_LEAST > r->bytes || ip[0] >> 4 != 4 || ipv4_header_bytes(ip) < IPV4_LEAST
        || (load_be16(ip + IPV4_FRAGMENT) & IPV4_OFFSET) != 0)
        return;
    at += ipv4_header_bytes(ip);
    if (ip[IPV4_PROTOCOL] == IPPROTO_UDP)
        read_udp(r, at, CLAIM_DHCP_CLIENT);
    else if (ip[IPV4_PROTOCOL] == IPPROTO_ICMP && at < r->bytes && claim_is_of_router(r->frame[at]))
        r->claim->kind = CLAIM_ROUTER;
}

/* An option of no length is the last: receivers ignore a message with one. */
static const uint8_t *mac_option(const struct reader *r, uint32_t at, uint32_t wanted)
{
    for (uint32_t i = 0; at + OPTION_UNIT <= r->bytes && r->frame[at + 1] != 0; i++) {
        if (i == MOST_OPTIONS) {
            *r->claim = (struct claim){.kind = CLAIM_HIDDEN};
            return NULL;
        }
        if (r->frame[at] == wanted)
            return r->frame + at + 2;
        at += r->frame[at + 1] * OPTION_UNIT;
    }
    return NULL;
}

static void read_discovery(const struct reader *r, uint32_t at, uint32_t type, const uint8_t *source)
{
    struct claim *claim = r->claim;
    if (type == ND_ADVERTISE_ROUTER || type == ND_REDIRECT) {
        claim->kind = CLAIM_ROUTER;
        return;
    }
    claims(claim, source);
    if (type == ND_ADVERTISE && at + ND_TARGET_END <= r->bytes)
        claims(claim, r->frame + at + ND_TARGET);
    claim->mac = type == ND_ADVERTISE ? mac_option(r, at + ND_TARGET_END, OPTION_TARGET_MAC)
                                      : mac_option(r, at + (type == ND_SOLICIT ? ND_TARGET_END : ND_ROUTER_END),
                                                   OPTION_SOURCE_MAC);
}

static void read_icmpv6(const struct reader *r, uint32_t at, bool fragmented, const uint8_t *source)
{
    if (at + 1 > r->bytes) {
        r->claim->kind = CLAIM_HIDDEN;
        return;
    }
    uint32_t type = r->frame[at];
    if (type < ND_FIRST || type > ND_REDIRECT)
        return;
    if (fragmented)
        r->claim->kind = CLAIM_HIDDEN;
    else
        read_discovery(r, at, type, source);
}

/* Bytes of an extension header; 0: not an extension header. */
static uint32_t extension_bytes(uint32_t type, uint32_t length)
{
    switch (type) {
    case IPPROTO_HOPOPTS:
    case IPPROTO_ROUTING:
    case IPPROTO_DSTOPTS:
    case 135: /* mobility, RFC 6275; <netinet/in.h> of macOS has no name for it */
    case 139: /* host identity, RFC 7401 */
    case 140: /* shim6, RFC 5533 */
        return (length + 1) * 8;
    case IPPROTO_AH:
        return (length + 2) * 4;
    case IPPROTO_FRAGMENT:
        return FRAGMENT_BYTES;
    default:
        return 0;
    }
}

bool claim_reads_behind(uint32_t next)
{
    return extension_bytes(next, 0) != 0;
}

static void read_ipv6(const struct reader *r, uint32_t at)
{
    const uint8_t *ip = r->frame + at;
    if (at + IPV6_BYTES > r->bytes || ip[0] >> 4 != 6)
        return;
    uint32_t next = ip[IPV6_NEXT], size;
    bool fragmented = false;
    at += IPV6_BYTES;
    for (uint32_t i = 0; extension_bytes(next, 0) != 0; i++) {
        if (i == MOST_HEADERS || at + 8 > r->bytes) {
            r->claim->kind = CLAIM_HIDDEN;
            return;
        }
        size = extension_bytes(next, r->frame[at + 1]);
        if (next == IPPROTO_FRAGMENT) {
            if ((load_be16(r->frame + at + 2) & IPV6_OFFSET) != 0)
                return;
            fragmented = true;
        }
        next = r->frame[at];
        at += size;
    }
    if (next == IPPROTO_ICMPV6)
        read_icmpv6(r, at, fragmented, ip + IPV6_ADDRESSES);
    else if (next == IPPROTO_UDP)
        read_udp(r, at, CLAIM_DHCP6_CLIENT);
}

void claim_read(struct claim *claim, const uint8_t *frame, uint32_t bytes)
{
    struct reader reader = {.frame = frame, .bytes = bytes, .claim = claim};
    uint32_t type = 0;
    *claim = (struct claim){.kind = CLAIM_NOTHING};
    uint32_t at = payload_of(&reader, &type);
    if (at == 0)
        return;
    if (type == ETHERTYPE_MAC_CONTROL)
        claim->kind = CLAIM_PAUSE;
    else if (type == ETHERTYPE_ARP)
        read_arp(&reader, at);
    else if (type == ETHERTYPE_IPV4)
        read_ipv4(&reader, at);
    else if (type == ETHERTYPE_IPV6)
        read_ipv6(&reader, at);
}
