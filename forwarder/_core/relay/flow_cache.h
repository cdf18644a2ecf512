/* The exact-match cache of datagrams' ways: it keeps a decision of the relay (Python) about a flow, so that later
   datagrams of the flow are carried in batches without the relay.

   Theory of operation. A key is the origin of a datagram: a guest's Ethernet source, addresses, port, hops and "don't
   fragment", or a socket and its peer. Its way is the destination: a socket and an address, or the TUN device and the
   new headers. If a datagram has no way here, the relay judges it and then enters the way.

   It is a cache and not a table: SETS sets of WAYS entries each. A new entry replaces the least recently used entry
   of its set. So a guest that makes thousands of flows costs others only a decision by Python now and then, and the
   cache needs no other bound. The hash is keyed with a secret, so a guest cannot choose the set of its flows.

   Numbers of sockets are used again. Each open socket has a unique ticket. An entry has the tickets of its two
   sockets, and is void as soon as one of them has changed. So closing a socket is one store, however many entries
   name it. An entry is also void after LIFE_NS, because the reasons of its decision may have changed.

   Example: a guest sends ten datagrams to a resolver. The first makes a flow, the second enters its way, and the
   cache sends the other eight; the relay only learns when the flow was last used. Single-threaded. */
#ifndef BULKHEAD_FLOW_CACHE_H
#define BULKHEAD_FLOW_CACHE_H

#include <netinet/in.h>

#include "common.h"

#define FLOW_SETS 1024u
#define FLOW_WAYS 4u
#define FLOW_KEY_BYTES 44u
#define FLOW_LIFE_NS (10 * NS_PER_S)
#define FLOW_MOST_SOCKETS (1u << 20) /* descriptors that a process may have: fs.nr_open */

enum flow_kind { FLOW_FROM_GUEST4 = 1, FLOW_FROM_GUEST6, FLOW_FROM_SOCKET };

struct flow_key {
    uint8_t bytes[FLOW_KEY_BYTES];
};

union flow_address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};

struct flow_way {
    int fd;                      /* of the socket; -1: the TUN device */
    socklen_t address_bytes;     /* 0: the socket is connected */
    union flow_address address;  /* for a guest's datagram, the port is the datagram's own */
    uint32_t local_bytes;        /* 0, 4 or 16: length of the source address to send from */
    uint8_t local[16];
    uint32_t version;            /* hop limit of IP, on the TUN device */
    uint8_t source[16], guest[16];
    uint32_t guest_port;
};

struct flow_entry {
    struct flow_key key;
    uint64_t in_ticket, out_ticket; /* out 0: the entry is free */
    uint64_t entered, used;         /* monotonic ns */
    struct flow_way way;
};

struct flow_socket {
    uint64_t ticket; /* 0: not open */
    uint64_t used;   /* time of its last datagram, monotonic ns */
    bool no_segments; /* its path does not accept several datagrams at once */
};

struct flow_cache {
    uint64_t secret[2];
    uint64_t last_ticket;
    struct flow_socket *sockets;
    uint32_t socket_count;
    struct flow_entry *entries; /* FLOW_SETS * FLOW_WAYS */
};

/* -1 with errno: no memory, or no randomness. */
int flow_cache_open(struct flow_cache *cache);
void flow_cache_close(struct flow_cache *cache);

/* Give a socket a new ticket; returns -1 with errno. */
int flow_socket_open(struct flow_cache *cache, int fd);
void flow_socket_close(struct flow_cache *cache, int fd);

/* Return the socket; NULL: it is not open. */
struct flow_socket *flow_socket_of(struct flow_cache *cache, int fd);

/* Return the way of a datagram; NULL: the relay has to decide. `in` is its socket, or -1. */
const struct flow_way *flow_cache_find(struct flow_cache *cache, const struct flow_key *key, int in, uint64_t now);

/* Enter a way; ignored if one of its sockets is not open. */
void flow_cache_enter(struct flow_cache *cache, const struct flow_key *key, int in, const struct flow_way *way,
                      uint64_t now);

struct flow_key flow_key_of_guest(uint32_t version, const uint8_t *mac, const uint8_t *source,
                                  const uint8_t *destination, uint32_t port, uint32_t hops, bool keep);
struct flow_key flow_key_of_socket(int fd, const uint8_t *peer, uint32_t peer_bytes, uint32_t port,
                                   const uint8_t *local, uint32_t local_bytes);

#endif
