/* Connections of two sockets each, joined in the kernel: bytes go through a pipe and are never copied here.

   Theory of operation. Each direction of a connection has its own state: FLOWING, then DRAINING once its source has
   ended, then ENDED, after the sink's shutdown. The connection is over when both have ended. The directions are
   independent, so half-closed connections work. Where both have ended the caller closes the sockets at once, so the
   second shutdown is left out.

   If an end fails (a reset, a time-out), the other one gets a reset, so a stream is never cut silently. But first it
   gets the bytes that the failed end had sent, as with a direct connection: a kernel delivers received bytes before it
   reports a reset. So the bytes are moved, and the caller, who is told SPLICE_LINGERS, asks splices_settle now and then
   until the other end has acknowledged them. Bytes on their way *to* the failed end are lost.

   Urgent data (RFC 6093) is one marked byte. splice(2) stops in front of it. It is read by itself, since the sockets
   keep it in the stream (SO_OOBINLINE), and sent on with its mark.

   A direction needs a pipe only while bytes are in it. It borrows one, fills it from its source and empties it into its
   sink, and returns it when it is empty. So an idle connection needs only its two descriptors. If a sink does not read,
   the direction keeps one pipe, and its source is not read: this back-pressure concerns only this connection. A pipe is
   filled only when it is empty, so EAGAIN means that the source is empty; a full pipe would give the same error.

   The set is edge-triggered: a connection is told once when something has become possible, and remembers it. One turn
   moves at most SPLICE_ROUNDS pipes of a connection in a direction; what has more is gone on with in the next turn.

   Example: a request of 100 bytes arrives at the near end. One event; three system calls (splice in, splice out, splice
   in that says EAGAIN); the pipe goes back. Single-threaded. Descriptors are the caller's, who closes them after the
   connection is over. */
#ifndef BULKHEAD_SPLICES_H
#define BULKHEAD_SPLICES_H

#include "common.h"

#define SPLICE_PIPE_BYTES (256u << 10) /* by measurement: gateway/relay/splice.py */
#define SPLICE_KEPT_PIPES 32u          /* empty ones: more than are filled at a time, unless readers stall */
#define SPLICE_ROUNDS 4u               /* 1 MiB, or 0.5 ms */
#define SPLICE_EVENTS 256u

enum splice_half { SPLICE_FLOWING, SPLICE_DRAINING, SPLICE_ENDED };

struct splice_end {
    int fd;
    bool is_unix; /* has no resets, no urgent data and nothing unacknowledged */
    bool readable, writable, urgent;
    int failed; /* the errno that broke it */
};

struct splice_direction {
    enum splice_half half;
    int out, into; /* of the pipe; -1: none */
    uint32_t held; /* bytes in it */
    bool is_marked;
    uint8_t marked; /* a byte of urgent data, which the sink gets before further bytes */
};

struct splice {
    uint32_t number;
    bool is_open, is_soon;
    struct splice_end ends[2];
    struct splice_direction directions[2]; /* from ends[i] to the other one */
    struct splice *next;                   /* of those that have more to do, or of the free ones */
};

enum splice_news { SPLICE_OVER, SPLICE_LINGERS };

struct splice_report {
    uint32_t number;
    enum splice_news news;
    int error;
};

struct splices {
    int epoll;
    struct splice **all;
    uint32_t count, room;
    struct splice *free, *soon;
    int pipes[SPLICE_KEPT_PIPES][2];
    uint32_t kept, lent;
    struct splice_report *reports; /* of this turn */
    uint32_t report_count, report_room;
};

int splices_open(struct splices *splices);

/* End all connections; what is called afterwards finds none. */
void splices_close(struct splices *splices);

/* Join two connected, non-blocking sockets; the number of the connection, or -1 with errno. */
int64_t splices_join(struct splices *splices, const int *fds, const bool *are_unix);

/* Move what can be moved; `reports` says what has become of connections. -1 with errno: no memory. */
int splices_turn(struct splices *splices);

/* After a failure: end it if the other end has acknowledged all bytes. The errno to end it with; -1: not yet. */
int splices_settle(struct splices *splices, uint32_t number);

/* Forget a connection, before its sockets are closed; one that is over is ignored. */
void splices_end(struct splices *splices, uint32_t number);

static inline bool splices_are_busy(const struct splices *splices)
{
    return splices->soon != NULL;
}

#endif
