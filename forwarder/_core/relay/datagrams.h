/* Carry datagrams in batches along the ways of the flow cache: from guests' frames to sockets, from sockets to the
   TUN device, and from socket to socket.

   Theory of operation. One call reads up to DATAGRAM_BATCH messages with one system call. Messages with a way in the
   cache (flow_cache.h) are sent at once; the caller gets all others unchanged. Successive datagrams of one way and
   one size leave with one system call: with UDP_SEGMENT through a socket, as a GSO packet with virtio_net_hdr through
   the TUN device. A socket with UDP_GRO gives several datagrams as one message. If the path of a socket does not
   accept segments (its MTU is too small), the cache remembers that, and the socket gets one datagram at a time.

   No datagram is carried twice and none waits: if a socket or the TUN device does not accept one, it is counted as
   dropped. If a socket *refuses* a guest's datagram, the caller gets it and sends the guest the reason.

   The first segment of a connection is left to the caller, too, with its addresses already found (`syn`).

   Frames to shed cost as little as possible: the caller names the Ethernet sources whose SYNs, or whose packets with
   a source outside the LAN, it has just refused. For a while those are only counted here.

   Example: 32 frames are read. 30 are datagrams of 1,200 bytes of one flow: two calls carry them (a call carries at
   most 65,000 bytes). One is a SYN of a guest that scans ports: counted. One is a new flow: left to the caller.
   Single-threaded; `now` is monotonic, in ns. */
#ifndef BULKHEAD_DATAGRAMS_H
#define BULKHEAD_DATAGRAMS_H

#include "relay/departing.h"

#define DATAGRAM_BATCH 32u
#define DATAGRAM_BYTES 65664u /* the longest IP packet, behind Ethernet's header and virtio's */
#define SHED_SLOTS 256u

enum shed { SHED_SYN, SHED_FORGED, SHED_KINDS };

struct shed_slot {
    uint8_t mac[MAC_BYTES];
    uint64_t until[SHED_KINDS];
};

struct lan {
    uint8_t network[4], mask[4], prefix[8];
};

struct datagrams {
    struct outlet outlet;
    struct lan lan;
    uint8_t *bytes; /* DATAGRAM_BATCH times DATAGRAM_BYTES */
    struct message messages[DATAGRAM_BATCH];
    uint32_t count;
    uint32_t carried; /* messages that the last call carried */
    uint64_t shed[SHED_KINDS];
    struct shed_slot slots[SHED_SLOTS];
};

/* -1 with errno. The caller owns the TUN device, and names it later (in `outlet`). */
int datagrams_open(struct datagrams *datagrams, const struct lan *lan);
void datagrams_close(struct datagrams *datagrams);

/* Read frames of a packet socket; `messages` are whole frames then. Returns the number of messages, or -1 with errno
   (EAGAIN). */
int datagrams_from_guests(struct datagrams *datagrams, int packet_socket, uint64_t now);

/* Read datagrams of a socket; returns the same. `by_port`: each port of a peer has its own way, as clients of a
   forward have; without it a peer has one way for all its ports, as answers to a guest have. */
int datagrams_from_socket(struct datagrams *datagrams, int fd, bool by_port, uint64_t now);

/* Until then, only count frames of one kind from an Ethernet source. */
void datagrams_shed(struct datagrams *datagrams, const uint8_t *mac, enum shed kind, uint64_t until);

#endif
