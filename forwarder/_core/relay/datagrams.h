/* Datagrams, carried in batches along the ways of the flow cache: from guests' frames to sockets, from sockets to the
   TUN device, and from socket to socket.

   Theory of operation. One call reads up to DATAGRAM_BATCH messages by one system call. Those whose way is in the cache
   (flow_cache.h) go on at once; all others are left to the caller, who gets them as they came. Datagrams of one way
   that follow each other and have one size leave by one system call: UDP_SEGMENT where they leave by a socket, a GSO
   packet of virtio_net_hdr where they leave by the TUN device; and a socket with UDP_GRO gives what came like that as
   one message. A socket whose way does not take segments (its MTU is too small) is remembered, and gets one by one.

   Nothing is carried twice and nothing waits: what a socket or the TUN device does not take is counted as dropped. Only
   what a guest sent and a socket *refused* is left to the caller, who tells the guest why.

   What is to be shed costs as little as possible: the caller names the Ethernet sources whose SYNs, or whose packets
   with a source that is not of the LAN, it has refused just now, and for a while they are only counted here.

   Example: 32 frames are read. 30 are datagrams of 1,200 bytes of one flow: two calls carry them (65,000 bytes are
   one call's most). One is a SYN of a guest that scans ports: counted. One is a new flow: left to the caller.
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
    uint32_t carried; /* of the last call: messages that have gone on */
    uint64_t shed[SHED_KINDS];
    struct shed_slot slots[SHED_SLOTS];
};

/* -1 with errno. The TUN device is the caller's, and is named later (in `outlet`). */
int datagrams_open(struct datagrams *datagrams, const struct lan *lan);
void datagrams_close(struct datagrams *datagrams);

/* Read frames of a packet socket; `messages` are whole frames then. How many were read, or -1 with errno (EAGAIN). */
int datagrams_from_guests(struct datagrams *datagrams, int packet_socket, uint64_t now);

/* Read datagrams of a socket; the same. `by_port`: the ways of its peers' ports differ, as those of clients do; the
   answers to a guest have one way each peer, whatever port they come from. */
int datagrams_from_socket(struct datagrams *datagrams, int fd, bool by_port, uint64_t now);

/* Count what is of one kind and comes from an Ethernet source, until then. */
void datagrams_shed(struct datagrams *datagrams, const uint8_t *mac, enum shed kind, uint64_t until);

#endif
