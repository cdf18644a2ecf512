/* Connections of two sockets each, from the dial to the end: joined here, so that no byte passes Python.

   Theory of operation. A connection has a number from `splices_begin` on. Its near end is there from the beginning (a
   client of the host) or comes later (a guest, which is let in when the far side has answered); its far end is dialled
   (dials.h). When both are connected they are *joined*: each direction moves bytes by itself (direction.h). The
   connection is over when both directions have ended.

       BEGUN ──far answers, near is there──► JOINED ──both directions have ended──► FREE
         └──far answers──► ANSWERED ──near comes──┘
       BEGUN ──an end fails──► DEAD ──splices_end──► FREE        splices_end ends every stage

   If an end of a joined connection fails (a reset, a time-out), the other one gets a reset, so a stream is never cut
   silently. But first it gets the bytes that the failed end had sent, as with a direct connection: a kernel delivers
   received bytes before it reports a reset. So the bytes are moved, and SPLICE_NEWS_LINGERS is reported. The caller
   asks splices_settle now and then until the other end has acknowledged them. Bytes on their way *to* the failed end
   are lost.

   This file has the set of connections; splice_turn.h moves their bytes and reports what has become of them.

   A number is used again only in the turn after its connection was over, and an event carries the generation of the
   number's use, so a report or an event never reaches a later connection.

   Single-threaded. The sockets belong to the set, which closes them. */
#ifndef BULKHEAD_SPLICES_H
#define BULKHEAD_SPLICES_H

#include "relay/direction.h"

#define SPLICE_EVENTS 256u
#define SPLICE_WATCHED 32u /* bits of the caller's descriptors */
#define SPLICE_BULKY 4u    /* with their events, and again from the queue: 8 times 1 MiB each way, some 8 ms */
/* At most four of an event that moves a connection, and three of each connection from the queue. */
#define SPLICE_REPORTS (7u * SPLICE_EVENTS)

enum splice_stage { SPLICE_FREE, SPLICE_BEGUN, SPLICE_ANSWERED, SPLICE_DEAD, SPLICE_JOINED };

struct splice {
    uint32_t number, generation;
    enum splice_stage stage;
    bool is_soon;
    uint32_t guest; /* which end is the guest's: near if the caller dials for a guest, else far */
    struct splice_end ends[2];     /* near, far */
    struct direction directions[2]; /* from ends[i] to the other one */
    struct splice *next;           /* of those that have something to move, or of the free ones */
};

enum splice_news {
    SPLICE_NEWS_ANSWERED, /* the far end has answered, and the near end is still to come */
    SPLICE_NEWS_JOINED,   /* the far end has answered, and both are joined */
    SPLICE_NEWS_FAILED,   /* the dial has failed, or the near end has before the answer */
    SPLICE_NEWS_OVER,     /* a joined connection is over */
    SPLICE_NEWS_LINGERS   /* an end of a joined connection has failed, and the other one has bytes to take */
};

struct splice_report {
    uint32_t number;
    enum splice_news news;
    int error;
};

struct splices {
    int epoll;
    struct splice **all;
    uint32_t count, room;
    struct splice *free, *resting; /* resting: free from the next turn on */
    struct splice *soon, *soon_last;
    struct pipe_pool pool;
    struct splice_report reports[SPLICE_REPORTS]; /* of this turn */
    uint32_t report_count;
    uint32_t bulky;   /* events of this turn that brought bulk */
    uint32_t watched; /* the caller's descriptors that are readable, as bits */
};

int splices_open(struct splices *splices);

/* End all connections; later calls find none. */
void splices_close(struct splices *splices);

/* Watch a descriptor of the caller's, which shows in `watched` as a bit. -1 with errno. */
int splices_watch(struct splices *splices, int fd, uint32_t bit);

/* A new connection with this near end, or with none (-1); its number. -1 with errno: the near end is closed. */
int64_t splices_begin(struct splices *splices, int near, bool is_unix);

/* End a connection and close its sockets, so that peers see a reset if `is_reset`; one that is over is ignored. */
void splices_end(struct splices *splices, uint32_t number, bool is_reset);

/* --- for dials.c and splice_turn.c --- */

struct splice *splices_find(const struct splices *splices, uint32_t number);
int splices_watch_end(struct splices *splices, struct splice *splice, uint32_t index);
/* The connection of an event, and which of its ends; NULL: a descriptor of the caller's, which is noted, or a connection
   that is over. */
struct splice *splices_of_event(struct splices *splices, uint64_t which, uint32_t *index);
/* Let numbers that have rested for a turn be used again. */
void splices_wake_resting(struct splices *splices);
/* Queue a connection that has something to move, the longest waiting first; take one out. */
void splices_add_soon(struct splices *splices, struct splice *splice);
void splices_remove_soon(struct splices *splices, struct splice *splice);

#endif
