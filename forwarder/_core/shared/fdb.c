#include "shared/fdb.h"

#include "packet/frame.h"

#define PINNED 0x8000u
#define PORT_MASK (MAX_PORTS - 1)

_Static_assert(sizeof(struct fdb_bucket) == 64, "a bucket is one cache line");
_Static_assert((MAX_PORTS & PORT_MASK) == 0 && PORT_MASK < PINNED, "a port fits beside the flag");

static uint64_t key_of(uint64_t mac, uint32_t port)
{
    return mac << 16 | port;
}

static uint64_t key_mac(uint64_t key)
{
    return key >> 16;
}

static uint32_t key_port(uint64_t key)
{
    return (uint32_t)key & PORT_MASK;
}

static bool key_pinned(uint64_t key)
{
    return (key & PINNED) != 0;
}

/* Two rounds of multiply-and-fold: cheap, and a guest without the secret cannot aim at a bucket. */
static uint32_t bucket_index(const struct fdb *fdb, uint64_t mac)
{
    uint64_t h = (mac ^ fdb->secret) * 0x9e3779b97f4a7c15ull;
    h ^= h >> 32;
    h = (h + fdb->secret) * 0xd6e8feb86659fd93ull;
    return (uint32_t)(h >> 40) & (FDB_BUCKETS - 1);
}

static bool is_valid(const struct fdb *fdb, uint64_t key, uint32_t seen)
{
    return key != 0 && (key_pinned(key) || fdb->now / FDB_PERIOD_S - seen / FDB_PERIOD_S <= 1);
}

void fdb_init(struct fdb *fdb, uint64_t secret)
{
    memset(fdb, 0, sizeof *fdb);
    fdb->secret = secret;
}

static void clear(struct fdb *fdb, struct fdb_bucket *bucket, unsigned way)
{
    uint32_t port = key_port(bucket->key[way]);
    if (bucket->key[way] != 0 && fdb->count[port] > 0)
        fdb->count[port]--;
    bucket->key[way] = 0;
}

static void fill(struct fdb *fdb, struct fdb_bucket *bucket, unsigned way, uint64_t key)
{
    clear(fdb, bucket, way);
    bucket->key[way] = key;
    bucket->seen[way] = fdb->now;
    fdb->count[key_port(key)]++;
}

void fdb_recount(struct fdb *fdb)
{
    memset(fdb->count, 0, sizeof fdb->count);
    for (uint32_t b = 0; b < FDB_BUCKETS; b++)
        for (unsigned w = 0; w < FDB_WAYS; w++)
            if (fdb->bucket[b].key[w] != 0)
                fdb->count[key_port(fdb->bucket[b].key[w])]++;
}

void fdb_age(struct fdb *fdb, uint32_t now)
{
    fdb->now = now;
    if (now / FDB_PERIOD_S == fdb->generation)
        return;
    fdb->generation = now / FDB_PERIOD_S;
    for (uint32_t b = 0; b < FDB_BUCKETS; b++)
        for (unsigned w = 0; w < FDB_WAYS; w++)
            if (!is_valid(fdb, fdb->bucket[b].key[w], fdb->bucket[b].seen[w]))
                clear(fdb, &fdb->bucket[b], w);
}

/* Way that holds `mac`, or FDB_WAYS. */
static unsigned find(const struct fdb_bucket *bucket, uint64_t mac)
{
    unsigned w = 0;
    while (w < FDB_WAYS && (bucket->key[w] == 0 || key_mac(bucket->key[w]) != mac))
        w++;
    return w;
}

/* Way to take for a new address: a free one, else the fair victim; FDB_WAYS if all are pinned. */
static unsigned vacancy(const struct fdb *fdb, const struct fdb_bucket *bucket)
{
    unsigned victim = FDB_WAYS;
    for (unsigned w = 0; w < FDB_WAYS; w++) {
        if (!is_valid(fdb, bucket->key[w], bucket->seen[w]))
            return w;
        if (key_pinned(bucket->key[w]))
            continue;
        if (victim == FDB_WAYS) {
            victim = w;
            continue;
        }
        uint32_t mine = fdb->count[key_port(bucket->key[w])];
        uint32_t most = fdb->count[key_port(bucket->key[victim])];
        if (mine > most || (mine == most && bucket->seen[w] < bucket->seen[victim]))
            victim = w;
    }
    return victim;
}

