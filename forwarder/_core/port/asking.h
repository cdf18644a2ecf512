/* Limits of what a VM asks of the gateway: names, leases and connections.

   Theory of operation. The gateway serves all VMs, and a question costs it a hundred times what a forwarded frame costs.
   So the VM's own worker drops what is too much, before any other process sees it. The gateway has a share for each port
   besides, for ports without this limit and for workers that were taken over.

   Each kind of question has a limit by the generic cell rate algorithm (packet/rate_limit.h), kept as a *debt*: the time
   that all questions so far take at `per_second`, less the time that has passed. A question passes if the debt is at most
   that of `burst` questions. A refused question adds to the debt, too, up to FORGIVEN_NS above the burst: a VM that goes
   on asking faster than `per_second` floods, and only `floor` of its questions a second pass until it asks more slowly
   for a second.

   An opened connection costs little, a failed one much. So the first segment of a connection (SYN) adds to the debt, and
   the gateway's answer (SYN and ACK) takes it back: only connections without an answer count, as those of a scan.

   Example. Of 3,000 questions a second for names, the first 685 pass, in a quarter of a second. Then the debt is that of
   400, it grows with each question, and 50 a second pass. The flood ends: one second later the debt is below that of
   the burst, and all questions pass again.

   One thread, the engine's. `now` is monotonic, in ns. */
#ifndef BULKHEAD_ASKING_H
#define BULKHEAD_ASKING_H

#include <netinet/in.h>

#include "packet/packet.h"

struct run_view;

enum asked { ASKED_NAMES, ASKED_STREAMS, ASKED_LEASES, ASKED_CONNECTIONS, ASKED_KINDS, ASKED_NOTHING = ASKED_KINDS };

struct asking {
    bool enabled;
    uint8_t gateway[MAC_BYTES];
    struct {
        uint64_t due;    /* ns: the moment at which the debt is paid */
        uint64_t passed; /* ns: when the last question passed */
    } kinds[ASKED_KINDS];
};

/* May frames to this address ask the gateway? It hears broadcasts, too. */
static inline bool asking_concerns(const struct asking *asking, const uint8_t *dst)
{
    return asking->enabled && (memcmp(dst, asking->gateway, MAC_BYTES) == 0 || (dst[0] & 1u) != 0);
}

/* Whether a frame has to be read. False for a segment of a connection that is there. */
static inline bool asking_possible(const uint8_t *frame, uint32_t bytes)
{
    const uint8_t *ip = frame + ETHERTYPE_AT + 2;
    uint32_t type = load_be16(frame + ETHERTYPE_AT);
    if (type == ETHERTYPE_IPV4 && bytes >= ETHERTYPE_AT + 2 + IPV4_LEAST + TCP_LEAST && ip[0] == 0x45
        && ip[IPV4_PROTOCOL] == IPPROTO_TCP)
        return (ip[IPV4_LEAST + TCP_FLAGS] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    if (type == ETHERTYPE_IPV6 && bytes >= ETHERTYPE_AT + 2 + IPV6_BYTES + TCP_LEAST && ip[IPV6_NEXT] == IPPROTO_TCP)
        return (ip[IPV6_BYTES + TCP_FLAGS] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    return true;
}

/* Charge this frame, which asking_concerns; true: it is beyond the limit, and to be dropped. */
bool asking_refuses(struct asking *asking, const uint8_t *frame, uint32_t bytes, uint64_t now);

/* Is so much owed for connections that answers have to be looked for? */
static inline bool asking_awaits(const struct asking *asking, uint64_t now)
{
    return asking->kinds[ASKED_CONNECTIONS].due > now + NS_PER_S / 2;
}

/* How many frames of these runs are the gateway's answers to first segments. */
uint32_t asking_answers(const struct asking *asking, const struct run_view *views, unsigned count);

void asking_answered(struct asking *asking, uint32_t answers);

#endif
