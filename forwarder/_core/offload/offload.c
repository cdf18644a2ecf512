#include "offload/offload.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "offload/checksum.h"
#include "offload/vnet.h"
#include "packet/claim.h"
#include "packet/packet.h"

/* May a packet have an unfinished sum there? Two places are right: the field of its transport, and any place inside a
   packet that it carries, since the guard reads none of that. */
static bool is_place_in_packet(const struct packet *packet, uint32_t place)
{
    switch (packet->protocol) {
    case IPPROTO_TCP:
        return place == packet->transport + TCP_SUM;
    case IPPROTO_UDP:
        return place == packet->transport + UDP_SUM || place >= packet->transport + UDP_BYTES;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        return place == packet->transport + ICMP_SUM;
    default:
        return place >= packet->transport && (packet->is_ipv4 || !claim_reads_behind(packet->protocol));
    }
}

static bool is_place_of_sum(const uint8_t *frame, uint32_t bytes, uint32_t place)
{
    struct packet packet;
    uint32_t type = 0, at = network_of(frame, bytes, &type);
    if (at == 0) /* more tags than a VM may send that the guard watches */
        return true;
    if (type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6)
        return packet_open(&packet, frame, bytes) && is_place_in_packet(&packet, place);
    return place >= at && !claim_possible_for(type);
}

bool offload_is_sound(const uint8_t *header, const uint8_t *frame, uint32_t bytes)
{
    struct vnet vnet = vnet_load(header);
    return (vnet.flags & VNET_NEEDS_SUM) == 0
           || (vnet.sum_from >= MIN_FRAME && is_place_of_sum(frame, bytes, vnet.sum_from + vnet.sum_offset));
}

static uint32_t needs_for_udp(const uint8_t *frame, uint32_t bytes)
{
    uint32_t type = 0;
    network_of(frame, bytes, &type);
    return type == ETHERTYPE_IPV6 ? TAKES_USO6 : TAKES_USO4;
}

uint32_t offload_needs(const uint8_t *header, const uint8_t *frame, uint32_t bytes)
{
    struct vnet vnet = vnet_load(header);
    uint32_t needs = (vnet.flags & VNET_NEEDS_SUM) != 0 ? TAKES_SUM : 0;
    needs |= (vnet.type & VNET_GSO_ECN) != 0 ? TAKES_ECN : 0;
    switch (vnet.type & ~VNET_GSO_ECN) {
    case VNET_GSO_NONE:
        return needs;
    case VNET_GSO_TCPV4:
        return needs | TAKES_TSO4;
    case VNET_GSO_TCPV6:
        return needs | TAKES_TSO6;
    case VNET_GSO_UDP:
        return needs | needs_for_udp(frame, bytes);
    default:
        return UINT32_MAX;
    }
}

bool offload_may_go(const struct intake *intake, const uint8_t *header, const uint8_t *frame, uint32_t bytes)
{
    if (header == NULL)
        return bytes <= intake->longest;
    if ((intake->takes & TAKES_SUM) == 0 || bytes < MIN_FRAME)
        return false;
    uint32_t needs = offload_needs(header, frame, bytes);
    bool cut = (needs & ~(TAKES_SUM | TAKES_ECN)) != 0;
    return (needs & ~intake->takes) == 0 && (cut || bytes <= intake->longest);
}

/* IP and transport match the header, up to the start of the transport. */
static bool leads_to_transport(struct offload *o, uint32_t type)
{
    struct packet packet;
    if (!packet_open(&packet, o->frame, o->bytes))
        return false;
    o->is_ipv4 = packet.is_ipv4;
    o->ip = packet.ip;
    uint32_t unlike = o->is_ipv4 ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4;
    uint32_t counted = o->bytes - o->ip - (o->is_ipv4 ? 0 : IPV6_BYTES);
    return type != unlike && packet.transport == o->transport
           && packet.protocol == (o->is_tcp ? IPPROTO_TCP : IPPROTO_UDP) && counted <= UINT16_MAX;
}

