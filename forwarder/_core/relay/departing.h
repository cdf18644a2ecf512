/* Send datagrams of one way and one size with one system call (datagrams.h has the theory). */
#ifndef BULKHEAD_DEPARTING_H
#define BULKHEAD_DEPARTING_H

#include <sys/uio.h>

#include "relay/flow_cache.h"

#define DEPARTING_MOST 64u      /* UDP_MAX_SEGMENTS of older kernels */
#define DEPARTING_BYTES 65000u  /* the longest IP packet, with room for headers */
#define CONTROL_BYTES 128u

/* The exits of datagrams: sockets, which the cache knows, and the TUN device. */
struct outlet {
    struct flow_cache cache;
    int tun; /* -1: there is none yet */
    uint32_t mtu; /* of the LAN behind it */
    uint16_t ident;
    uint64_t dropped; /* datagrams that were not accepted since the last question */
};

/* One message of a batch. */
struct message {
    uint8_t *data;
    uint32_t bytes;
    uint32_t segment; /* bytes of each datagram in it; 0: it is one datagram */
    union flow_address peer;
    uint32_t local_bytes;
    uint8_t local[16];
    bool left; /* to the caller */
    const uint8_t *syn; /* of a frame: its packet, if that is the first segment of a connection; else NULL */
    uint32_t syn_bytes;
};

struct departing {
    const struct flow_way *way; /* NULL: none */
    uint32_t port;              /* the destination, for a way without one */
    uint32_t segment, bytes, count;
    bool full;
    uint32_t peer_port; /* the source port, on the TUN device */
    struct iovec parts[1 + DEPARTING_MOST]; /* the first is for headers */
    struct message *of[DEPARTING_MOST];     /* each part's message */
};

/* Add the datagrams of a message; sends the batch first if they do not fit. `data` is the payload of UDP. */
void departing_add(struct departing *departing, struct outlet *outlet, const struct flow_way *way, uint32_t port,
                   struct message *message, uint8_t *data, uint32_t bytes, uint64_t now);

/* Send the batch. */
void departing_send(struct departing *departing, struct outlet *outlet, uint64_t now);

#endif
