#include "egress/egress_stream.h"

#include "egress/egress_write.h"
#include "packet/frame.h"

/* Frames from so many bytes on cost less as parts of a call than as a copy. */
#define GATHER_BYTES 4096u

/* Frames that one gathering call takes: RUN_BYTES of the shortest that are worth it, and some more. */
#define GATHERED 80u

/* Of the copy so much is made at once: its lengths are read while it lies in the first cache. memmove makes it, since
   compilers put `rep movs` for a memcpy of at most 8 KiB, and that is slower from another core's cache. */
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
            memmove(copy + copied, span->records + copied, more);
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
        memmove(copy + copied, span->records + copied, at - copied);
    out->staged_frames += frames;
    out->to += at;
    return at;
}

/* Of the staged frames the VM has the first `out.from` bytes. The frames behind these go back to the ring, where they
   outlive this worker; the rest of a frame that was cut stays. Returns the bytes of the frames that are begun. */
static uint64_t keep_begun(struct engine *e, uint64_t now)
{
    struct egress *out = &e->out;
    uint32_t at, frames = records_begun(out->staging, out->to, out->from, &at);
    out->to = at;
    out->staged_frames = frames;
    egress_flush(e, now);
    return at;
}

static bool write_copies(struct engine *e, const struct span *spans, unsigned count, uint64_t *taken, uint64_t now)
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

/* Frames where they lie, each behind a length of ours: its parts are 2 * i and 2 * i + 1. */
struct gathered {
    uint8_t lengths[GATHERED][LENGTH_BYTES];
    struct iovec parts[2 * GATHERED];
    unsigned count;
    uint64_t bytes;
};

/* Add the records of a span; false if one of them may not go as it is, or there is no place for it. */
static bool gather(struct gathered *gathered, const struct span *span, uint32_t longest)
{
    uint32_t size;
    for (uint32_t at = 0; at < span->bytes; at += size) {
        const uint8_t *record = span->records + at;
        unsigned i = gathered->count;
        if (i == GATHERED || record_next(record, span->bytes - at, &size) != RECORD_WHOLE || size - LENGTH_BYTES > longest)
            return false;
        store_be32(gathered->lengths[i], size - LENGTH_BYTES);
        gathered->parts[2 * i] = (struct iovec){.iov_base = gathered->lengths[i], .iov_len = LENGTH_BYTES};
        gathered->parts[2 * i + 1] =
            (struct iovec){.iov_base = (void *)(uintptr_t)record_frame(record), .iov_len = size - LENGTH_BYTES};
        gathered->bytes += size;
        gathered->count++;
    }
    return true;
}

/* The rest of a frame of which the VM has the beginning follows from the staging. */
static void stage_rest(struct engine *e, const struct iovec parts[2], uint64_t written)
{
    struct egress *out = &e->out;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t skipped = written < parts[i].iov_len ? written : parts[i].iov_len;
        uint32_t rest = (uint32_t)(parts[i].iov_len - skipped);
        memcpy(out->staging + out->to, (const uint8_t *)parts[i].iov_base + skipped, rest);
        out->to += rest;
        written -= skipped;
    }
    out->staged_frames++;
}

static bool write_gathered(struct engine *e, const struct span *spans, unsigned count, uint64_t *taken, uint64_t now)
{
    struct gathered gathered;
    gathered.count = 0;
    gathered.bytes = *taken = 0;
    for (unsigned i = 0; i < count && gather(&gathered, &spans[i], e->intake.longest); i++)
        continue;
    if (gathered.count == 0)
        return false;
    uint64_t sent = egress_write_parts(e, gathered.parts, 2 * gathered.count, gathered.bytes, now);
    for (unsigned i = 0; i < gathered.count && *taken < sent; i++) {
        const struct iovec *parts = &gathered.parts[2 * i];
        uint64_t size = parts[0].iov_len + parts[1].iov_len;
        port_sight_frame(e, parts[1].iov_base, (uint32_t)parts[1].iov_len, CAPTURE_OUT, NULL);
        if (*taken + size > sent)
            stage_rest(e, parts, sent - *taken);
        else
            egress_count_frames(e, 1);
        *taken += size;
    }
    return true;
}

/* Do the runs have long frames? The description of a run may lie; then it is only slower. */
static bool is_worth_gathering(const struct run_view *views, unsigned count)
{
    uint64_t bytes = 0, frames = 0;
    for (unsigned i = 0; i < count; i++) {
        bytes += views[i].run.bytes;
        frames += views[i].run.frames;
    }
    return bytes >= frames * GATHER_BYTES;
}

bool egress_write_stream(struct engine *e, const struct run_view *views, const struct span *spans, unsigned count,
                         uint64_t *taken, uint64_t now)
{
    return is_worth_gathering(views, count) ? write_gathered(e, spans, count, taken, now)
                                            : write_copies(e, spans, count, taken, now);
}
