#include "vhost/vhost_port.h"

#include <stdlib.h>
#include <unistd.h>

#include "offload/offload.h"
#include "packet/frame.h"
#include "vhost/virtio.h"

/* Offset of the number of buffers in the longer header. */
#define BUFFERS_AT VNET_BYTES
#define LONG_HEADER_BYTES (VNET_BYTES + 2u)

struct vhost_port *vhost_open(_Atomic uint32_t moved[QUEUES], _Atomic uint32_t *memory_gone)
{
    struct vhost_port *port = calloc(1, sizeof *port);
    if (port == NULL)
        return NULL;
    for (unsigned i = 0; i < QUEUES; i++)
        port->queue[i] = (struct virtqueue){.moved = &moved[i], .kick = -1, .call = -1};
    vhost_set_features(port, 0);
    if (memory_guard(&port->memory, memory_gone) == 0)
        return port;
    free(port);
    return NULL;
}

void vhost_close(struct vhost_port *port)
{
    if (port == NULL)
        return;
    for (unsigned i = 0; i < QUEUES; i++)
        virtqueue_stop(&port->queue[i]);
    memory_close(&port->memory);
    free(port);
}

void vhost_set_features(struct vhost_port *port, uint64_t features)
{
    bool modern = (features & 1ull << VIRTIO_VERSION_1) != 0;
    port->mergeable = (features & 1ull << VIRTIO_NET_MRG_RXBUF) != 0;
    port->header_bytes = modern || port->mergeable ? LONG_HEADER_BYTES : VNET_BYTES;
    for (unsigned i = 0; i < QUEUES; i++)
        port->queue[i].event_idx = (features & 1ull << VIRTIO_RING_EVENT_IDX) != 0;
}

void vhost_memory_changed(struct vhost_port *port)
{
    for (unsigned i = 0; i < QUEUES; i++)
        if (port->queue[i].place.entries != 0)
            virtqueue_resolve(&port->queue[i], &port->memory);
}

const char *vhost_fault(const struct vhost_port *port)
{
    if (port->queue[QUEUE_FROM_GUEST].broken)
        return "the VM's queue of frames that it sends makes no sense";
    return port->queue[QUEUE_TO_GUEST].broken ? "the VM's queue of frames that it receives makes no sense" : NULL;
}

/* Bytes of a frame on their way through segments. */
struct cursor {
    const struct segment *piece;
    const struct segment *end;
    uint32_t into;
};

static struct cursor cursor_of(const struct segments *segments)
{
    return (struct cursor){.piece = segments->piece, .end = segments->piece + segments->count};
}

static uint8_t *here(const struct cursor *cursor)
{
    return cursor->piece->at + cursor->into;
}

static uint32_t left_here(const struct cursor *cursor)
{
    return cursor->piece->bytes - cursor->into;
}

static void move_on(struct cursor *cursor, uint32_t bytes)
{
    cursor->into += bytes;
    if (cursor->into == cursor->piece->bytes) {
        cursor->piece++;
        cursor->into = 0;
    }
}

/* As many bytes as there are, which the caller has checked. */
static void copy_out(struct cursor *cursor, uint8_t *to, uint32_t bytes)
{
    while (bytes > 0) {
        uint32_t n = left_here(cursor) < bytes ? left_here(cursor) : bytes;
        memcpy(to, here(cursor), n);
        move_on(cursor, n);
        to += n;
        bytes -= n;
    }
}

static void copy_in(struct cursor *cursor, const uint8_t *from, uint32_t bytes)
{
    while (bytes > 0) {
        uint32_t n = left_here(cursor) < bytes ? left_here(cursor) : bytes;
        memcpy(here(cursor), from, n);
        move_on(cursor, n);
        from += n;
        bytes -= n;
    }
}

