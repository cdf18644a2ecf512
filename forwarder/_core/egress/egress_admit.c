#include "egress/egress_admit.h"

#include "offload/offload.h"

static bool is_free(const struct intake *intake, bool vnet)
{
    return vnet ? (intake->takes & TAKES_ALL) == TAKES_ALL : intake->longest >= MAX_FRAME;
}

static bool may_go(const struct intake *intake, const uint8_t *content, uint32_t bytes, bool vnet)
{
    if (!vnet)
        return offload_may_go(intake, NULL, content, bytes);
    return bytes >= VNET_BYTES && offload_may_go(intake, content, content + VNET_BYTES, bytes - VNET_BYTES);
}

bool egress_hears(struct engine *e, uint32_t port, const uint8_t *frame, uint32_t bytes)
{
    uint8_t address[ADDRESS_BYTES];
    if (LIKELY(e->sources == NULL) || LIKELY(sources_hear(e->sources, port, frame, bytes, e->now, address)))
        return true;
    guard_note_source(&e->guard, frame_src(frame), address);
    return false;
}

/* The counter to charge with a frame behind `content`; NULL: it may go. */
static uint64_t *refusal(struct engine *e, uint32_t port, const uint8_t *content, uint32_t bytes, bool vnet)
{
    uint32_t header = vnet ? VNET_BYTES : 0;
    if (!may_go(&e->intake, content, bytes, vnet))
        return &e->count.refused;
    return bytes < header + MIN_FRAME || egress_hears(e, port, content + header, bytes - header) ? NULL : &e->count.sources;
}

struct stretch egress_admit(struct engine *e, uint32_t port, const struct run_view *view)
{
    struct stretch stretch = {.bytes = view->bytes};
    const uint8_t *records = view->records;
    uint32_t at = 0, frames = 0, size;
    bool vnet = view->run.vnet != 0;
    if (LIKELY(e->sources == NULL) && LIKELY(e->vhost != NULL || is_free(&e->intake, vnet)))
        return stretch;
    for (; record_next(records + at, view->bytes - at, &size) == RECORD_WHOLE; at += size, frames++) {
        uint64_t *refused = refusal(e, port, record_frame(records + at), size - LENGTH_BYTES, vnet);
        if (frames > 0 && refused != stretch.refused)
            return (struct stretch){.bytes = at, .frames = frames, .refused = stretch.refused};
        stretch.refused = refused;
    }
    bool whole = stretch.refused == NULL || at == view->bytes;
    return (struct stretch){.bytes = whole ? view->bytes : at, .frames = frames, .refused = stretch.refused};
}
