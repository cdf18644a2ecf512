/* Open-loop load: send whether or not anybody reads ("flood"), or read whatever comes ("sink"), until told to stop.
 *
 * A flood is paced, in steps of a millisecond, or as fast as its socket takes frames. Its frames go in turn to `count`
 * addresses that follow each other.
 */
#include "load.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const uint64_t STEP = 1000000;

/* Address the frame to the `index`th address after the first. */
static void redirect(uint8_t *frame, const uint8_t *first, uint64_t index) {
    uint32_t tail;
    memcpy(&tail, first + 2, sizeof tail);
    tail = htonl(ntohl(tail) + (uint32_t)index);
    memcpy(frame + 2, &tail, sizeof tail);
}

int run_flood(int count, char **words) {
    if (count != 7) die("flood KIND SIZE FRAMES_PER_SECOND(0: all it can) FD SRC_MAC FIRST_DST_MAC HOW_MANY");
    size_t size = word_size(words[1]);
    uint64_t rate = word_size(words[2]), targets = word_size(words[6]);
    struct link link = link_open((int)word_size(words[3]), words[0]);
    uint8_t src[6], dst[6];
    word_mac(words[4], src);
    word_mac(words[5], dst);
    struct burst burst = burst_make(&link, size, (uint32_t)getpid(), dst, src);

    uint64_t sent = 0, due = 0, step = now_ns(), waited = 0;
    while (!stopping && !link.ended && !link.cut) {
        uint64_t some = burst.capacity;
        if (rate) {
            if (due < rate) { /* in thousandths of a frame: one step's worth is `rate` */
                struct timespec until = {(time_t)(step / 1000000000), (long)(step % 1000000000)};
                clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
                step += STEP;
                due += rate;
            }
            some = due / 1000 < burst.capacity ? due / 1000 : burst.capacity;
            due -= some * 1000;
        }
        for (unsigned i = 0; i < some; i++) {
            if (targets > 1) redirect(burst_frame(&burst, i), dst, (sent + i) % targets);
            frame_stamp(burst_frame(&burst, i), size, burst.run, sent + i);
        }
        uint64_t begun = now_ns();
        sent += burst_send(&link, &burst, (unsigned)some, UINT64_MAX);
        uint64_t took = now_ns() - begun;
        waited += took;
        if (took > STEP) { /* what could not be sent in its time is not made up for */
            step = begun + took;
            due = 0;
        }
    }
    printf("{\"sent\": %" PRIu64 ", \"in_send_seconds\": %.6f, \"cut\": %s, \"ended\": %s}\n", sent,
           (double)waited / 1e9, link.cut ? "true" : "false", link.ended ? "true" : "false");
    return 0;
}

int run_sink(int count, char **words) {
    if (count != 2) die("sink KIND FD");
    struct link link = link_open((int)word_size(words[1]), words[0]);
    struct reader reader = reader_make(&link, LARGEST);
    uint64_t frames = 0, bytes = 0;
    size_t size;
    while (!stopping && !link.ended)
        if (reader_fill(&reader))
            while (reader_next(&reader, &size)) {
                frames++;
                bytes += size;
            }
    printf("{\"frames\": %" PRIu64 ", \"bytes\": %" PRIu64 "}\n", frames, bytes);
    return 0;
}
