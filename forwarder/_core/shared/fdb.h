/* MAC table (FDB): the port of each address, as one worker has learned it.

   Theory of operation. A bounded hash table of buckets, one bucket a cache line of five entries; an address lives in
   its bucket or nowhere, so a look-up touches one line and an insertion never moves anything. The hash is keyed per
   table, so that a guest cannot aim at a bucket.

   Ageing has two generations of `period` seconds: an entry seen in this generation or the last one is valid, an older
   one is free. Nothing has a timer; the sweep at each change of generation only keeps the per-port counts true.

   Eviction is fair, as in OVS (lib/mac-learning.h): a full bucket loses the entry of the port that has most entries in
   the whole table, the longest unseen of those. A port that invents addresses evicts its own. Group addresses are never
   learned (IEEE 802.1Q 8.7: a source address is an individual one).

   Pinned entries come from the operator: they do not age, are not evicted, and do not move.

   Example. Port 4 sends frames from 20,000 invented addresses. The table holds 10,240. Where a bucket is full, port 4
   has the most entries, so one of its own goes; the 250 other ports keep theirs. At the limit of `macs` it stops
   earlier.

   Calls. The table lies in the port's statistics page. Its worker is the only writer; fdb_walk and fdb_lookup may be
   called by any process that maps it, and may then see an entry that is just being replaced. A worker that replaces a
   killed one goes on with what was learned, after fdb_recount. Ports are checked where they are used as an index. */
#ifndef BULKHEAD_FDB_H
#define BULKHEAD_FDB_H

#include "common.h"

#define FDB_WAYS 5u
#define FDB_BUCKETS 2048u
#define FDB_PERIOD_S 150u

struct fdb_bucket {
    uint64_t key[FDB_WAYS];  /* address << 16 | pinned | port; 0: empty */
    uint32_t seen[FDB_WAYS]; /* seconds of the coarse clock */
    uint32_t zero;
};

struct fdb {
    uint64_t secret;
    uint32_t now;
    uint32_t generation; /* now / FDB_PERIOD_S, at the last sweep */
    uint32_t count[MAX_PORTS];
    _Alignas(64) struct fdb_bucket bucket[FDB_BUCKETS];
};

enum fdb_verdict {
    FDB_KNOWN,   /* was behind this port */
    FDB_LEARNED, /* is now (new, or moved) */
    FDB_REFUSED  /* pinned to another port, or a group address */
};

/* An all-zero fdb is empty; `secret` keys the hash. */
void fdb_init(struct fdb *fdb, uint64_t secret);

/* Count anew: a worker killed between two stores leaves a count that is off by one, and fdb_forget trusts counts. */
void fdb_recount(struct fdb *fdb);

/* Advance the coarse clock; sweeps when a generation ends. */
void fdb_age(struct fdb *fdb, uint32_t now);

enum fdb_verdict fdb_learn(struct fdb *fdb, const uint8_t *mac, uint32_t port);

/* The port of `mac`; 0: unknown. */
uint32_t fdb_lookup(const struct fdb *fdb, const uint8_t *mac);

/* False: the bucket is full of pinned entries, or pinned to another port, or a group address. */
bool fdb_pin(struct fdb *fdb, const uint8_t *mac, uint32_t port);
bool fdb_is_pinned_to(const struct fdb *fdb, const uint8_t *mac, uint32_t port);
void fdb_unpin(struct fdb *fdb, uint32_t port);
void fdb_forget(struct fdb *fdb, uint32_t port);

struct fdb_entry {
    uint8_t mac[MAC_BYTES];
    uint32_t port;
    uint32_t age_s;
    bool pinned;
};

/* Iterate valid entries: start with *cursor = 0; false at the end. Safe on a table that another process writes. */
bool fdb_walk(const struct fdb *fdb, uint32_t *cursor, struct fdb_entry *entry);

#endif
