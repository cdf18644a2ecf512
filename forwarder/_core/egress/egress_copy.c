#include "egress/egress_copy.h"

#include "egress/egress_write.h"
#include "packet/framing.h"

/* Of the copy so much is made at once: its lengths are read while it lies in the first cache. */
#define COPY_BYTES 8192u

/* Copy records to the end of the staging, and look at the lengths in the copy. Returns the bytes up to the first record
   that may not go as it is. */
static uint32_t stage_copy(struct engine *e, const struct span *span)
{
    struct egress *out = &e->out;
    uint8_t *copy = out->staging + out->to;
    const uint32_t longest = e->intake.longest;
    uint32_t at = 0, copied = 0, frames = 0, word = 0, size = UINT32_MAX;
    while (span->bytes - at >= LENGTH_BYTES) {
        while (copied < span->bytes && copied < at + LENGTH_BYTES) {
            uint32_t more = span->bytes - copied < COPY_BYTES ? span->bytes - copied : COPY_BYTES;
            memcpy(copy + copied, span->records + copied, more);
            copied += more;
        }
        /* Most frames of a run have one length. Then the next place does not wait for this length to be read. */
        uint32_t last = word;
        memcpy(&word, copy + at, sizeof word);
        if (UNLIKELY(word != last || span->bytes - at < size)
            && (record_next(copy + at, span->bytes - at, &size) != RECORD_WHOLE || size - LENGTH_BYTES > longest))
            break;
        frames++;
        at += size;
    }
    if (copied < at)
        memcpy(copy + copied, span->records + copied, at - copied);
    out->staged_frames += frames;
    out->to += at;
    return at;
}

/* Of the staged frames the VM has the first `out.from` bytes. The frames behind these go back to the ring, where they
   outlive this worker; the rest of a frame that was cut stays. Returns the bytes of the frames that are begun. */
static uint64_t keep_begun(struct engine *e, uint64_t now)
{
    struct egress *out = &e->out;
    uint32_t at = 0, frames = 0, size;
    for (; at < out->from && record_next(out->staging + at, out->to - at, &size) == RECORD_WHOLE; at += size)
        frames++;
    out->to = at;
    out->staged_frames = frames;
    egress_flush(e, now);
    return at;
}

bool egress_write_copies(struct engine *e, const struct span *spans, unsigned count, uint64_t *taken, uint64_t now)
{
    uint64_t staged = 0;
    for (unsigned i = 0; i < count; i++) {
        uint32_t bytes = stage_copy(e, &spans[i]);
        staged += bytes;
        if (bytes < spans[i].bytes)
            break;
    }
    if (staged == 0)
        return false;
    egress_flush(e, now);
    *taken = e->out.to == 0 ? staged : keep_begun(e, now);
    port_sight(e, e->out.staging, (uint32_t)*taken, 0, CAPTURE_OUT, NULL);
    return true;
}
