#include "packet/question.h"

#include <netinet/in.h>

#define ARP_OPERATION 6u
#define ARP_REQUEST 1u
#define ARP_REPLY 2u
#define ARP_TARGET 24u
#define VLAN_MASK 0x0fffu

static bool read_arp(struct question *question, const uint8_t *arp, uint32_t bytes)
{
    if (bytes < ARP_BYTES || !arp_is_of_ipv4(arp))
        return false;
    uint32_t operation = load_be16(arp + ARP_OPERATION);
    if (operation != ARP_REQUEST && operation != ARP_REPLY)
        return false;
    address_from_ipv4(question->sender, arp + ARP_SENDER);
    if (operation == ARP_REQUEST)
        address_from_ipv4(question->target, arp + ARP_TARGET);
    else
        memset(question->target, 0, ADDRESS_BYTES);
    return true;
}

static bool read_discovery(struct question *question, const uint8_t *ip, uint32_t bytes)
{
    if (bytes < IPV6_BYTES + ND_TARGET + ADDRESS_BYTES || ip[IPV6_NEXT] != IPPROTO_ICMPV6)
        return false;
    const uint8_t *target = ip + IPV6_BYTES + ND_TARGET;
    if (ip[IPV6_BYTES] == ND_ADVERTISE) {
        memcpy(question->sender, target, ADDRESS_BYTES);
        memset(question->target, 0, ADDRESS_BYTES);
        return true;
    }
    if (ip[IPV6_BYTES] != ND_SOLICIT)
        return false;
    memcpy(question->sender, ip + IPV6_ADDRESSES, ADDRESS_BYTES);
    memcpy(question->target, target, ADDRESS_BYTES);
    return true;
}

bool question_read(struct question *question, const uint8_t *frame, uint32_t bytes)
{
    uint32_t type, at = network_of(frame, bytes, &type);
    if (at == 0)
        return false;
    const uint8_t *payload = frame + at;
    if (!(type == ETHERTYPE_ARP && read_arp(question, payload, bytes - at))
        && !(type == ETHERTYPE_IPV6 && read_discovery(question, payload, bytes - at)))
        return false;
    bool has_tag = at > ETHERTYPE_AT + 2;
    question->vlan = has_tag ? load_be16(frame + ETHERTYPE_AT + 2) & VLAN_MASK : 0;
    return true;
}
