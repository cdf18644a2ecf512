/* Round trips under a flow: now and then a small frame that goes behind the flow's own and is sent back.
 *
 * The flow's sender asks, between two of its bursts, since two writers would mix their frames on a stream; so a request
 * waits behind all that is in flight, as an interactive connection's packet does beside a bulk transfer. The flow's
 * receiver answers, and a thread at the sending VM takes the answers. One request is on its way at a time, the next one
 * follows PAUSE_US after its answer: few enough not to be a load of their own.
 */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAUSE_US = 500, MOST_SAMPLES = 1 << 20, SIZE = 60 };
static const uint32_t ANOTHER_RUN = 0x80000000; /* no process id has this bit */

static void *take_answers(void *argument) {
    struct probe *self = argument;
    uint64_t sequence;
    size_t size;
    while (!atomic_load(&self->over) && !self->asking.ended && self->known < MOST_SAMPLES) {
        if (!reader_fill(&self->reader)) continue;
        for (const uint8_t *frame; (frame = reader_next(&self->reader, &size));) {
            if (frame_check(frame, size, &self->reply, &sequence) != FRAME_GOOD) continue;
            if (sequence != atomic_load(&self->asked) || sequence == atomic_load(&self->answered)) continue;
            uint64_t now = now_ns();
            if (self->known < MOST_SAMPLES) self->samples[self->known++] = (uint32_t)(now - atomic_load(&self->sent_at));
            atomic_store(&self->due, now + PAUSE_US * UINT64_C(1000));
            atomic_store(&self->answered, sequence);
        }
    }
    reader_end(&self->reader);
    return NULL;
}

void probe_start(struct probe *probe, const struct link *asking, const struct link *answering, uint32_t run,
                 const uint8_t *src, const uint8_t *dst) {
    probe->on = true;
    probe->asking = *asking;
    probe->request = burst_make(asking, SIZE, run ^ ANOTHER_RUN, dst, src);
    probe->reply = burst_make(asking, SIZE, run ^ ANOTHER_RUN, src, dst);
    probe->answer = burst_make(answering, SIZE, run ^ ANOTHER_RUN, src, dst);
    probe->reader = reader_make(&probe->asking, LARGEST);
    probe->samples = malloc(MOST_SAMPLES * sizeof *probe->samples);
    if (!probe->samples) die("out of memory");
    if (pthread_create(&probe->thread, NULL, take_answers, probe)) die("no thread");
}

void probe_ask(struct probe *probe, struct link *link) {
    uint64_t now, asked = atomic_load(&probe->asked);
    if (!probe->on || (now = now_ns()) < atomic_load(&probe->due)) return;
    if (asked != atomic_load(&probe->answered)) {
        if (now - atomic_load(&probe->sent_at) < LOST_MS * UINT64_C(1000000)) return;
        probe->lost++;
    }
    frame_stamp(burst_frame(&probe->request, 0), SIZE, probe->request.run, asked + 1);
    atomic_store(&probe->sent_at, now);
    atomic_store(&probe->asked, asked + 1); /* before the answer can be there */
    burst_send(link, &probe->request, 1, now + LOST_MS * UINT64_C(1000000));
}

bool probe_answer(struct probe *probe, struct link *link, const uint8_t *frame, size_t size) {
    uint64_t sequence;
    if (!probe->on || frame_check(frame, size, &probe->request, &sequence) != FRAME_GOOD) return false;
    /* Only the receiver's thread comes here, so the frame to send is its own. */
    frame_stamp(burst_frame(&probe->answer, 0), SIZE, probe->answer.run, sequence);
    burst_send(link, &probe->answer, 1, now_ns() + LOST_MS * UINT64_C(1000000));
    return true;
}

void probe_end(struct probe *probe) {
    if (!probe->on) return;
    atomic_store(&probe->over, true);
    pthread_join(probe->thread, NULL);
    printf(", \"under_load\": {\"asked\": %" PRIu64 ", \"answered\": %zu, \"lost\": %" PRIu64, atomic_load(&probe->asked),
           probe->known, probe->lost);
    samples_print(probe->samples, probe->known);
    printf("}");
}