enum fdb_verdict fdb_learn(struct fdb *fdb, const uint8_t *mac, uint32_t port)
{
    if (mac_is_group(mac))
        return FDB_REFUSED;
    uint64_t bits = mac_bits(mac);
    struct fdb_bucket *bucket = &fdb->bucket[bucket_index(fdb, bits)];
    unsigned w = find(bucket, bits);
    if (w < FDB_WAYS) {
        uint64_t key = bucket->key[w];
        if (LIKELY(key_port(key) == port)) {
            bucket->seen[w] = fdb->now;
            return FDB_KNOWN;
        }
        if (key_pinned(key))
            return FDB_REFUSED;
    } else {
        w = vacancy(fdb, bucket);
        if (w == FDB_WAYS)
            return FDB_LEARNED;
    }
    fill(fdb, bucket, w, key_of(bits, port));
    return FDB_LEARNED;
}

uint32_t fdb_lookup(const struct fdb *fdb, const uint8_t *mac)
{
    uint64_t bits = mac_bits(mac);
    const struct fdb_bucket *bucket = &fdb->bucket[bucket_index(fdb, bits)];
    unsigned w = find(bucket, bits);
    if (w == FDB_WAYS || !is_valid(fdb, bucket->key[w], bucket->seen[w]))
        return 0;
    return key_port(bucket->key[w]);
}

bool fdb_pin(struct fdb *fdb, const uint8_t *mac, uint32_t port)
{
    if (mac_is_group(mac))
        return false;
    uint64_t bits = mac_bits(mac);
    struct fdb_bucket *bucket = &fdb->bucket[bucket_index(fdb, bits)];
    unsigned w = find(bucket, bits);
    if (w < FDB_WAYS && key_pinned(bucket->key[w]) && key_port(bucket->key[w]) != port)
        return false;
    if (w == FDB_WAYS)
        w = vacancy(fdb, bucket);
    if (w == FDB_WAYS)
        return false;
    fill(fdb, bucket, w, key_of(bits, port | PINNED));
    return true;
}

bool fdb_is_pinned_to(const struct fdb *fdb, const uint8_t *mac, uint32_t port)
{
    uint64_t bits = mac_bits(mac);
    const struct fdb_bucket *bucket = &fdb->bucket[bucket_index(fdb, bits)];
    unsigned w = find(bucket, bits);
    return w < FDB_WAYS && bucket->key[w] == key_of(bits, port | PINNED);
}

static void drop_port(struct fdb *fdb, uint32_t port, bool pinned_only)
{
    if (fdb->count[port] == 0)
        return;
    for (uint32_t b = 0; b < FDB_BUCKETS; b++)
        for (unsigned w = 0; w < FDB_WAYS; w++) {
            uint64_t key = fdb->bucket[b].key[w];
            if (key != 0 && key_port(key) == port && (!pinned_only || key_pinned(key)))
                clear(fdb, &fdb->bucket[b], w);
        }
}

void fdb_unpin(struct fdb *fdb, uint32_t port)
{
    drop_port(fdb, port, true);
}

void fdb_forget(struct fdb *fdb, uint32_t port)
{
    drop_port(fdb, port, false);
}

bool fdb_walk(const struct fdb *fdb, uint32_t *cursor, struct fdb_entry *entry)
{
    while (*cursor < FDB_BUCKETS * FDB_WAYS) {
        const struct fdb_bucket *bucket = &fdb->bucket[*cursor / FDB_WAYS];
        unsigned w = *cursor % FDB_WAYS;
        uint64_t key = bucket->key[w];
        uint32_t seen = bucket->seen[w];
        ++*cursor;
        if (!is_valid(fdb, key, seen))
            continue;
        mac_from_bits(entry->mac, key_mac(key));
        entry->port = key_port(key);
        entry->pinned = key_pinned(key);
        entry->age_s = fdb->now > seen ? fdb->now - seen : 0;
        return true;
    }
    return false;
}
