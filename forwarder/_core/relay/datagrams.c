#include "relay/datagrams.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "offload/checksum.h"
#include "offload/vnet.h"
#include "packet/packet.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define VNET_SUM_VALID 2u
#define ETHERNET_BYTES 14u
#define SOURCE_MAC_AT 6u

int datagrams_open(struct datagrams *datagrams, const struct lan *lan)
{
    memset(datagrams, 0, sizeof *datagrams);
    datagrams->outlet.tun = -1;
    datagrams->lan = *lan;
    datagrams->bytes = calloc(DATAGRAM_BATCH, DATAGRAM_BYTES);
    if (datagrams->bytes == NULL)
        return -1;
    for (uint32_t i = 0; i < DATAGRAM_BATCH; i++)
        datagrams->messages[i].data = datagrams->bytes + (size_t)i * DATAGRAM_BYTES;
    return flow_cache_open(&datagrams->outlet.cache);
}

void datagrams_close(struct datagrams *datagrams)
{
    flow_cache_close(&datagrams->outlet.cache);
    free(datagrams->bytes);
    datagrams->bytes = NULL;
}

/* Read the waiting messages into `messages`; returns their number, or -1 with errno. */
static int receive(struct datagrams *datagrams, int fd, bool control)
{
    struct mmsghdr headers[DATAGRAM_BATCH];
    struct iovec parts[DATAGRAM_BATCH];
    _Alignas(struct cmsghdr) uint8_t controls[DATAGRAM_BATCH][CONTROL_BYTES];
    for (uint32_t i = 0; i < DATAGRAM_BATCH; i++) {
        struct message *message = &datagrams->messages[i];
        parts[i] = (struct iovec){message->data, DATAGRAM_BYTES};
        headers[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        if (control) {
            headers[i].msg_hdr.msg_name = &message->peer;
            headers[i].msg_hdr.msg_namelen = sizeof message->peer;
            headers[i].msg_hdr.msg_control = controls[i];
            headers[i].msg_hdr.msg_controllen = CONTROL_BYTES;
        }
    }
    datagrams->count = datagrams->carried = 0;
    int count = recvmmsg(fd, headers, DATAGRAM_BATCH, MSG_DONTWAIT, NULL);
    if (count < 0)
        return -1;
    for (int i = 0; i < count; i++) {
        struct message *message = &datagrams->messages[i];
        message->bytes = headers[i].msg_len;
        message->segment = message->local_bytes = 0;
        message->left = false;
        message->syn = NULL;
        if (!control)
            continue;
        struct msghdr *header = &headers[i].msg_hdr;
        for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each != NULL; each = CMSG_NXTHDR(header, each)) {
            if (each->cmsg_level == IPPROTO_UDP && each->cmsg_type == UDP_GRO) {
                int segment;
                memcpy(&segment, CMSG_DATA(each), sizeof segment);
                message->segment = segment > 0 ? (uint32_t)segment : 0;
            } else if (each->cmsg_level == IPPROTO_IP && each->cmsg_type == IP_PKTINFO) {
                struct in_pktinfo info;
                memcpy(&info, CMSG_DATA(each), sizeof info);
                message->local_bytes = 4;
                memcpy(message->local, &info.ipi_spec_dst, 4);
            } else if (each->cmsg_level == IPPROTO_IPV6 && each->cmsg_type == IPV6_PKTINFO) {
                struct in6_pktinfo info;
                memcpy(&info, CMSG_DATA(each), sizeof info);
                message->local_bytes = 16;
                memcpy(message->local, &info.ipi6_addr, 16);
            }
        }
    }
    datagrams->count = (uint32_t)count;
    return count;
}

/* The fields of an IP packet that the cache needs. */
struct heading {
    uint32_t version, protocol, hops;
    bool keep, whole;
    uint8_t *source, *destination, *transport;
    uint32_t bytes; /* from `transport` on, according to IP */
};

