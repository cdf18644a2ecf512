#include "offload/infer.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "offload/checksum.h"
#include "offload/offload.h"
#include "offload/vnet.h"
#include "packet/packet.h"

/* Of the pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1): addresses, protocol, length. */
static uint16_t pseudo_sum(const struct packet *packet, const uint8_t *frame)
{
    const uint8_t *addresses = frame + packet->ip + (packet->is_ipv4 ? IPV4_ADDRESSES : IPV6_ADDRESSES);
    uint64_t sum = sum_of(addresses, packet->is_ipv4 ? 8 : 32);
    return folded(sum + htons((uint16_t)packet->protocol) + htons((uint16_t)(packet->end - packet->transport)));
}

/* Is this a TCP or UDP packet that is all there, with nothing behind it but zeros? */
static bool is_whole(const struct packet *packet, const uint8_t *frame, uint32_t bytes)
{
    bool is_tcp = packet->protocol == IPPROTO_TCP;
    if (packet->end > bytes || (!is_tcp && packet->protocol != IPPROTO_UDP)
        || packet->transport + (is_tcp ? TCP_LEAST : UDP_BYTES) > packet->end)
        return false;
    uint32_t carried = packet->end - packet->transport;
    return (is_tcp || load_be16(frame + packet->transport + UDP_LENGTH) == carried)
           && sum_of(frame + packet->end, bytes - packet->end) == 0;
}

static enum inferred sum_at(const struct packet *packet, const uint8_t *frame, uint32_t offset)
{
    uint16_t stored = load_sum(frame + packet->transport + offset), begun = pseudo_sum(packet, frame);
    if (stored == 0 && packet->protocol == IPPROTO_UDP && packet->is_ipv4)
        return SUM_NONE;
    return stored == begun || (stored == 0 && begun == UINT16_MAX) ? SUM_BEGUN : SUM_FINISHED;
}

static void plan_segments(struct vnet *vnet, const struct packet *packet, const uint8_t *frame, uint32_t mtu)
{
    const uint8_t *tcp = frame + packet->transport;
    uint32_t headers = packet->transport + tcp_header_bytes(tcp), most = packet->ip + mtu;
    if (tcp_header_bytes(tcp) < TCP_LEAST || headers >= packet->end || most < headers + SEGMENT_LEAST)
        return;
    vnet->type = packet->is_ipv4 ? VNET_GSO_TCPV4 : VNET_GSO_TCPV6;
    vnet->type |= (tcp[TCP_FLAGS] & TCP_CWR) != 0 ? VNET_GSO_ECN : 0;
    vnet->headers = headers;
    vnet->segment = most - headers;
}

enum inferred infer(uint8_t *header, const uint8_t *frame, uint32_t bytes, uint32_t mtu)
{
    struct packet packet;
    struct vnet vnet = {0};
    enum inferred sum = SUM_NONE;
    if (packet_open(&packet, frame, bytes) && is_whole(&packet, frame, bytes)) {
        bool is_tcp = packet.protocol == IPPROTO_TCP;
        uint32_t offset = is_tcp ? TCP_SUM : UDP_SUM;
        sum = sum_at(&packet, frame, offset);
        if (sum == SUM_BEGUN)
            vnet = (struct vnet){.flags = VNET_NEEDS_SUM, .sum_from = packet.transport, .sum_offset = offset};
        if (sum == SUM_BEGUN && is_tcp && packet.end == bytes && packet.end - packet.ip > mtu)
            plan_segments(&vnet, &packet, frame, mtu);
    }
    vnet_store(header, &vnet);
    return sum;
}
