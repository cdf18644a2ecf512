/* Pipes of the relay, lent to directions of connections while they have bytes under way.

   Theory of operation. splice(2) moves bytes between a socket and a pipe without copying them. A direction borrows a
   pipe when it fills it and returns it when it is empty, so an idle connection has none. Empty ones are kept for the
   next borrower, up to PIPE_POOL_KEPT, since making one costs as much as moving its bytes. One with bytes in it (its
   connection has ended) is closed.

   Example: 200 connections take turns with short requests: one pipe serves all of them. Single-threaded. */
#ifndef BULKHEAD_PIPE_POOL_H
#define BULKHEAD_PIPE_POOL_H

#include "common.h"

/* By measurement, loopback TCP through one relay process that competes for two cores: 64 KiB 9.4 Gbit/s, 128 KiB 12.7,
   256 KiB 13.4 and 12.5, 512 KiB 15.6, 1 MiB 13.0. Beyond 256 KiB it is noise, and a user without privileges may have
   64 MiB of pipes before new ones shrink. */
#define PIPE_BYTES (256u << 10)
#define PIPE_POOL_KEPT 32u /* empty ones: more than are filled at a time, unless readers stall */

struct pipe_ends {
    int out, into; /* -1: none */
    uint32_t held; /* bytes in it */
};

struct pipe_pool {
    struct pipe_ends kept[PIPE_POOL_KEPT];
    uint32_t kept_count, lent;
};

/* -1 with errno. */
int pipe_pool_borrow(struct pipe_pool *pool, struct pipe_ends *ends);

/* `ends` has none afterwards; nothing happens if it has none before. */
void pipe_pool_give_back(struct pipe_pool *pool, struct pipe_ends *ends);

void pipe_pool_close(struct pipe_pool *pool);

#endif