/* Parse a frame's packet; returns false if it is damaged or has options: then it is for the caller. */
static bool head_of(struct heading *heading, uint8_t *ip, uint32_t bytes)
{
    if (bytes >= IPV4_LEAST && ip[0] == 0x45) {
        uint32_t total = load_be16(ip + IPV4_TOTAL), place = load_be16(ip + IPV4_FRAGMENT);
        if (total < IPV4_LEAST || total > bytes || folded(sum_of(ip, IPV4_LEAST)) != 0xffff)
            return false;
        *heading = (struct heading){4, ip[IPV4_PROTOCOL], ip[8], (place & 0x4000u) != 0,
                                    (place & IPV4_PART_OF_MORE) == 0, ip + IPV4_ADDRESSES, ip + IPV4_ADDRESSES + 4,
                                    ip + IPV4_LEAST, total - IPV4_LEAST};
        return true;
    }
    if (bytes >= IPV6_BYTES && ip[0] >> 4 == 6) {
        uint32_t length = load_be16(ip + IPV6_LENGTH);
        if (length > bytes - IPV6_BYTES)
            return false;
        *heading = (struct heading){6, ip[IPV6_NEXT], ip[7], true, true, ip + IPV6_ADDRESSES, ip + IPV6_ADDRESSES + 16,
                                    ip + IPV6_BYTES, length};
        return true;
    }
    return false;
}

/* Is the checksum of a UDP datagram right? In IPv4 it may be missing. */
static bool sums_up(const struct heading *heading, uint32_t length)
{
    uint32_t address = heading->version == 4 ? 4 : 16;
    if (load_sum(heading->transport + UDP_SUM) == 0)
        return heading->version == 4;
    uint8_t rest[4] = {0, IPPROTO_UDP};
    store_be16(rest + 2, length);
    uint64_t sum = sum_of(heading->source, address) + sum_of(heading->destination, address)
                   + sum_of(rest, sizeof rest) + sum_of(heading->transport, length);
    return folded(sum) == 0xffff;
}

static bool is_of_lan(const struct lan *lan, const struct heading *heading)
{
    if (heading->version == 6)
        return memcmp(heading->source, lan->prefix, sizeof lan->prefix) == 0;
    for (uint32_t i = 0; i < 4; i++)
        if ((heading->source[i] & lan->mask[i]) != lan->network[i])
            return false;
    return true;
}

static struct shed_slot *slot_of(struct datagrams *datagrams, const uint8_t *mac)
{
    uint32_t low = load_be32(mac + 2);
    return &datagrams->slots[(low ^ low >> 8 ^ low >> 16) % SHED_SLOTS];
}

void datagrams_shed(struct datagrams *datagrams, const uint8_t *mac, enum shed kind, uint64_t until)
{
    struct shed_slot *slot = slot_of(datagrams, mac);
    if (memcmp(slot->mac, mac, MAC_BYTES) != 0) {
        memset(slot, 0, sizeof *slot);
        memcpy(slot->mac, mac, MAC_BYTES);
    }
    slot->until[kind] = until;
}

/* Is this frame only counted? */
static bool is_shed(struct datagrams *datagrams, const struct heading *heading, const uint8_t *mac, uint64_t now)
{
    const struct shed_slot *slot = slot_of(datagrams, mac);
    if (memcmp(slot->mac, mac, MAC_BYTES) != 0)
        return false;
    bool forged = now < slot->until[SHED_FORGED] && !is_of_lan(&datagrams->lan, heading);
    bool syn = now < slot->until[SHED_SYN] && heading->protocol == IPPROTO_TCP;
    if (forged)
        datagrams->shed[SHED_FORGED]++;
    else if (syn)
        datagrams->shed[SHED_SYN]++;
    return forged || syn;
}

