#include "packet/offload.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "packet/checksum.h"
#include "packet/packet.h"
#include "packet/vnet.h"

#define MOST_EXTENSIONS 8u

#define TCP_LEAST 20u
#define TCP_SEQUENCE 4u
#define TCP_OFFSET 12u
#define TCP_FLAGS 13u
#define TCP_SUM 16u
#define TCP_FIN 0x01u
#define TCP_PSH 0x08u
#define TCP_CWR 0x80u
#define UDP_BYTES 8u
#define UDP_LENGTH 4u
#define UDP_SUM 6u

static uint16_t sum_field(const uint8_t *at)
{
    uint16_t field;
    memcpy(&field, at, sizeof field);
    return field;
}

struct vnet {
    uint8_t flags;
    uint32_t type; /* the ECN bit aside: a segment's flags say the same */
    uint32_t segment;
    uint32_t sum_from;
    uint32_t sum_at;
};

static struct vnet vnet_of(const uint8_t *header)
{
    uint32_t from = load_le16(header + 6);
    return (struct vnet){.flags = header[0],
                         .type = header[1] & ~VNET_GSO_ECN,
                         .segment = load_le16(header + 4),
                         .sum_from = from,
                         .sum_at = from + load_le16(header + 8)};
}

bool offload_is_sound(const uint8_t *vnet)
{
    return (vnet[0] & VNET_NEEDS_SUM) == 0 || load_le16(vnet + 6) >= MIN_FRAME;
}

static bool ipv4_leads_to(const struct offload *o, uint32_t protocol)
{
    const uint8_t *ip = o->frame + o->ip;
    uint32_t header = ipv4_header_bytes(ip);
    return ip[0] >> 4 == 4 && header >= IPV4_LEAST && o->transport == o->ip + header && ip[IPV4_PROTOCOL] == protocol
           && (load_be16(ip + IPV4_FRAGMENT) & IPV4_PART_OF_MORE) == 0 && o->bytes - o->ip <= UINT16_MAX;
}

/* Through extension headers that may stand in front of a whole packet (RFC 8200, section 4.1). */
static bool ipv6_leads_to(const struct offload *o, uint32_t protocol)
{
    const uint8_t *ip = o->frame + o->ip;
    uint32_t at = o->ip + IPV6_BYTES;
    if (o->transport < at || ip[0] >> 4 != 6)
        return false;
    uint32_t next = ip[IPV6_NEXT];
    for (uint32_t i = 0; i < MOST_EXTENSIONS && at < o->transport; i++) {
        if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
            return false;
        next = o->frame[at];
        at += (o->frame[at + 1] + 1u) * 8u;
    }
    return at == o->transport && next == protocol && o->bytes - o->ip - IPV6_BYTES <= UINT16_MAX;
}

/* IP and what it carries are what the header says, up to where that begins. */
static bool leads_to_transport(struct offload *o, uint32_t kind)
{
    uint32_t type = 0, protocol = o->is_tcp ? IPPROTO_TCP : IPPROTO_UDP;
    o->ip = network_of(o->frame, o->bytes, &type);
    o->is_ipv4 = type == ETHERTYPE_IPV4;
    if (o->ip == 0 || o->transport < o->ip + IPV4_LEAST)
        return false;
    if (o->is_ipv4)
        return kind != VNET_GSO_TCPV6 && ipv4_leads_to(o, protocol);
    return type == ETHERTYPE_IPV6 && kind != VNET_GSO_TCPV4 && ipv6_leads_to(o, protocol);
}

static bool plan_cut(struct offload *o, const struct vnet *vnet)
{
    o->is_tcp = vnet->type != VNET_GSO_UDP;
    o->transport = o->sum_from;
    o->step = vnet->segment;
    uint32_t least = o->is_tcp ? TCP_LEAST : UDP_BYTES, sum = o->is_tcp ? TCP_SUM : UDP_SUM;
    if (o->step < SEGMENT_LEAST || o->sum_at != o->transport + sum || o->transport + least > o->bytes
        || !leads_to_transport(o, vnet->type))
        return false;
    uint32_t header = o->is_tcp ? (o->frame[o->transport + TCP_OFFSET] >> 4) * 4u : UDP_BYTES;
    o->headers = o->at = o->transport + header;
    return header >= least && o->headers < o->bytes;
}

