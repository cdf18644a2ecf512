#include "port/sources.h"

#include <stdlib.h>

#include "packet/packet.h"

static const uint8_t none[ADDRESS_BYTES];

struct sources *sources_open(uint64_t secret)
{
    struct sources *sources = calloc(1, sizeof *sources);
    if (sources != NULL) {
        sources->secret = secret;
        sources->fresh = 1;
    }
    return sources;
}

enum reading { READ_NONE, READ_ADDRESS, READ_HIDDEN };

static enum reading read_address(const uint8_t *frame, uint32_t bytes, uint8_t *address)
{
    uint32_t type = 0, at = network_of(frame, bytes, &type);
    if (at == 0)
        return READ_HIDDEN;
    if (type == ETHERTYPE_IPV4 && at + IPV4_LEAST <= bytes)
        return address_from_ipv4(address, frame + at + IPV4_ADDRESSES) ? READ_ADDRESS : READ_NONE;
    if (type == ETHERTYPE_ARP && at + ARP_BYTES <= bytes)
        return address_from_ipv4(address, frame + at + ARP_SENDER) ? READ_ADDRESS : READ_NONE;
    if (type != ETHERTYPE_IPV6 || at + IPV6_BYTES > bytes)
        return READ_NONE;
    memcpy(address, frame + at + IPV6_ADDRESSES, ADDRESS_BYTES);
    return memcmp(address, none, ADDRESS_BYTES) != 0 ? READ_ADDRESS : READ_NONE;
}

static bool is_at(const struct source *source, uint32_t port, const uint8_t *address)
{
    return source->port == port && memcmp(source->address, address, ADDRESS_BYTES) == 0;
}

static uint16_t *head_of(struct sources *sources, uint32_t port, const uint8_t *address)
{
    uint64_t words[2], hash = sources->secret ^ port;
    memcpy(words, address, sizeof words);
    for (unsigned i = 0; i < 2; i++) {
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ull;
        hash = ((hash ^ hash >> 32) + sources->secret) * 0xd6e8feb86659fd93ull;
    }
    return &sources->heads[(hash >> 40) % SOURCES_HEADS];
}

static uint16_t find(struct sources *sources, uint32_t port, const uint8_t *address)
{
    uint16_t place = *head_of(sources, port, address);
    while (place != 0 && !is_at(&sources->at[place], port, address))
        place = sources->at[place].next;
    return place;
}

static void release(struct sources *sources, uint16_t place)
{
    struct source *source = &sources->at[place];
    uint16_t *link = head_of(sources, source->port, source->address);
    while (*link != place)
        link = &sources->at[*link].next;
    *link = source->next;
    if (sources->ports[source->port].count-- > SOURCES_OWN)
        sources->shared--;
    source->port = 0;
    source->next = sources->free;
    sources->free = place;
}

/* The least recently used address of the port that has most: `port` itself if no other has more. */
static uint16_t choose(const struct sources *sources, uint32_t port)
{
    uint32_t most = port;
    uint16_t oldest = 0;
    for (uint32_t i = 1; i < MAX_PORTS; i++)
        if (sources->ports[i].count > sources->ports[most].count)
            most = i;
    for (uint32_t i = 1; i < sources->fresh; i++)
        if (sources->at[i].port == most && (oldest == 0 || sources->at[i].used < sources->at[oldest].used))
            oldest = (uint16_t)i;
    return oldest;
}

static uint16_t take_place(struct sources *sources)
{
    uint16_t place = sources->free;
    if (place == 0)
        return (uint16_t)sources->fresh++;
    sources->free = sources->at[place].next;
    return place;
}

static bool is_in_time(uint64_t *due, uint64_t now)
{
    const uint64_t each = NS_PER_S / SOURCES_PER_S;
    if (*due > now + (SOURCES_BURST - 1) * each)
        return false;
    *due = (*due > now ? *due : now) + each;
    return true;
}

/* Give a new address a place; 0: it comes too soon. */
static uint16_t add(struct sources *sources, uint32_t port, const uint8_t *address, uint64_t now)
{
    bool beyond_own = sources->ports[port].count >= SOURCES_OWN;
    if (beyond_own && !is_in_time(&sources->ports[port].due, now))
        return 0;
    if (beyond_own && sources->shared == SOURCES_SHARED)
        release(sources, choose(sources, port));
    uint16_t place = take_place(sources), *head = head_of(sources, port, address);
    struct source *source = &sources->at[place];
    *source = (struct source){.port = (uint16_t)port, .next = *head};
    memcpy(source->address, address, ADDRESS_BYTES);
    *head = place;
    if (++sources->ports[port].count > SOURCES_OWN)
        sources->shared++;
    return place;
}

bool sources_hear(struct sources *sources, uint32_t port, const uint8_t *frame, uint32_t bytes, uint64_t now,
                  uint8_t *address)
{
    memcpy(address, none, ADDRESS_BYTES);
    enum reading reading = read_address(frame, bytes, address);
    if (reading != READ_ADDRESS)
        return reading == READ_NONE;
    uint16_t *last = &sources->ports[port].last;
    if (UNLIKELY(!is_at(&sources->at[*last], port, address))) {
        uint16_t place = find(sources, port, address);
        if (place == 0)
            place = add(sources, port, address, now);
        if (place == 0)
            return false;
        *last = place;
    }
    sources->at[*last].used = now;
    return true;
}

void sources_forget(struct sources *sources, uint32_t port)
{
    for (uint32_t i = 1; i < sources->fresh; i++)
        if (sources->at[i].port == port)
            release(sources, (uint16_t)i);
}
