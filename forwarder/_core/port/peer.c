#include "port/peer.h"

#include <stdlib.h>
#include <unistd.h>

#include "packet/frame.h"

struct peer *peers_add(struct peers *peers, uint32_t port)
{
    struct peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL)
        return NULL;
    peer->port = port;
    peer->doorbell = -1;
    peers->at[port] = peer;
    peers->port[peers->count++] = (uint16_t)port;
    return peer;
}

uint32_t peers_remove(struct peers *peers, uint32_t port)
{
    struct peer *peer = peers->at[port];
    peer_close_path(peer);
    ring_rx_close(&peer->rx);
    flood_rx_close(&peer->flood);
    free(peer);
    peers->at[port] = NULL;
    uint32_t i = 0;
    while (peers->port[i] != port)
        i++;
    memmove(&peers->port[i], &peers->port[i + 1], (--peers->count - i) * sizeof peers->port[0]);
    return i;
}

void peer_close_path(struct peer *peer)
{
    ring_tx_close(&peer->tx);
    if (peer->doorbell >= 0)
        close(peer->doorbell);
    peer->doorbell = -1;
    free(peer->pending);
    peer->pending = NULL;
    peer->pending_bytes = 0;
    peer->path = PATH_NONE;
    peer->touched = false;
}

uint32_t pending_put(struct peer *peer, const uint8_t *records, uint32_t frames)
{
    if (peer->pending == NULL)
        peer->pending = malloc(PENDING_BYTES);
    if (peer->pending == NULL)
        return 0;
    uint32_t kept = 0, used = 0;
    while (kept < frames) {
        uint32_t size = LENGTH_BYTES + load_be32(records + used);
        if (peer->pending_bytes + used + size > PENDING_BYTES)
            break;
        used += size;
        kept++;
    }
    memcpy(peer->pending + peer->pending_bytes, records, used);
    peer->pending_bytes += used;
    return kept;
}
