#include "egress/egress_admit.h"

#include "packet/offload.h"

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

struct stretch egress_admit(const struct engine *e, const struct run_view *view)
{
    struct stretch stretch = {.bytes = view->bytes, .admitted = true};
    const uint8_t *records = view->records;
    uint32_t at = 0, frames = 0, size;
    bool vnet = view->run.vnet != 0;
    if (LIKELY(e->vhost != NULL || is_free(&e->intake, vnet)))
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
