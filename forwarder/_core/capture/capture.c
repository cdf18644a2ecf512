#include "capture/capture.h"

#include <errno.h>
#include <stdlib.h>

#include "packet/frame.h"

_Static_assert(sizeof(struct capture_head) == 16, "the head of a captured frame is part of the shared layout");

struct capture {
    struct flood_tx ring;
    uint32_t snap;
    uint32_t count;
    struct cbpf_insn program[];
};

struct capture *capture_open(int fd, uint32_t port, uint64_t epoch, const struct cbpf_insn *program, uint32_t count,
                             uint32_t snap)
{
    if (count > 0 && !cbpf_check(program, count)) {
        errno = EINVAL;
        return NULL;
    }
    struct capture *capture = malloc(sizeof *capture + count * sizeof *program);
    if (capture == NULL)
        return NULL;
    if (flood_tx_open(&capture->ring, fd, port, epoch) < 0) {
        free(capture);
        return NULL;
    }
    capture->snap = snap < CAPTURE_SNAP_MOST ? snap : CAPTURE_SNAP_MOST;
    capture->count = count;
    if (count > 0)
        memcpy(capture->program, program, count * sizeof *program);
    return capture;
}

void capture_close(struct capture *capture)
{
    if (capture == NULL)
        return;
    flood_tx_close(&capture->ring);
    free(capture);
}

void capture_frame(struct capture *capture, const uint8_t *frame, uint32_t bytes, const struct sighting *sighting)
{
    uint32_t wanted = capture->count > 0 ? cbpf_run(capture->program, frame, bytes) : bytes;
    if (wanted == 0)
        return;
    struct capture_head head = {.time_ns = sighting->now,
                                .length = bytes,
                                .peer = sighting->peer,
                                .way = sighting->way,
                                .reason = sighting->reason};
    uint32_t kept = wanted < bytes ? wanted : bytes;
    if (kept > capture->snap)
        kept = capture->snap;
    flood_put_behind(&capture->ring, &head, sizeof head, frame, kept, FLOOD_GROUP);
}

void capture_records(struct capture *capture, const uint8_t *records, uint32_t bytes, const struct sighting *sighting)
{
    uint32_t size;
    for (uint32_t at = 0; record_next(records + at, bytes - at, &size) == RECORD_WHOLE; at += size)
        if (size >= MIN_RECORD + sighting->header)
            capture_frame(capture, record_frame(records + at) + sighting->header,
                          size - LENGTH_BYTES - sighting->header, sighting);
}

void capture_publish(struct capture *capture)
{
    flood_publish(&capture->ring);
}
