#include "engine/egress_admit.h"

#include "packet/offload.h"

static bool is_free(const struct intake *intake, bool vnet)
{
    return vnet ? (intake->takes & TAKES_ALL) == TAKES_ALL : intake->longest >= MAX_FRAME;
}

/* A frame that is to be cut may be longer than one that is not. */
static bool may_go(const struct intake *intake, const uint8_t *frame, uint32_t bytes, bool vnet)
{
    if (!vnet)
        return bytes <= intake->longest;
    if ((intake->takes & TAKES_SUM) == 0 || bytes < VNET_BYTES + MIN_FRAME)
        return false;
    uint32_t needs = offload_needs(frame, bytes);
    bool cut = (needs & ~(TAKES_SUM | TAKES_ECN)) != 0;
    return (needs & ~intake->takes) == 0 && (cut || bytes - VNET_BYTES <= intake->longest);
}

struct stretch egress_admit(const struct engine *e, const struct run_view *view)
{
    struct stretch stretch = {.bytes = view->bytes, .admitted = true};
    const uint8_t *records = view->records;
    uint32_t at = 0, frames = 0, size;
    bool vnet = view->run.vnet != 0;
    if (LIKELY(is_free(&e->intake, vnet)))
        return stretch;
    for (; record_next(records + at, view->bytes - at, &size) == RECORD_WHOLE; at += size, frames++) {
        bool admitted = may_go(&e->intake, record_frame(records + at), size - LENGTH_BYTES, vnet);
        if (frames > 0 && admitted != stretch.admitted)
            return (struct stretch){.bytes = at, .frames = frames, .admitted = stretch.admitted};
        stretch.admitted = admitted;
    }
    if (stretch.admitted || at == view->bytes)
        return (struct stretch){.bytes = view->bytes, .frames = frames, .admitted = stretch.admitted};
    return (struct stretch){.bytes = at, .frames = frames, .admitted = false};
}
