#include "harness.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/engine_peers.h"

static const uint8_t peer_mac[MAC_BYTES] = {2, 0, 0, 0, 0, 2};

static void must(bool done)
{
    if (!done)
        abort();
}

struct pair *pair_open_as(enum port_kind kind)
{
    static const int types[] = {
        [KIND_STREAM] = SOCK_STREAM, [KIND_STREAM16] = SOCK_STREAM, [KIND_SEQPACKET] = SOCK_SEQPACKET,
        [KIND_DGRAM] = SOCK_DGRAM,   [KIND_TAP] = SOCK_STREAM,      [KIND_VHOST] = SOCK_STREAM,
    };
    struct pair *pair = calloc(1, sizeof *pair);
    struct ring_id id = {.src_port = OWN_PORT, .src_epoch = 1, .dst_port = PEER_PORT, .dst_epoch = 2};
    must(pair != NULL && socketpair(AF_UNIX, types[kind], 0, pair->vm) == 0);
    struct engine *e = &pair->engine;
    e->port = OWN_PORT;
    e->epoch = 1;
    e->doorbell = pair->doorbell = doorbell_create();
    e->bells.flood_doorbell = pair->flood_doorbell = doorbell_create();
    pair->stats = stats_page_create(0);
    pair->flood = flood_create(FUZZ_RING_BYTES, OWN_PORT, 1);
    pair->peer_flood = flood_create(FUZZ_RING_BYTES, PEER_PORT, 2);
    must(ring_create(FUZZ_RING_BYTES, &id, &pair->ring) == 0);
    must(engine_open(e, kind, pair->vm[0], pair->stats, pair->flood) == 0);
    must(engine_peer_join(e, PEER_PORT, 2, 2) == 0);
    must(flood_tx_open(&pair->peer, pair->peer_flood, PEER_PORT, 2) == 0);
    must(engine_attach_flood(e, PEER_PORT, 2, pair->peer_flood, true) == 0);
    must(engine_attach_tx(e, PEER_PORT, 2, pair->ring, doorbell_create()) == 0);
    must(ring_rx_open(&pair->reader, pair->ring, &id) == 0);
    must(fdb_pin(&e->stats->fdb, peer_mac, PEER_PORT));
    return pair;
}

struct pair *pair_open(void)
{
    return pair_open_as(KIND_STREAM);
}

void pair_speak(struct pair *pair)
{
    uint8_t frame[300] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2};
    flood_put(&pair->peer, frame, sizeof frame, FLOOD_GROUP);
    flood_publish(&pair->peer);
}

void pair_close(struct pair *pair)
{
    int fds[] = {pair->vm[0],         pair->vm[1], pair->doorbell,   pair->flood_doorbell,
                 pair->stats,         pair->flood, pair->peer_flood, pair->ring.ring,
                 pair->ring.tail};
    ring_rx_close(&pair->reader);
    flood_tx_close(&pair->peer);
    engine_close(&pair->engine);
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        close(fds[i]);
    free(pair);
}

static uint64_t mix(uint64_t digest, const uint8_t *bytes, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        digest = (digest ^ bytes[i]) * 0x100000001b3ull;
    return digest;
}

uint64_t pair_digest(struct pair *pair)
{
    struct run_view view;
    uint64_t digest = 0xcbf29ce484222325ull;
    ring_refresh(&pair->reader);
    while (ring_view(&pair->reader, &view, 1, RUN_LIMIT) == 1) {
        digest = mix(digest, view.records, view.bytes);
        ring_consume(&pair->reader, &view, 1, view.bytes);
    }
    const struct flood_tx *flood = &pair->engine.flood;
    uint64_t kept = flood->head < flood->shm.size ? flood->head : flood->shm.size;
    return mix(digest, flood->shm.data, kept);
}
