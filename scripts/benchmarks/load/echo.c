/* Round trips: one VM sends a frame, the other sends it back, one at a time.
 *
 * Two threads. What does not come back within LOST_MS is lost; if it comes later it is ignored.
 */
#include "load.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_SAMPLES = 1 << 21 };

static _Atomic bool over;

struct answerer {
    struct link link;
    struct reader reader;
    struct burst request, reply;
};

static void *answer(void *argument) {
    struct answerer *self = argument;
    uint64_t sequence;
    size_t size;
    while (!atomic_load(&over) && !self->link.ended) {
        if (!reader_fill(&self->reader)) continue;
        for (const uint8_t *frame; (frame = reader_next(&self->reader, &size));) {
            if (frame_check(frame, size, &self->request, &sequence) != FRAME_GOOD) continue;
            frame_stamp(burst_frame(&self->reply, 0), size, self->reply.run, sequence);
            burst_send(&self->link, &self->reply, 1, now_ns() + LOST_MS * UINT64_C(1000000));
        }
    }
    reader_end(&self->reader);
    return NULL;
}

/* Wait for the answer to `wanted`. False: it did not come. */
static bool answered(struct reader *reader, const struct burst *reply, uint64_t wanted, uint64_t deadline) {
    uint64_t sequence;
    size_t size;
    while (!stopping && !reader->link->ended && now_ns() < deadline) {
        if (!reader_fill(reader)) continue;
        for (const uint8_t *frame; (frame = reader_next(reader, &size));)
            if (frame_check(frame, size, reply, &sequence) == FRAME_GOOD && sequence == wanted) return true;
    }
    return false;
}

int run_echo(int count, char **words) {
    if (count != 7) die("echo KIND SIZE SECONDS ASKING_FD ANSWERING_FD ASKING_MAC ANSWERING_MAC");
    size_t size = word_size(words[1]);
    uint32_t run = (uint32_t)getpid();
    uint8_t asking[6], answering[6];
    word_mac(words[5], asking);
    word_mac(words[6], answering);
    struct link link = link_open((int)word_size(words[3]), words[0]);
    struct burst request = burst_make(&link, size, run, answering, asking);
    struct burst reply = burst_make(&link, size, run, asking, answering);
    struct reader reader = reader_make(&link, size);
    struct answerer other = {.link = link_open((int)word_size(words[4]), words[0]), .request = request};
    other.reply = burst_make(&other.link, size, run, asking, answering);
    other.reader = reader_make(&other.link, size);

    uint32_t *samples = malloc(MOST_SAMPLES * sizeof *samples);
    if (!samples) die("out of memory");
    uint64_t asked = 0, lost = 0, start = now_ns(), end = start + (uint64_t)(strtod(words[2], NULL) * 1e9);
    size_t known = 0;
    pthread_t thread;
    if (pthread_create(&thread, NULL, answer, &other)) die("no thread");
    for (uint64_t begun; !stopping && !link.ended && known < MOST_SAMPLES && (begun = now_ns()) < end;) {
        frame_stamp(burst_frame(&request, 0), size, run, ++asked);
        burst_send(&link, &request, 1, begun + LOST_MS * UINT64_C(1000000));
        if (link.cut) break;
        if (answered(&reader, &reply, asked, begun + LOST_MS * UINT64_C(1000000)))
            samples[known++] = (uint32_t)(now_ns() - begun);
        else
            lost++;
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    reader_end(&reader);

    printf("{\"asked\": %" PRIu64 ", \"answered\": %zu, \"lost\": %" PRIu64 ", \"cut\": %s, \"ended\": %s", asked, known,
           lost, link.cut ? "true" : "false", link.ended || other.link.ended ? "true" : "false");
    samples_print(samples, known);
    printf("}\n");
    return 0;
}
