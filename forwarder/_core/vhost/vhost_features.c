#include "vhost/vhost_features.h"

#include "vhost/virtio.h"

/* A feature and the offload that it means. */
struct meaning {
    unsigned bit;
    uint32_t takes;
};

static uint32_t all_of(uint64_t features, const struct meaning *meanings, unsigned count)
{
    uint32_t takes = 0;
    for (unsigned i = 0; i < count; i++)
        if (features & 1ull << meanings[i].bit)
            takes |= meanings[i].takes;
    return takes;
}

struct intake vhost_intake(uint64_t features)
{
    static const struct meaning guest[] = {
        {VIRTIO_NET_GUEST_CSUM, TAKES_SUM},  {VIRTIO_NET_GUEST_TSO4, TAKES_TSO4}, {VIRTIO_NET_GUEST_TSO6, TAKES_TSO6},
        {VIRTIO_NET_GUEST_ECN, TAKES_ECN},   {VIRTIO_NET_GUEST_USO4, TAKES_USO4}, {VIRTIO_NET_GUEST_USO6, TAKES_USO6},
    };
    uint32_t takes = all_of(features, guest, sizeof guest / sizeof *guest);
    /* Without the checksum no segments are accepted: a driver may not negotiate them without it. */
    return (struct intake){.takes = takes & TAKES_SUM ? takes : 0, .longest = MAX_FRAME};
}

/* Each frame has a header, so it counts as one that leaves its sum undone. */
uint32_t vhost_sends(uint64_t features)
{
    static const struct meaning host[] = {
        {VIRTIO_NET_HOST_TSO4, TAKES_TSO4},
        {VIRTIO_NET_HOST_TSO6, TAKES_TSO6},
        {VIRTIO_NET_HOST_ECN, TAKES_ECN},
        {VIRTIO_NET_HOST_USO, TAKES_USO4 | TAKES_USO6},
    };
    return TAKES_SUM | all_of(features, host, sizeof host / sizeof *host);
}
