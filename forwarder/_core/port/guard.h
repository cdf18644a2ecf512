/* The guard of a port: what its VM may not say, since the gateway or another VM is who may.

   Theory of operation. The worker of the VM that speaks asks, before a frame goes anywhere, so a forgery costs its
   sender alone. claim.h reads what a frame claims; here is the table of whose addresses are whose, by port, sorted, as
   the supervisor tells it: the gateway's own, the host alias's and those that are leased. An address that nobody has is
   everybody's, so VMs with addresses of their own choice are not in the way. A link address inside of a message is
   refused where it is pinned to another port.

   PAUSE and frames of group addresses (IEEE 802.1D 7.7, 802.1Q 8.6) are refused for all, guarded or not. LLDP, LACP and
   STP pass: network labs need them.

   One thread, the engine's. The table is this engine's own, and freed by guard_close. The first refusal of each kind is
   noted for the log (`guard_news`); after that there is the counter. */
#ifndef BULKHEAD_GUARD_H
#define BULKHEAD_GUARD_H

#include "packet/claim.h"
#include "shared/fdb.h"

enum guard_kind { GUARD_GROUP, GUARD_PAUSE, GUARD_ROUTER, GUARD_SERVER, GUARD_ADDRESS, GUARD_HIDDEN, GUARD_KINDS };

extern const char *const guard_kind_names[GUARD_KINDS];

struct guard_owner {
    uint8_t address[ADDRESS_BYTES];
    uint32_t port;
};

/* Addresses of all ports: what a thousand of them lease, and the gateway's own. */
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

/* Have these owners from now on: `owners` is the guard's, from malloc, in any order. */
void guard_set_owners(struct guard *guard, struct guard_owner *owners, uint32_t count);
void guard_close(struct guard *guard);

/* May the VM of `port` not send this frame? To be asked where claim_possible says so. */
bool guard_refuses(struct guard *guard, uint32_t port, const struct fdb *fdb, const uint8_t *frame, uint32_t bytes);

/* The same of addresses, which a run of frames has in common. */
bool guard_refuses_addresses(struct guard *guard, const uint8_t *dst, const uint8_t *src);

#endif
