#include "relay/flow_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

int flow_cache_open(struct flow_cache *cache)
{
    memset(cache, 0, sizeof *cache);
    if (getentropy(cache->secret, sizeof cache->secret) < 0)
        return -1;
    cache->entries = calloc((size_t)FLOW_SETS * FLOW_WAYS, sizeof *cache->entries);
    return cache->entries == NULL ? -1 : 0;
}

void flow_cache_close(struct flow_cache *cache)
{
    free(cache->entries);
    free(cache->sockets);
    memset(cache, 0, sizeof *cache);
}

int flow_socket_open(struct flow_cache *cache, int fd)
{
    if (fd < 0 || (uint32_t)fd >= FLOW_MOST_SOCKETS) {
        errno = EBADF;
        return -1;
    }
    if ((uint32_t)fd >= cache->socket_count) {
        uint32_t count = cache->socket_count ? cache->socket_count : 256;
        while (count <= (uint32_t)fd)
            count *= 2;
        struct flow_socket *sockets = realloc(cache->sockets, count * sizeof *sockets);
        if (sockets == NULL)
            return -1;
        memset(sockets + cache->socket_count, 0, (count - cache->socket_count) * sizeof *sockets);
        cache->sockets = sockets;
        cache->socket_count = count;
    }
    cache->sockets[fd] = (struct flow_socket){.ticket = ++cache->last_ticket};
    return 0;
}

void flow_socket_close(struct flow_cache *cache, int fd)
{
    struct flow_socket *known = flow_socket_of(cache, fd);
    if (known != NULL)
        known->ticket = 0;
}

struct flow_socket *flow_socket_of(struct flow_cache *cache, int fd)
{
    if (fd < 0 || (uint32_t)fd >= cache->socket_count || cache->sockets[fd].ticket == 0)
        return NULL;
    return &cache->sockets[fd];
}

/* The ticket of a socket; 0: it is not open. A descriptor that is not a socket of ours (a packet socket, the TUN
   device) always has the same ticket. */
static uint64_t ticket_of(struct flow_cache *cache, int fd)
{
    if (fd < 0)
        return UINT64_MAX;
    const struct flow_socket *known = flow_socket_of(cache, fd);
    return known == NULL ? 0 : known->ticket;
}

/* A keyed hash that costs a few ns: multiply and fold, word by word, like wyhash. */
static uint32_t hash_of(const struct flow_cache *cache, const struct flow_key *key)
{
    uint64_t hash = cache->secret[0];
    for (uint32_t at = 0; at < FLOW_KEY_BYTES; at += 4) {
        uint32_t word;
        memcpy(&word, key->bytes + at, sizeof word);
        unsigned __int128 product = (unsigned __int128)(hash ^ word) * (cache->secret[1] | 1u);
        hash = (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    return (uint32_t)(hash >> 32);
}

static struct flow_entry *set_of(struct flow_cache *cache, const struct flow_key *key)
{
    return cache->entries + (size_t)(hash_of(cache, key) % FLOW_SETS) * FLOW_WAYS;
}

const struct flow_way *flow_cache_find(struct flow_cache *cache, const struct flow_key *key, int in, uint64_t now)
{
    struct flow_entry *set = set_of(cache, key);
    for (uint32_t i = 0; i < FLOW_WAYS; i++) {
        struct flow_entry *entry = &set[i];
        if (entry->out_ticket == 0 || memcmp(&entry->key, key, sizeof *key) != 0)
            continue;
        if (now - entry->entered >= FLOW_LIFE_NS || entry->in_ticket != ticket_of(cache, in)
            || entry->out_ticket != ticket_of(cache, entry->way.fd)) {
            entry->out_ticket = 0;
            return NULL;
        }
        entry->used = now;
        return &entry->way;
    }
    return NULL;
}

void flow_cache_enter(struct flow_cache *cache, const struct flow_key *key, int in, const struct flow_way *way,
                      uint64_t now)
{
    uint64_t in_ticket = ticket_of(cache, in), out_ticket = ticket_of(cache, way->fd);
    if (in_ticket == 0 || out_ticket == 0)
        return;
    struct flow_entry *set = set_of(cache, key), *place = set;
    for (uint32_t i = 0; i < FLOW_WAYS; i++) {
        struct flow_entry *entry = &set[i];
        if (entry->out_ticket != 0 && memcmp(&entry->key, key, sizeof *key) == 0) {
            place = entry;
            break;
        }
        if (place->out_ticket != 0 && (entry->out_ticket == 0 || entry->used < place->used))
            place = entry;
    }
    *place = (struct flow_entry){.key = *key, .in_ticket = in_ticket, .out_ticket = out_ticket,
                                 .entered = now, .used = now, .way = *way};
}

struct flow_key flow_key_of_guest(uint32_t version, const uint8_t *mac, const uint8_t *source,
                                  const uint8_t *destination, uint32_t port, uint32_t hops, bool keep)
{
    uint32_t bytes = version == 4 ? 4 : 16;
    struct flow_key key = {{version == 4 ? FLOW_FROM_GUEST4 : FLOW_FROM_GUEST6, (uint8_t)hops, keep}};
    memcpy(key.bytes + 4, mac, MAC_BYTES);
    memcpy(key.bytes + 10, source, bytes);
    memcpy(key.bytes + 26, destination, bytes);
    store_be16(key.bytes + 42, port);
    return key;
}

struct flow_key flow_key_of_socket(int fd, const uint8_t *peer, uint32_t peer_bytes, uint32_t port,
                                   const uint8_t *local, uint32_t local_bytes)
{
    struct flow_key key = {{FLOW_FROM_SOCKET, (uint8_t)peer_bytes}};
    store_be32(key.bytes + 4, (uint32_t)fd);
    memcpy(key.bytes + 8, peer, peer_bytes);
    store_be16(key.bytes + 24, port);
    memcpy(key.bytes + 26, local, local_bytes);
    return key;
}
