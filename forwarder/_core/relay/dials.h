/* Connections before they are joined: clients are accepted, far ends dialled, and near ends come.

   Theory of operation. The caller decides which connections are allowed, and calls these one after the other:

   - dials_accept takes connections of a listener, with the addresses by which the caller knows what they are for;
   - splices_begin makes a connection;
   - dials_connect makes its far socket, or uses one that the caller has, sets options before there is a connection (a
     socket that begins to pace does so for good) and connects;
   - dials_join gives an answered connection the near end that it has waited for.

   A connection within one machine has its answer when connect(2) returns, though it says EINPROGRESS for a socket that
   does not block: a second call tells. Every other answer comes as a report (splices.h).

   Example: a guest's SYN to the host. splices_begin, dials_connect: answered. The caller lets the SYN in; the guest's
   kernel completes the handshake; dials_accept has it with both addresses; dials_join. Seven system calls and the
   options. Single-threaded. */
#ifndef BULKHEAD_DIALS_H
#define BULKHEAD_DIALS_H

#include "relay/splices.h"

#include <netinet/in.h>

#define DIAL_OPTION_BYTES 16u
#define DIAL_ACCEPTED 64u /* connections in one call */

/* An option of a socket, as setsockopt(2) takes it. */
struct dial_option {
    int32_t level, name;
    uint32_t bytes;
    uint8_t value[DIAL_OPTION_BYTES];
};

struct dial_target {
    uint8_t address[16];
    uint32_t address_bytes; /* 4 or 16 */
    uint16_t port;
    bool is_here; /* of this host: it answers at once */
};

union dial_address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};

struct dial_client {
    int fd;
    union dial_address peer, own; /* `own` where it was asked for */
};

/* Accept up to DIAL_ACCEPTED clients, whose sockets do not block; their number. -1 with errno: none, for lack of
   descriptors or memory. */
int dials_accept(int listener, bool with_own, struct dial_client *clients);

/* Dial the far end of a begun connection from `fd`, a socket of the caller's, which belongs to the set then, or from a
   new one (-1). 0: it has answered; else an errno: EINPROGRESS, or why it failed: then end the connection. An option
   that the kernel does not have is left out. */
int dials_connect(struct splices *splices, uint32_t number, int fd, const struct dial_target *target,
                  const struct dial_option *options, uint32_t count);

/* Give an answered connection its near end, which belongs to the set then. -1 with errno: end the connection. */
int dials_join(struct splices *splices, uint32_t number, int near);

#endif