bool offload_open(struct offload *o, const uint8_t *header, uint32_t bytes)
{
    struct vnet vnet = vnet_of(header);
    *o = (struct offload){.frame = header + VNET_BYTES, .bytes = bytes - VNET_BYTES, .step = bytes - VNET_BYTES};
    if (vnet.flags & VNET_NEEDS_SUM) {
        o->sum_from = vnet.sum_from;
        o->sum_at = vnet.sum_at;
        if (o->sum_from < MIN_FRAME || o->sum_at + sizeof(uint16_t) > o->bytes)
            return false;
    }
    switch (vnet.type) {
    case VNET_GSO_NONE:
        return true;
    case VNET_GSO_TCPV4:
    case VNET_GSO_TCPV6:
    case VNET_GSO_UDP:
        return o->sum_at != 0 && plan_cut(o, &vnet);
    default:
        return false;
    }
}

static void number_ipv4(const struct offload *o, uint8_t *ip, uint32_t bytes)
{
    store_be16(ip + IPV4_TOTAL, bytes);
    store_be16(ip + IPV4_ID, load_be16(ip + IPV4_ID) + o->number);
    store_sum(ip + IPV4_SUM, 0);
    store_sum(ip + IPV4_SUM, (uint16_t)~folded(sum_of(ip, o->transport - o->ip)));
}

static void number_tcp(const struct offload *o, uint8_t *tcp, bool last)
{
    uint32_t sequence = load_be32(tcp + TCP_SEQUENCE) + (o->at - o->headers);
    store_be32(tcp + TCP_SEQUENCE, sequence);
    if (!last)
        tcp[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
    if (o->number > 0)
        tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
}

/* Make the frame's headers those of the next segment. */
static void adapt_headers(const struct offload *o, uint8_t *frame, uint32_t payload)
{
    uint8_t *ip = frame + o->ip, *transport = frame + o->transport, *sum = frame + o->sum_at;
    uint32_t whole = o->bytes - o->transport, own = o->headers - o->transport + payload;
    if (o->is_ipv4)
        number_ipv4(o, ip, o->headers - o->ip + payload);
    else
        store_be16(ip + IPV6_LENGTH, o->headers - o->ip - IPV6_BYTES + payload);
    if (o->is_tcp)
        number_tcp(o, transport, o->at + payload == o->bytes);
    else
        store_be16(transport + UDP_LENGTH, own);
    uint16_t removed = (uint16_t)~htons((uint16_t)whole);
    store_sum(sum, folded((uint64_t)sum_field(sum) + removed + htons((uint16_t)own)));
}

/* The sum begun stands where the finished one goes and is thus part of what it covers. Zero is stored as its other
   form, since in UDP it would mean that there is no checksum (RFC 768). */
static void finish_sum(const struct offload *o, uint8_t *frame, uint32_t bytes)
{
    uint16_t sum = (uint16_t)~folded(sum_of(frame + o->sum_from, bytes - o->sum_from));
    store_sum(frame + o->sum_at, sum == 0 ? UINT16_MAX : sum);
}

uint32_t offload_next(struct offload *o, uint8_t *record)
{
    uint32_t bytes = offload_next_bytes(o) - LENGTH_BYTES, payload = bytes - o->headers;
    uint8_t *frame = record + LENGTH_BYTES;
    store_be32(record, bytes);
    memcpy(frame, o->frame, o->headers);
    memcpy(frame + o->headers, o->frame + o->at, payload);
    if (o->headers != 0)
        adapt_headers(o, frame, payload);
    if (o->sum_at != 0)
        finish_sum(o, frame, bytes);
    o->at += payload;
    o->number++;
    return LENGTH_BYTES + bytes;
}

uint32_t offload_shorten(uint8_t *vnet, uint32_t bytes)
{
    struct offload o;
    if (!offload_open(&o, vnet, bytes) || o.headers == 0)
        return 0;
    uint32_t payload = o.bytes - o.headers, last = (payload - 1) % o.step + 1;
    if (last == payload)
        return 0;
    adapt_headers(&o, vnet + VNET_BYTES, payload - last);
    return bytes - last;
}