static bool plan_cut(struct offload *o, uint32_t type, uint32_t segment)
{
    o->is_tcp = type != VNET_GSO_UDP;
    o->transport = o->sum_from;
    o->step = segment;
    uint32_t least = o->is_tcp ? TCP_LEAST : UDP_BYTES, sum = o->is_tcp ? TCP_SUM : UDP_SUM;
    if (o->step < SEGMENT_LEAST || o->sum_at != o->transport + sum || o->transport + least > o->bytes
        || !leads_to_transport(o, type))
        return false;
    uint32_t header = o->is_tcp ? tcp_header_bytes(o->frame + o->transport) : UDP_BYTES;
    o->headers = o->at = o->transport + header;
    return header >= least && o->headers < o->bytes;
}

bool offload_open(struct offload *o, const uint8_t *header, uint32_t bytes)
{
    struct vnet vnet = vnet_load(header);
    uint32_t type = vnet.type & ~VNET_GSO_ECN; /* a segment's flags say the same */
    *o = (struct offload){.frame = header + VNET_BYTES, .bytes = bytes - VNET_BYTES, .step = bytes - VNET_BYTES};
    if (vnet.flags & VNET_NEEDS_SUM) {
        o->sum_from = vnet.sum_from;
        o->sum_at = vnet.sum_from + vnet.sum_offset;
        if (o->sum_from < MIN_FRAME || o->sum_at + sizeof(uint16_t) > o->bytes)
            return false;
    }
    switch (type) {
    case VNET_GSO_NONE:
        return true;
    case VNET_GSO_TCPV4:
    case VNET_GSO_TCPV6:
    case VNET_GSO_UDP:
        return o->sum_at != 0 && plan_cut(o, type, vnet.segment);
    default:
        return false;
    }
}

void offload_limit(struct offload *o, uint32_t longest)
{
    uint32_t least = LINK_BYTES + LEAST_MTU, most = longest > least ? longest : least;
    if (o->headers != 0 && o->headers + o->step > most && o->headers + SEGMENT_LEAST <= most)
        o->step = most - o->headers;
}

/* If it is not cut, no headers are repeated, and the sum covers all of it. */
void offload_keep_whole(struct offload *o)
{
    o->headers = o->at = 0;
    o->step = o->bytes;
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
    store_sum(sum, folded((uint64_t)load_sum(sum) + removed + htons((uint16_t)own)));
}

/* The partial sum lies in the field of the finished one, so it is part of the summed bytes. Zero is stored as its
   other form, since in UDP it would mean that there is no checksum (RFC 768). */
static void finish_sum(const struct offload *o, uint8_t *frame, uint64_t sum)
{
    uint16_t field = (uint16_t)~folded(sum);
    store_sum(frame + o->sum_at, field == 0 ? UINT16_MAX : field);
}

/* The payload is summed while it is copied. The part in front of it is repeated and adapted first. */
static void write_segment(const struct offload *o, uint8_t *frame, uint32_t payload)
{
    memcpy(frame, o->frame, o->headers);
    adapt_headers(o, frame, payload);
    uint64_t sum = sum_of(frame + o->sum_from, o->headers - o->sum_from);
    finish_sum(o, frame, sum + sum_copied(frame + o->headers, o->frame + o->at, payload));
}

static void write_whole(const struct offload *o, uint8_t *frame)
{
    uint32_t plain = o->sum_at == 0 ? o->bytes : o->sum_from;
    memcpy(frame, o->frame, plain);
    if (o->sum_at != 0)
        finish_sum(o, frame, sum_copied(frame + plain, o->frame + plain, o->bytes - plain));
}

uint32_t offload_next(struct offload *o, uint8_t *record)
{
    uint32_t bytes = offload_next_bytes(o) - LENGTH_BYTES, payload = bytes - o->headers;
    store_be32(record, bytes);
    if (o->headers != 0)
        write_segment(o, record + LENGTH_BYTES, payload);
    else
        write_whole(o, record + LENGTH_BYTES);
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
