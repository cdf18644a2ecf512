#include "port/asking.h"

#include "offload/vnet.h"
#include "packet/frame.h"
#include "packet/packet.h"
#include "shared/ring.h"

#define DNS_PORT 53u
#define DHCP_PORT 67u
#define FORGIVEN_NS NS_PER_S

/* For names and leases the gateway has a lower rate, at which it delays what comes too fast (DNS_RATE and DHCP_RATE of
   gateway/provisions.py): a client that waits for its answers is slowed down there, and never gets beyond the limit here. */
static const struct {
    uint32_t per_second, burst, floor;
} limits[ASKED_KINDS] = {
    [ASKED_NAMES] = {1250, 400, 50},        /* a browser asks 50 at once, a mail server some hundreds a second */
    [ASKED_STREAMS] = {100, 100, 10},       /* connections for names: after a truncated answer */
    [ASKED_LEASES] = {250, 300, 20},        /* a VM may have guests of its own, which start together */
    [ASKED_CONNECTIONS] = {100, 1000, 100}, /* without an answer; a load generator opens a thousand at once */
};

static uint64_t cost(enum asked kind)
{
    return NS_PER_S / limits[kind].per_second;
}

static enum asked kind_of_datagram(uint32_t port)
{
    return port == DNS_PORT ? ASKED_NAMES : port == DHCP_PORT ? ASKED_LEASES : ASKED_NOTHING;
}

/* The flags of a segment, and its port of destination; 0 flags: none. */
static uint32_t segment_at(const uint8_t *frame, uint32_t bytes, uint32_t at, uint32_t *port)
{
    if (at + TCP_LEAST > bytes)
        return 0;
    *port = load_be16(frame + at + 2);
    return frame[at + TCP_FLAGS] & (TCP_SYN | TCP_ACK);
}

/* Where the transport begins in a packet that is whole or a first fragment, and its protocol; 0: nowhere. */
static uint32_t transport_of(const uint8_t *frame, uint32_t bytes, uint32_t *protocol)
{
    uint32_t type = 0, at = network_of(frame, bytes, &type);
    const uint8_t *ip = frame + at;
    if (at == 0)
        return 0;
    if (type == ETHERTYPE_IPV4 && at + IPV4_LEAST <= bytes && (load_be16(ip + IPV4_FRAGMENT) & IPV4_OFFSET) == 0) {
        *protocol = ip[IPV4_PROTOCOL];
        return at + ipv4_header_bytes(ip);
    }
    if (type == ETHERTYPE_IPV6 && at + IPV6_BYTES <= bytes) {
        *protocol = ip[IPV6_NEXT];
        return at + IPV6_BYTES;
    }
    return 0;
}

static enum asked kind_of(const uint8_t *frame, uint32_t bytes)
{
    uint32_t protocol = 0, port = 0, at = transport_of(frame, bytes, &protocol);
    if (at == 0)
        return ASKED_NOTHING;
    if (protocol == IPPROTO_UDP)
        return at + UDP_BYTES <= bytes ? kind_of_datagram(load_be16(frame + at + 2)) : ASKED_NOTHING;
    if (protocol != IPPROTO_TCP || LIKELY(segment_at(frame, bytes, at, &port) != TCP_SYN))
        return ASKED_NOTHING;
    return port == DNS_PORT ? ASKED_STREAMS : ASKED_CONNECTIONS;
}

bool asking_refuses(struct asking *asking, const uint8_t *frame, uint32_t bytes, uint64_t now)
{
    enum asked kind = kind_of(frame, bytes);
    if (LIKELY(kind == ASKED_NOTHING))
        return false;
    uint64_t *due = &asking->kinds[kind].due, *passed = &asking->kinds[kind].passed;
    uint64_t burst = limits[kind].burst * cost(kind);
    *due = (*due > now ? *due : now) + cost(kind);
    if (*due > now + burst + FORGIVEN_NS)
        *due = now + burst + FORGIVEN_NS;
    if (*due > now + burst && now < *passed + NS_PER_S / limits[kind].floor)
        return true;
    *passed = now;
    return false;
}

static bool is_answer(const uint8_t *frame, uint32_t bytes)
{
    uint32_t protocol = 0, port = 0, at = transport_of(frame, bytes, &protocol);
    return at != 0 && protocol == IPPROTO_TCP && segment_at(frame, bytes, at, &port) == (TCP_SYN | TCP_ACK);
}

uint32_t asking_answers(const struct asking *asking, const struct run_view *views, unsigned count)
{
    uint32_t answers = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct run_view *view = &views[i];
        uint32_t header = view->run.vnet ? VNET_BYTES : 0, size = 0;
        if (memcmp(view->run.src, asking->gateway, MAC_BYTES) != 0)
            continue;
        for (uint32_t at = 0; record_next(view->records + at, view->bytes - at, &size) == RECORD_WHOLE; at += size)
            if (size >= LENGTH_BYTES + header + MIN_FRAME)
                answers += is_answer(record_frame(view->records + at) + header, size - LENGTH_BYTES - header);
    }
    return answers;
}

void asking_answered(struct asking *asking, uint32_t answers)
{
    uint64_t *due = &asking->kinds[ASKED_CONNECTIONS].due, back = answers * cost(ASKED_CONNECTIONS);
    *due = *due > back ? *due - back : 0;
}