static bool is_syn(const struct heading *heading)
{
    return heading->protocol == IPPROTO_TCP && heading->whole && heading->bytes >= TCP_LEAST
           && (heading->transport[TCP_FLAGS] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Carry one frame, count it, or leave it to the caller. */
static void take_frame(struct datagrams *datagrams, struct departing *departing, struct message *message, uint64_t now)
{
    struct heading heading;
    message->left = true;
    if (message->bytes < VNET_BYTES + ETHERNET_BYTES)
        return;
    struct vnet vnet = vnet_load(message->data);
    uint8_t *frame = message->data + VNET_BYTES;
    if (!head_of(&heading, frame + ETHERNET_BYTES, message->bytes - VNET_BYTES - ETHERNET_BYTES))
        return;
    if (is_shed(datagrams, &heading, frame + SOURCE_MAC_AT, now)) {
        message->left = false;
        return;
    }
    if (is_syn(&heading) && vnet.type == VNET_GSO_NONE) {
        message->syn = frame + ETHERNET_BYTES;
        message->syn_bytes = (uint32_t)(heading.transport - message->syn) + heading.bytes;
    }
    bool cut = vnet.type == VNET_GSO_UDP;
    if (heading.protocol != IPPROTO_UDP || !heading.whole || heading.bytes < UDP_BYTES
        || (vnet.type != VNET_GSO_NONE && !(cut && vnet.segment != 0)))
        return;
    uint32_t length = load_be16(heading.transport + UDP_LENGTH);
    if (length < UDP_BYTES || length > heading.bytes)
        return;
    struct flow_key key = flow_key_of_guest(heading.version, frame + SOURCE_MAC_AT, heading.source,
                                            heading.destination, load_be16(heading.transport), heading.hops,
                                            heading.keep);
    const struct flow_way *way = flow_cache_find(&datagrams->outlet.cache, &key, -1, now);
    uint32_t port = load_be16(heading.transport + 2);
    bool summed = (vnet.flags & (VNET_NEEDS_SUM | VNET_SUM_VALID)) == 0;
    if (way == NULL || port == 0 || (summed && !sums_up(&heading, length)))
        return;
    message->left = false;
    message->segment = cut ? vnet.segment : 0;
    datagrams->carried++;
    departing_add(departing, &datagrams->outlet, way, port, message, heading.transport + UDP_BYTES, length - UDP_BYTES,
                  now);
}

int datagrams_from_guests(struct datagrams *datagrams, int packet_socket, uint64_t now)
{
    int count = receive(datagrams, packet_socket, false);
    struct departing departing = {.way = NULL};
    for (int i = 0; i < count; i++)
        take_frame(datagrams, &departing, &datagrams->messages[i], now);
    departing_send(&departing, &datagrams->outlet, now);
    return count;
}

int datagrams_from_socket(struct datagrams *datagrams, int fd, bool by_port, uint64_t now)
{
    int count = receive(datagrams, fd, true);
    struct departing departing = {.way = NULL};
    for (int i = 0; i < count; i++) {
        struct message *message = &datagrams->messages[i];
        bool four = message->peer.any.sa_family == AF_INET;
        const uint8_t *peer = four ? (const uint8_t *)&message->peer.four.sin_addr
                                   : message->peer.six.sin6_addr.s6_addr;
        struct flow_key key = flow_key_of_socket(fd, peer, four ? 4 : 16,
                                                 by_port ? ntohs(message->peer.four.sin_port) : 0, message->local,
                                                 message->local_bytes);
        const struct flow_way *way = flow_cache_find(&datagrams->outlet.cache, &key, fd, now);
        uint32_t each = message->segment ? message->segment : message->bytes;
        bool too_long = way != NULL && way->fd < 0 && way->version == 6
                        && each + IPV6_BYTES + UDP_BYTES > datagrams->outlet.mtu;
        if (way == NULL || too_long) {
            message->left = true;
            continue;
        }
        datagrams->carried++;
        departing_add(&departing, &datagrams->outlet, way, 0, message, message->data, message->bytes, now);
    }
    departing_send(&departing, &datagrams->outlet, now);
    return count;
}
