#include "ingress/inbuf.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "packet/framing.h"

static bool is_datagram(const struct engine *e)
{
    return e->vm.kind == KIND_SEQPACKET || e->vm.kind == KIND_DGRAM;
}

int inbuf_open(struct engine *e)
{
    bool is_stream = vm_is_stream(&e->vm);
    e->in.mapped = is_datagram(e) ? (size_t)SLOTS * SLOT_BYTES : INBUF_BYTES;
    e->in.mapped += is_stream ? UNPACKED_BYTES(INBUF_BYTES) : 0;
    void *memory = mmap(NULL, e->in.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -1;
    e->in.bytes = memory;
    e->in.records = is_stream ? e->in.bytes + INBUF_BYTES : NULL;
    e->in.finished = malloc(RUN_LIMIT);
    return e->in.finished == NULL ? -1 : 0;
}

void inbuf_close(struct engine *e)
{
    if (e->in.bytes != NULL)
        munmap(e->in.bytes, e->in.mapped);
    free(e->in.finished);
    e->in = (struct inbuf){0};
}

/* The expected peer of the next burst, by the last one, if its ring accepts records in place. */
static struct peer *expected(const struct engine *e)
{
    struct peer *peer = e->verdict.where == TO_PEER ? e->verdict.peer : NULL;
    if (peer == NULL || peer->path != PATH_RING)
        return NULL;
    bool behind_header = !vm_is_stream(&e->vm) && vm_header_bytes(&e->vm) != 0;
    return vm_sends_records(&e->vm) || behind_header ? peer : NULL;
}

/* Frames that the destination does not accept unfinished are finished at the front of its ring (switch.c): there the burst
   may not lie then. */
static bool may_go_direct(struct engine *e, struct peer *peer)
{
    e->in.direct_intake = flood_intake(&peer->flood);
    return (vm_header_bytes(&e->vm) == 0 || (e->sends & ~e->in.direct_intake.takes) == 0)
           && ring_has_room(&peer->tx, (uint64_t)e->in.rest + INGRESS_BUDGET);
}

/* Receive the next burst there, and move the rest of the last one there. */
static void direct_to(struct inbuf *in, struct peer *peer)
{
    uint8_t *to = peer != NULL ? ring_front(&peer->tx) : in->bytes;
    if (peer != in->direct_rx && in->rest > 0)
        memcpy(to, in->burst, in->rest);
    in->direct_rx = peer;
    in->direct_at = peer != NULL ? peer->tx.head : 0;
    in->burst = to;
}

void inbuf_choose(struct engine *e)
{
    struct peer *peer = expected(e);
    direct_to(&e->in, peer != NULL && may_go_direct(e, peer) ? peer : NULL);
}

void inbuf_choose_own(struct inbuf *in)
{
    direct_to(in, NULL);
}

void inbuf_keep_rest(struct inbuf *in, uint32_t used, uint32_t bytes)
{
    uint32_t kept = in->direct_rx != NULL ? (uint32_t)(in->direct_rx->tx.head - in->direct_at) : 0;
    in->rest = bytes - used;
    if (kept != used)
        memmove(in->burst + kept, in->burst + used, in->rest);
    in->burst += kept;
}

void inbuf_leave_ring(struct engine *e, const struct peer *peer)
{
    if (e->in.direct_rx == peer)
        direct_to(&e->in, NULL);
    if (e->verdict.peer == peer)
        e->verdict = (struct verdict){0};
}