int64_t vhost_read(struct vhost_port *port, uint8_t *to, uint32_t size)
{
    struct virtqueue *queue = &port->queue[QUEUE_FROM_GUEST];
    struct segments *segments = &port->segments;
    uint8_t rest_of_header[LONG_HEADER_BYTES];
    uint16_t head;
    segments->count = segments->bytes = 0;
    enum chain chain = virtqueue_take(queue, &port->memory, false, &head, segments);
    if (chain == CHAIN_NONE)
        return -1;
    virtqueue_return(queue, head, 0);
    if (UNLIKELY(chain == CHAIN_BAD || segments->bytes < port->header_bytes))
        return 0;
    uint32_t bytes = segments->bytes - port->header_bytes + VNET_BYTES;
    if (UNLIKELY(bytes > size))
        return UINT32_MAX;
    if (LIKELY(segments->count == 1)) {
        const uint8_t *at = segments->piece->at;
        memcpy(to, at, VNET_BYTES);
        memcpy(to + VNET_BYTES, at + port->header_bytes, bytes - VNET_BYTES);
        return bytes;
    }
    struct cursor cursor = cursor_of(segments);
    copy_out(&cursor, to, VNET_BYTES);
    copy_out(&cursor, rest_of_header, port->header_bytes - VNET_BYTES);
    copy_out(&cursor, to + VNET_BYTES, bytes - VNET_BYTES);
    return bytes;
}

void vhost_from_done(struct vhost_port *port)
{
    virtqueue_show(&port->queue[QUEUE_FROM_GUEST]);
}

/* The chains of one frame. */
struct chains {
    uint16_t head[MOST_SEGMENTS];
    uint32_t bytes[MOST_SEGMENTS];
    uint32_t count;
    uint32_t buffers; /* those that have any bytes */
};

enum gathered {
    GATHERED,
    GATHERED_TOO_FEW,   /* more may come */
    GATHERED_TOO_SHORT, /* none will be enough */
    GATHERED_BAD        /* the last one makes no sense: return all */
};

/* Buffers for `need` bytes. TOO_FEW, TOO_SHORT: they wait as before. */
static enum gathered gather(struct vhost_port *port, uint32_t need, struct chains *chains)
{
    struct virtqueue *queue = &port->queue[QUEUE_TO_GUEST];
    struct segments *segments = &port->segments;
    segments->count = segments->bytes = chains->count = chains->buffers = 0;
    do {
        uint32_t before = segments->bytes;
        enum chain chain = virtqueue_take(queue, &port->memory, true, &chains->head[chains->count], segments);
        if (UNLIKELY(chain == CHAIN_NONE)) {
            virtqueue_untake(queue, (uint16_t)chains->count);
            return GATHERED_TOO_FEW;
        }
        chains->bytes[chains->count++] = segments->bytes - before;
        chains->buffers += segments->bytes != before;
        if (UNLIKELY(chain == CHAIN_BAD))
            return GATHERED_BAD;
    } while (port->mergeable && segments->bytes < need && chains->count < MOST_SEGMENTS);
    if (LIKELY(segments->bytes >= need))
        return GATHERED;
    virtqueue_untake(queue, (uint16_t)chains->count);
    return GATHERED_TOO_SHORT;
}

static void return_unused(struct vhost_port *port, const struct chains *chains)
{
    for (uint32_t i = 0; i < chains->count; i++)
        virtqueue_return(&port->queue[QUEUE_TO_GUEST], chains->head[i], 0);
}

static void fill(struct vhost_port *port, const struct chains *chains, const uint8_t *header, const uint8_t *frame,
                 uint32_t frame_bytes)
{
    uint8_t full_header[LONG_HEADER_BYTES];
    uint32_t left = port->header_bytes + frame_bytes;
    struct cursor cursor = cursor_of(&port->segments);
    memcpy(full_header, header, VNET_BYTES);
    store_le16(full_header + BUFFERS_AT, port->mergeable ? chains->buffers : 1);
    if (LIKELY(port->segments.count == 1 && chains->count == 1)) {
        uint8_t *at = port->segments.piece->at;
        memcpy(at, full_header, port->header_bytes);
        memcpy(at + port->header_bytes, frame, frame_bytes);
        virtqueue_return(&port->queue[QUEUE_TO_GUEST], chains->head[0], left);
        return;
    }
    copy_in(&cursor, full_header, port->header_bytes);
    copy_in(&cursor, frame, frame_bytes);
    for (uint32_t i = 0; i < chains->count; i++) {
        uint32_t here = chains->bytes[i] < left ? chains->bytes[i] : left;
        virtqueue_return(&port->queue[QUEUE_TO_GUEST], chains->head[i], here);
        left -= here;
    }
}

