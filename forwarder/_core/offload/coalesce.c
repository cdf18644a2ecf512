#include "offload/coalesce.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "offload/checksum.h"
#include "offload/offload.h"
#include "offload/vnet.h"
#include "packet/packet.h"

#define IP 14u

struct segment {
    bool is_ipv4;
    uint32_t tcp;     /* where its header begins */
    uint32_t headers; /* where its payload begins */
    uint32_t payload;
};

/* Copy a frame's headers to `head` and parse them; false if the frame cannot be joined. */
static bool understand(const struct iovec *frame, uint8_t *head, struct segment *segment)
{
    uint32_t bytes = (uint32_t)frame->iov_len;
    memcpy(head, frame->iov_base, bytes < COALESCE_HEADERS ? bytes : COALESCE_HEADERS);
    if (bytes < IP + IPV4_LEAST + TCP_LEAST)
        return false;
    uint8_t *ip = head + IP;
    uint32_t type = load_be16(head + IP - 2);
    segment->is_ipv4 = type == ETHERTYPE_IPV4;
    segment->tcp = IP + (segment->is_ipv4 ? IPV4_LEAST : IPV6_BYTES);
    if (segment->is_ipv4) {
        if (ip[0] != 0x45u || load_be16(ip + 2) != bytes - IP || load_be16(ip + 6) != 0x4000u || ip[9] != IPPROTO_TCP)
            return false;
    } else if (type != ETHERTYPE_IPV6 || ip[0] >> 4 != 6 || load_be16(ip + 4) + segment->tcp != bytes
               || ip[6] != IPPROTO_TCP || bytes < segment->tcp + TCP_LEAST) {
        return false;
    }
    const uint8_t *tcp = head + segment->tcp;
    segment->headers = segment->tcp + (tcp[12] >> 4) * 4u;
    segment->payload = bytes - segment->headers;
    return segment->headers >= segment->tcp + TCP_LEAST && segment->headers < bytes
           && (tcp[13] & ~TCP_PSH) == TCP_ACK;
}

/* Of the pseudo header, which begins the checksum of `bytes` of TCP. */
static uint64_t pseudo_sum(const uint8_t *head, const struct segment *segment, uint32_t bytes)
{
    uint32_t addresses = segment->is_ipv4 ? 8 : 32;
    return sum_of(head + segment->tcp - addresses, addresses) + htons(IPPROTO_TCP) + htons((uint16_t)bytes);
}

static bool sums_are_right(const struct iovec *frame, const uint8_t *head, const struct segment *segment)
{
    const uint8_t *payload = (const uint8_t *)frame->iov_base + segment->headers;
    uint32_t header = segment->headers - segment->tcp;
    uint64_t sum = pseudo_sum(head, segment, header + segment->payload);
    sum += sum_of(head + segment->tcp, header) + sum_of(payload, segment->payload);
    return folded(sum) == UINT16_MAX && (!segment->is_ipv4 || folded(sum_of(head + IP, IPV4_LEAST)) == UINT16_MAX);
}

/* Does `next` continue `head`, which has `bytes` of payload so far? */
static bool continues(const uint8_t *head, const struct segment *first, uint32_t bytes, const uint8_t *next,
                      const struct segment *segment)
{
    uint8_t same[COALESCE_HEADERS];
    if (segment->headers != first->headers || segment->payload > first->payload
        || load_be32(next + first->tcp + 4) != load_be32(head + first->tcp + 4) + bytes)
        return false;
    memcpy(same, next, first->headers);
    uint8_t *tcp = same + first->tcp;
    memcpy(tcp + 4, head + first->tcp + 4, 4);
    tcp[13] = head[first->tcp + 13];
    memcpy(tcp + 16, head + first->tcp + 16, 2);
    if (first->is_ipv4) { /* length, identification; checksum */
        memcpy(same + IP + 2, head + IP + 2, 4);
        memcpy(same + IP + 10, head + IP + 10, 2);
    } else {
        memcpy(same + IP + 4, head + IP + 4, 2);
    }
    return memcmp(same, head, first->headers) == 0;
}

/* Change the first segment's headers to those of the whole, which has `bytes` of payload. */
static void finish(uint8_t *head, const struct segment *first, uint32_t bytes, bool push)
{
    uint8_t *frame = head + VNET_BYTES, *ip = frame + IP, *tcp = frame + first->tcp;
    uint32_t carried = first->headers - first->tcp + bytes;
    struct vnet vnet = {.flags = VNET_NEEDS_SUM,
                        .type = first->is_ipv4 ? VNET_GSO_TCPV4 : VNET_GSO_TCPV6,
                        .headers = first->headers,
                        .segment = first->payload,
                        .sum_from = first->tcp,
                        .sum_offset = TCP_SUM};
    vnet_store(head, &vnet);
    if (first->is_ipv4) {
        store_be16(ip + IPV4_TOTAL, IPV4_LEAST + carried);
        store_sum(ip + IPV4_SUM, 0);
        store_sum(ip + IPV4_SUM, (uint16_t)~folded(sum_of(ip, IPV4_LEAST)));
    } else {
        store_be16(ip + IPV6_LENGTH, carried);
    }
    tcp[TCP_FLAGS] = (uint8_t)(TCP_ACK | (push ? TCP_PSH : 0u));
    store_sum(tcp + TCP_SUM, folded(pseudo_sum(frame, first, carried)));
}

unsigned coalesce(struct coalesced *whole, const struct iovec *frames, unsigned count)
{
    uint8_t *head = whole->head + VNET_BYTES, next[COALESCE_HEADERS];
    struct segment first, segment;
    if (count < 2 || !understand(&frames[0], head, &first) || (head[first.tcp + 13] & TCP_PSH) != 0
        || first.payload < SEGMENT_LEAST) /* another TAP of ours would refuse the whole */
        return 1;
    uint32_t bytes = first.payload, most = UINT16_MAX - (first.headers - IP);
    bool push = false;
    unsigned n = 1;
    for (; n < count && n < COALESCE_MOST && !push && bytes == n * first.payload; n++) {
        if (!understand(&frames[n], next, &segment) || bytes + segment.payload > most
            || !continues(head, &first, bytes, next, &segment) || !sums_are_right(&frames[n], next, &segment)
            || (n == 1 && !sums_are_right(&frames[0], head, &first)))
            break;
        whole->parts[n + 1] = (struct iovec){.iov_base = (uint8_t *)frames[n].iov_base + first.headers,
                                             .iov_len = segment.payload};
        bytes += segment.payload;
        push = (next[first.tcp + 13] & TCP_PSH) != 0;
    }
    if (n == 1)
        return 1;
    finish(whole->head, &first, bytes, push);
    whole->parts[0] = (struct iovec){.iov_base = whole->head, .iov_len = VNET_BYTES + first.headers};
    whole->parts[1] = (struct iovec){.iov_base = (uint8_t *)frames[0].iov_base + first.headers,
                                     .iov_len = first.payload};
    return n;
}
