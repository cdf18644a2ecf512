/* The guard of a port: drops frames that only the gateway or another VM may send.

   Theory of operation. The sender's worker checks each frame before it goes anywhere, so a forgery costs only its
   sender. claim.h reads a frame's claim. The table here holds the port of each owned address, sorted, as the
   supervisor sends it: the gateway's own, the host alias's and leased ones. Any VM may use an address that no port
   owns, so VMs with addresses of their own choice work. A link address inside a message is refused if it is pinned to
   another port.

   PAUSE and frames of group addresses (IEEE 802.1D 7.7, 802.1Q 8.6) are refused for all, guarded or not. LLDP, LACP and
   STP pass: network labs need them.

   One thread, the engine's. The table is this engine's own, and freed by guard_close. The first refusal of each kind is
   noted for the log (`news`); after that there is the counter. */
#ifndef BULKHEAD_GUARD_H
#define BULKHEAD_GUARD_H

#include "packet/claim.h"
#include "shared/fdb.h"

enum guard_kind {
    GUARD_GROUP,
    GUARD_PAUSE,
    GUARD_ROUTER,
    GUARD_SERVER,
    GUARD_ADDRESS,
    GUARD_HIDDEN,
    GUARD_SOURCES,
    GUARD_KINDS
};

extern const char *const guard_kind_names[GUARD_KINDS];

struct guard_owner {
    uint8_t address[ADDRESS_BYTES];
    uint32_t port;
};

/* Addresses of all ports: the leases of a thousand ports, and the gateway's own. */
#define GUARD_MOST_OWNERS 8192u

struct guard_note {
    bool noted; /* once, for good */
    bool told;
    uint8_t source[MAC_BYTES];
    uint8_t address[ADDRESS_BYTES]; /* GUARD_ADDRESS; zero: only the link address is another port's */
};

struct guard {
    bool enabled;
    bool news;
    uint32_t count;
    struct guard_owner *owners; /* sorted by address */
    struct guard_note notes[GUARD_KINDS];
};

/* Replace the owners: `owners` comes from malloc, in any order; the guard frees it. */
void guard_set_owners(struct guard *guard, struct guard_owner *owners, uint32_t count);
void guard_close(struct guard *guard);

/* Is this frame of `port`'s VM to be refused? Call it if claim_possible returns true. */
bool guard_refuses(struct guard *guard, uint32_t port, const struct fdb *fdb, const uint8_t *frame, uint32_t bytes);

/* Note for the log that the gateway does not hear this address (sources.h). */
void guard_note_source(struct guard *guard, const uint8_t *src, const uint8_t *address);

/* The same for the addresses alone, which all frames of a run share. */
bool guard_refuses_addresses(struct guard *guard, const uint8_t *dst, const uint8_t *src);

#endif
