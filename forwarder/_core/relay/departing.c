#include "relay/departing.h"

#include <errno.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include "offload/checksum.h"
#include "offload/vnet.h"
#include "packet/packet.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define HOPS 64u
#define LONGEST_HEADERS (VNET_BYTES + IPV6_BYTES + UDP_BYTES)

static void control_add(struct msghdr *message, int level, int type, const void *data, size_t bytes)
{
    struct cmsghdr *header = (struct cmsghdr *)((uint8_t *)message->msg_control + message->msg_controllen);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(header), data, bytes);
    message->msg_controllen += CMSG_SPACE(bytes);
}

/* Send some parts with one system call; `segment` is 0 if they are one datagram. Returns 0, or -1 with errno. */
static int send_by_socket(const struct departing *departing, struct iovec *parts, size_t count, uint32_t segment)
{
    const struct flow_way *way = departing->way;
    _Alignas(struct cmsghdr) uint8_t control[CONTROL_BYTES];
    union flow_address to = way->address;
    if (departing->port != 0)
        to.four.sin_port = htons((uint16_t)departing->port); /* at the same place in both families */
    struct msghdr message = {.msg_name = way->address_bytes ? &to : NULL,
                             .msg_namelen = way->address_bytes,
                             .msg_iov = parts,
                             .msg_iovlen = count,
                             .msg_control = control};
    if (segment != 0)
        control_add(&message, IPPROTO_UDP, UDP_SEGMENT, &(uint16_t){(uint16_t)segment}, sizeof(uint16_t));
    if (way->local_bytes == 4) {
        struct in_pktinfo info = {0};
        memcpy(&info.ipi_spec_dst, way->local, 4);
        control_add(&message, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else if (way->local_bytes == 16) {
        struct in6_pktinfo info = {0};
        memcpy(&info.ipi6_addr, way->local, 16);
        control_add(&message, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
    if (message.msg_controllen == 0)
        message.msg_control = NULL;
    return sendmsg(way->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* Write the headers of one packet with `bytes` of payload for the TUN device; returns their length. */
static uint32_t make_headers(uint8_t *at, const struct departing *departing, struct outlet *outlet,
                             uint32_t bytes, uint32_t segment)
{
    const struct flow_way *way = departing->way;
    uint32_t address = way->version == 4 ? 4 : 16, ip_bytes = way->version == 4 ? IPV4_LEAST : IPV6_BYTES;
    uint8_t *ip = at + VNET_BYTES, *udp = ip + ip_bytes;
    vnet_store(at, &(struct vnet){.flags = VNET_NEEDS_SUM,
                                  .type = segment ? VNET_GSO_UDP : VNET_GSO_NONE,
                                  .headers = ip_bytes + UDP_BYTES,
                                  .segment = segment,
                                  .sum_from = ip_bytes,
                                  .sum_offset = UDP_SUM});
    memset(ip, 0, ip_bytes);
    if (way->version == 4) {
        ip[0] = 0x45;
        store_be16(ip + IPV4_TOTAL, ip_bytes + UDP_BYTES + bytes);
        store_be16(ip + IPV4_ID, outlet->ident++);
        ip[8] = HOPS;
        ip[IPV4_PROTOCOL] = IPPROTO_UDP;
        memcpy(ip + IPV4_ADDRESSES, way->source, 4);
        memcpy(ip + IPV4_ADDRESSES + 4, way->guest, 4);
        store_sum(ip + IPV4_SUM, (uint16_t)~folded(sum_of(ip, IPV4_LEAST)));
    } else {
        ip[0] = 0x60;
        store_be16(ip + IPV6_LENGTH, UDP_BYTES + bytes);
        ip[IPV6_NEXT] = IPPROTO_UDP;
        ip[7] = HOPS;
        memcpy(ip + IPV6_ADDRESSES, way->source, 16);
        memcpy(ip + IPV6_ADDRESSES + 16, way->guest, 16);
    }
    store_be16(udp, departing->peer_port);
    store_be16(udp + 2, way->guest_port);
    store_be16(udp + UDP_LENGTH, UDP_BYTES + bytes);
    uint8_t rest[4] = {0, IPPROTO_UDP};
    store_be16(rest + 2, UDP_BYTES + bytes);
    uint64_t pseudo = sum_of(way->source, address) + sum_of(way->guest, address) + sum_of(rest, sizeof rest);
    store_sum(udp + UDP_SUM, folded(pseudo));
    return VNET_BYTES + ip_bytes + UDP_BYTES;
}

static int send_by_tun(const struct departing *departing, struct outlet *outlet, struct iovec *parts,
                       size_t count, uint32_t bytes, uint32_t segment)
{
    uint8_t headers[LONGEST_HEADERS];
    parts[0] = (struct iovec){headers, make_headers(headers, departing, outlet, bytes, segment)};
    return writev(outlet->tun, parts, (int)count + 1) < 0 ? -1 : 0;
}

/* Send one of the datagrams; if a socket refuses a guest's datagram, leave it to the caller. */
static void send_one(const struct departing *departing, struct outlet *outlet, uint32_t index)
{
    struct iovec part[2] = {{NULL, 0}, departing->parts[1 + index]};
    int status = departing->way->fd < 0
                     ? send_by_tun(departing, outlet, part, 1, (uint32_t)part[1].iov_len, 0)
                     : send_by_socket(departing, part + 1, 1, 0);
    if (status == 0)
        return;
    bool is_full = errno == EAGAIN || errno == ENOBUFS;
    if (is_full || departing->port == 0 || departing->of[index]->segment != 0)
        outlet->dropped++; /* one of several in a message: the caller would send the others again */
    else
        departing->of[index]->left = true;
}

/* Does this error say that a way does not accept several datagrams at once? Others are of an earlier datagram. */
static bool is_about_segments(int error)
{
    return error == EINVAL || error == EMSGSIZE || error == EIO || error == EOPNOTSUPP || error == ENOPROTOOPT;
}

void departing_send(struct departing *departing, struct outlet *outlet, uint64_t now)
{
    if (departing->way == NULL)
        return;
    int fd = departing->way->fd;
    struct flow_socket *known = flow_socket_of(&outlet->cache, fd);
    int status = -1;
    if (known != NULL)
        known->used = now;
    if (departing->count > 1)
        status = fd < 0 ? send_by_tun(departing, outlet, departing->parts, departing->count, departing->bytes,
                                      departing->segment)
                        : send_by_socket(departing, departing->parts + 1, departing->count, departing->segment);
    if (departing->count > 1 && status < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
        outlet->dropped += departing->count;
        status = 0;
    }
    if (status < 0) {
        if (departing->count > 1 && known != NULL && is_about_segments(errno))
            known->no_segments = true;
        for (uint32_t i = 0; i < departing->count; i++)
            send_one(departing, outlet, i);
    }
    departing->way = NULL;
}

/* May one more datagram of this size join the batch? */
static bool has_room(const struct departing *departing, uint32_t bytes)
{
    return !departing->full && departing->count < DEPARTING_MOST && bytes != 0 && bytes <= departing->segment
           && departing->bytes + bytes <= DEPARTING_BYTES;
}

static void add_one(struct departing *departing, struct outlet *outlet, const struct flow_way *way,
                    uint32_t port, uint32_t peer_port, struct message *message, struct iovec part, uint64_t now)
{
    const struct flow_socket *known = flow_socket_of(&outlet->cache, way->fd);
    uint32_t bytes = (uint32_t)part.iov_len;
    bool alone = (known != NULL && known->no_segments)
                 || (way->fd < 0 && bytes + IPV6_BYTES + UDP_BYTES > outlet->mtu);
    if (departing->way != way || departing->port != port || departing->peer_port != peer_port || alone
        || !has_room(departing, bytes)) {
        departing_send(departing, outlet, now);
        *departing = (struct departing){.way = way, .port = port, .peer_port = peer_port, .segment = bytes};
    }
    departing->of[departing->count] = message;
    departing->parts[1 + departing->count++] = part;
    departing->bytes += bytes;
    departing->full = alone || bytes < departing->segment;
}

void departing_add(struct departing *departing, struct outlet *outlet, const struct flow_way *way, uint32_t port,
                   struct message *message, uint8_t *data, uint32_t bytes, uint64_t now)
{
    uint32_t peer_port = way->fd < 0 ? ntohs(message->peer.four.sin_port) : 0;
    uint32_t step = message->segment != 0 && message->segment < bytes ? message->segment : bytes;
    uint32_t at = 0;
    do {
        uint32_t piece = bytes - at < step ? bytes - at : step;
        add_one(departing, outlet, way, port, peer_port, message, (struct iovec){data + at, piece}, now);
        at += piece;
    } while (at < bytes);
}
