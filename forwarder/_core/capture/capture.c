#include "capture/capture.h"

#include <errno.h>
#include <stdlib.h>

#include "packet/frame.h"

struct capture {
    struct capture *next;
    struct capture_tx ring;
    uint32_t number;
    uint32_t snap;
    uint32_t count;
    struct cbpf_insn program[];
};

int captures_add(struct capture **first, uint32_t number, int fd, struct captured_port of, struct wanted_frames wanted)
{
    if (wanted.count > 0 && !cbpf_check(wanted.program, wanted.count)) {
        errno = EINVAL;
        return -1;
    }
    struct capture *capture = malloc(sizeof *capture + wanted.count * sizeof *wanted.program);
    if (capture == NULL)
        return -1;
    if (capture_tx_open(&capture->ring, fd, of.port, of.epoch) < 0) {
        free(capture);
        return -1;
    }
    capture->number = number;
    capture->snap = wanted.snap;
    capture->count = wanted.count;
    if (wanted.count > 0)
        memcpy(capture->program, wanted.program, wanted.count * sizeof *wanted.program);
    captures_end(first, number);
    capture->next = *first;
    *first = capture;
    return 0;
}

void captures_end(struct capture **first, uint32_t number)
{
    struct capture **link = first;
    while (*link != NULL && (*link)->number != number)
        link = &(*link)->next;
    struct capture *ended = *link;
    if (ended == NULL)
        return;
    *link = ended->next;
    capture_publish(&ended->ring);
    capture_tx_close(&ended->ring);
    free(ended);
}

void captures_end_all(struct capture **first)
{
    while (*first != NULL)
        captures_end(first, (*first)->number);
}

static void capture_frame(struct capture *capture, const uint8_t *frame, uint32_t bytes, const struct sighting *sighting)
{
    uint32_t wanted = capture->count > 0 ? cbpf_run(capture->program, frame, bytes) : bytes;
    if (wanted == 0)
        return;
    uint32_t kept = wanted < bytes ? wanted : bytes;
    struct capture_head head = {.time_ns = sighting->now,
                                .length = bytes,
                                .kept = kept < capture->snap ? kept : capture->snap,
                                .peer = sighting->peer,
                                .way = sighting->way,
                                .reason = sighting->reason};
    capture_put(&capture->ring, &head, frame);
}

void captures_frame(struct capture *first, const uint8_t *frame, uint32_t bytes, const struct sighting *sighting)
{
    for (struct capture *capture = first; capture != NULL; capture = capture->next)
        capture_frame(capture, frame, bytes, sighting);
}

void captures_records(struct capture *first, const uint8_t *records, uint32_t bytes, const struct sighting *sighting)
{
    uint32_t size;
    for (uint32_t at = 0; record_next(records + at, bytes - at, &size) == RECORD_WHOLE; at += size)
        if (size >= MIN_RECORD + sighting->header)
            captures_frame(first, record_frame(records + at) + sighting->header, size - LENGTH_BYTES - sighting->header,
                           sighting);
}

void captures_publish(struct capture *first)
{
    for (struct capture *capture = first; capture != NULL; capture = capture->next)
        capture_publish(&capture->ring);
}