/* The guest has buffers, and not enough for this frame: does it get no more? */
static bool stays_short(struct vhost_port *port, uint64_t now)
{
    if (port->short_since == 0)
        port->short_since = now;
    return now - port->short_since >= SHORT_NS;
}

enum written { WRITTEN, WRITTEN_REFUSED, WRITTEN_LATER, WRITTEN_LATER_BY_TIMER };

static enum written write_frame(struct vhost_port *port, const uint8_t *header, const uint8_t *frame, uint32_t bytes,
                                uint64_t now)
{
    struct virtqueue *queue = &port->queue[QUEUE_TO_GUEST];
    struct chains chains;
    for (;;) {
        switch (gather(port, port->header_bytes + bytes, &chains)) {
        case GATHERED:
            fill(port, &chains, header, frame, bytes);
            port->short_since = 0;
            return WRITTEN;
        case GATHERED_BAD:
            return_unused(port, &chains);
            if (chains.count == 1)
                continue;
            return WRITTEN_REFUSED; /* or it might look for buffers for ever */
        case GATHERED_TOO_SHORT:
            return WRITTEN_REFUSED;
        case GATHERED_TOO_FEW:
            if (!virtqueue_arm(queue))
                return WRITTEN_LATER;
            if (!stays_short(port, now))
                return WRITTEN_LATER_BY_TIMER;
            port->short_since = 0;
            return WRITTEN_REFUSED;
        }
    }
}

static enum written write_record(struct vhost_port *port, const struct intake *intake, const uint8_t *record,
                                 uint32_t bytes, bool vnet, uint64_t now)
{
    uint8_t header[VNET_BYTES] = {0}; /* a copy: the record may lie in memory that a neighbour changes */
    uint32_t header_bytes = vnet ? VNET_BYTES : 0;
    const uint8_t *frame = record + LENGTH_BYTES + header_bytes;
    bytes -= LENGTH_BYTES + header_bytes;
    memcpy(header, record + LENGTH_BYTES, header_bytes);
    if (!virtqueue_runs(&port->queue[QUEUE_TO_GUEST]) || !offload_may_go(intake, vnet ? header : NULL, frame, bytes))
        return WRITTEN_REFUSED;
    return write_frame(port, header, frame, bytes, now);
}

static enum vm_status write_span(struct vhost_port *port, const struct intake *intake, const struct span *span,
                                 struct vm_sent *sent, uint64_t now)
{
    uint32_t header = span->vnet ? VNET_BYTES : 0, size;
    for (uint32_t at = 0; at < span->bytes && sent->refused == 0; at += size) {
        const uint8_t *record = span->records + at;
        if (record_next(record, span->bytes - at, &size) != RECORD_WHOLE || size < MIN_RECORD + header)
            return VM_GARBLED;
        enum written written = write_record(port, intake, record, size, span->vnet, now);
        if (written == WRITTEN_LATER || written == WRITTEN_LATER_BY_TIMER)
            return written == WRITTEN_LATER ? VM_FULL : VM_NO_BUFFER;
        sent->bytes += size;
        sent->frames += written == WRITTEN;
        sent->refused += written == WRITTEN_REFUSED;
        sent->payload += written == WRITTEN ? size - LENGTH_BYTES - header : 0;
    }
    return VM_OK;
}

enum vm_status vhost_write(struct vhost_port *port, const struct intake *intake, const struct span *spans,
                           unsigned count, struct vm_sent *sent, uint64_t now)
{
    enum vm_status status = VM_OK;
    *sent = (struct vm_sent){0};
    for (unsigned i = 0; i < count && status == VM_OK && sent->refused == 0; i++)
        status = write_span(port, intake, &spans[i], sent, now);
    virtqueue_show(&port->queue[QUEUE_TO_GUEST]);
    return status;
}

unsigned vhost_call(struct vhost_port *port)
{
    unsigned calls = 0;
    for (unsigned i = 0; i < QUEUES; i++) {
        struct virtqueue *queue = &port->queue[i];
        uint64_t one = 1;
        if (queue->call < 0 || !virtqueue_call(queue))
            continue;
        ssize_t written = write(queue->call, &one, sizeof one); /* EAGAIN: it has been called already */
        (void)written;
        calls++;
    }
    return calls;
}
