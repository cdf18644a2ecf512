/* One direction of a connection of two sockets: bytes go from its source to its sink.

   Theory of operation. A direction is FLOWING, then DRAINING once its source has ended, then ENDED, when its sink was
   told. The directions of a connection are independent, so half-closed connections work.

   Short messages are copied through a buffer: receive, send. Where a read fills the buffer, bytes are spliced through a
   pipe (pipe_pool.h) until one of these is short again. What a sink does not take of a copied message waits in a pipe,
   too. If a sink does not read, the direction keeps one pipe, and its source is not read: this back-pressure concerns
   only this connection. A pipe is filled only when it is empty, so EAGAIN means that the source is empty; a full pipe
   would give the same error.

   A short read of a TCP socket has emptied it (epoll(7)): it is not asked again, unless its end is known to have come.

   Urgent data (RFC 6093) is one marked byte. splice(2) stops in front of it. It is read by itself, since the sockets
   keep it in the stream (SO_OOBINLINE), and sent on with its mark.

   Example: a request of 100 bytes: recv, send. A file: recv of 8 KiB and send, then two splices for each 256 KiB.
   Single-threaded. */
#ifndef BULKHEAD_DIRECTION_H
#define BULKHEAD_DIRECTION_H

#include "relay/pipe_pool.h"
#include "relay/window.h"

#define DIRECTION_COPIED 8192u /* most bytes of a short message; a copy of 8 KiB costs as much as a system call */
#define DIRECTION_ROUNDS 4u    /* 1 MiB, or 0.5 ms */

struct splice_end {
    int fd;
    bool is_unix;  /* has no resets, no urgent data and nothing unacknowledged */
    bool is_watched;
    bool readable, writable, urgent;
    bool has_ended; /* its peer sends no more; bytes may still be there */
    int failed;     /* the errno that broke it */
    struct window window; /* of what is read from it */
};

enum direction_half { DIRECTION_FLOWING, DIRECTION_DRAINING, DIRECTION_ENDED };

struct direction {
    enum direction_half half;
    struct pipe_ends pipe;
    bool is_bulk; /* the last read filled what it was given */
    bool is_marked;
    uint8_t marked; /* a byte of urgent data, which the sink gets before further bytes */
};

/* MOVED: all that there was; MORE: go on in the next turn; else what is wrong, with errno. */
enum outcome { MOVED, MORE, SOURCE_FAILED, SINK_FAILED, NO_PIPE };

/* Move bytes, a fair share at most. `is_last`: the other direction has ended, so the caller closes both sockets when
   this one ends, and the sink is not told before. */
enum outcome direction_move(struct direction *direction, struct pipe_pool *pool, struct splice_end *source,
                            struct splice_end *sink, bool is_last);

#endif
