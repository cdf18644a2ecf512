#include "egress/egress_write.h"

#include "packet/framing.h"

#define RETRY_FIRST_NS 50000u
#define RETRY_MOST_NS 10000000u

static void progress(struct engine *e, const struct vm_sent *sent)
{
    e->out.written += sent->bytes;
    e->out.fruitless = false;
    e->out.retry_ns = 0;
    e->count.tx_bytes += sent->payload;
    e->count.tx_frames += sent->frames;
    if (UNLIKELY(sent->refused > 0))
        e->count.refused += sent->refused;
}

static void start_timer(struct engine *e, uint64_t now)
{
    uint64_t pause = e->out.retry_ns == 0 ? RETRY_FIRST_NS : 2 * e->out.retry_ns;
    e->out.retry_ns = pause < RETRY_MOST_NS ? pause : RETRY_MOST_NS;
    e->out.retry_at = now + e->out.retry_ns;
}

static void block(struct engine *e, enum vm_status status, int error, uint64_t now)
{
    if (status == VM_DOWN) {
        port_link_down(e, "writing to the VM", error);
        return;
    }
    e->out.blocked = true;
    if (status == VM_NO_BUFFER) {
        e->count.enobufs++;
        start_timer(e, now);
        return;
    }
    e->count.eagain++;
    if (e->out.fruitless)
        start_timer(e, now);
    else
        waiter_want(&e->waiter, e->vm.fd, WANT_WRITE, true);
}

static void settle(struct engine *e, enum vm_status status, const struct vm_sent *sent, uint64_t total, uint64_t now)
{
    if (sent->bytes > 0)
        progress(e, sent);
    if (status != VM_OK && status != VM_GARBLED)
        block(e, status, sent->error, now);
    else if (vm_is_stream(&e->vm) && sent->bytes < total)
        block(e, VM_FULL, 0, now);
}

/* Count the frames that a message VM has got, and the refused one behind them. */
static void sight_written(const struct engine *e, const struct span *spans, unsigned count, const struct vm_sent *sent)
{
    uint32_t frames = sent->frames, refused = sent->refused;
    for (unsigned i = 0; i < count && frames + refused > 0; i++) {
        uint32_t size, header = spans[i].vnet ? VNET_BYTES : 0;
        for (uint32_t at = 0; frames + refused > 0; at += size) {
            const uint8_t *record = spans[i].records + at;
            bool written = frames > 0;
            if (record_next(record, spans[i].bytes - at, &size) != RECORD_WHOLE || size < MIN_RECORD + header)
                break;
            port_sight_frame(e, record_frame(record) + header, size - LENGTH_BYTES - header,
                             written ? CAPTURE_OUT : CAPTURE_DROP, written ? NULL : &e->count.refused);
            frames -= written;
            refused -= !written;
        }
    }
}

uint64_t egress_write(struct engine *e, const struct span *spans, unsigned count, uint32_t longest, bool *garbled,
                      uint64_t now)
{
    struct vm_sent sent;
    uint64_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += spans[i].bytes;
    port_in_doubt(e);
    enum vm_status status = e->vhost != NULL ? vhost_write(e->vhost, &e->intake, spans, count, &sent, now)
                                             : vm_write(&e->vm, spans, count, longest, &sent);
    if (UNLIKELY(e->captures != NULL))
        sight_written(e, spans, count, &sent);
    *garbled = status == VM_GARBLED;
    settle(e, status, &sent, total, now);
    return sent.bytes;
}

uint64_t egress_write_parts(struct engine *e, struct iovec *parts, unsigned count, uint64_t total, uint64_t now)
{
    struct vm_sent sent;
    port_in_doubt(e);
    enum vm_status status = vm_write_parts(&e->vm, parts, count, &sent);
    settle(e, status, &sent, total, now);
    return sent.bytes;
}

uint32_t egress_prefix_bytes(const struct engine *e)
{
    return e->vm.kind == KIND_STREAM16 ? LENGTH16_BYTES : LENGTH_BYTES;
}

void egress_count_frames(struct engine *e, uint32_t frames)
{
    if (!vm_is_stream(&e->vm))
        return;
    e->count.tx_frames += frames;
    e->count.tx_bytes -= (uint64_t)frames * egress_prefix_bytes(e);
}

void egress_flush(struct engine *e, uint64_t now)
{
    struct egress *out = &e->out;
    while (out->from < out->to && !out->blocked && !e->down) {
        struct span span = {.records = out->staging + out->from, .bytes = out->to - out->from};
        bool garbled;
        out->from += (uint32_t)egress_write(e, &span, 1, MAX_FRAME, &garbled, now);
        if (garbled)
            out->from = out->to;
    }
    if (out->from < out->to)
        return;
    egress_count_frames(e, out->staged_frames);
    out->from = out->to = out->staged_frames = 0;
}

uint64_t egress_deadline(const struct engine *e)
{
    return e->out.blocked && e->out.retry_at != 0 ? e->out.retry_at : UINT64_MAX;
}
