/* The IP addresses that each port shows to the gateway: the share of each port in the kernel's table of neighbours.

   Theory of operation. Each address that sends to the gateway becomes a neighbour of its kernel, and that table is one
   for all network namespaces of the machine: 1,024 places for each IP version (gc_thresh3, arp(7)). A kernel that finds
   it full forgets neighbours that have not changed for 5 s. So the worker of the gateway's port passes on only frames
   from the addresses in the table here, and a new address gets a place by these rules:

     own        SOURCES_OWN addresses of each port always have a place, at once
     rate       beyond these a port has SOURCES_PER_S new addresses a second, and SOURCES_BURST at one moment
     shared     all ports together have SOURCES_SHARED places beyond their own; if these are used up, the least recently
                used address of the port that has most makes room

   The port is the one whose ring the frame came from, whatever MAC addresses its VM invents, and whatever its worker
   believes. Frames without an IP address pass: DHCP, duplicate address detection, other protocols.

   Example. A VM sends from 1,000 addresses with 30 MAC addresses: 36 are heard at once and 2 more each second, up to 516.
   Then each new one takes the place of the one that was silent for longest. Another VM's first address has its place at
   once. A VM that leaves and comes back has its own four again, and what it owes of its rate.

   Calls. From the engine's thread. sources_open makes the table, free() frees it. `now` is monotonic, in ns. */
#ifndef BULKHEAD_SOURCES_H
#define BULKHEAD_SOURCES_H

#include "common.h"
#include "packet/claim.h"

#define SOURCES_PER_S 2u
#define SOURCES_BURST 32u
#define SOURCES_OWN 4u      /* IPv4, link-local, and two more of IPv6 */
#define SOURCES_SHARED 512u /* half of the kernel's table; the host has neighbours, too */
#define SOURCES_MOST (MAX_PORTS * SOURCES_OWN + SOURCES_SHARED)
#define SOURCES_HEADS 4096u

struct source {
    uint8_t address[ADDRESS_BYTES]; /* IPv4 is ::ffff:a.b.c.d */
    uint64_t used;                  /* ns */
    uint16_t port;                  /* 0: free */
    uint16_t next;                  /* in its list, or of the free ones; 0: the last */
};

struct sources {
    uint64_t secret;              /* so that no guest aims at one list */
    uint16_t heads[SOURCES_HEADS];
    uint16_t free;
    uint32_t fresh;               /* places from here on were never used */
    uint32_t shared;              /* places that ports have beyond their own */
    struct {
        uint64_t due;             /* ns: when the next address is due at the plain rate */
        uint16_t count;
        uint16_t last;            /* the place of the address that was heard last */
    } ports[MAX_PORTS];
    struct source at[SOURCES_MOST + 1]; /* place 0 is none */
};

/* NULL with errno. */
struct sources *sources_open(uint64_t secret);

/* May the gateway hear this frame of `port`'s VM? If not, `address` is the one beyond the share; zero: none could be read. */
bool sources_hear(struct sources *sources, uint32_t port, const uint8_t *frame, uint32_t bytes, uint64_t now,
                  uint8_t *address);

/* The VM of that port has left. Its neighbours live on for a while, so its rate is not forgotten. */
void sources_forget(struct sources *sources, uint32_t port);

#endif
