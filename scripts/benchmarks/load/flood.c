/* Open-loop load: send whether or not the other end reads ("flood"), or read everything ("sink"), until told to stop.
 *
 * A flood is paced, in steps, or as fast as its socket takes frames, after a rush of so many without a pause. Its frames
 * go in turn to `count` addresses that follow each other. They are its own, which can be checked, or have given bytes
 * after the addresses: headers of a protocol that the switch looks at. A sink counts what came from each of so many
 * addresses, and reads at most so many bytes a second.
 */
#include "load.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Every step takes the machine's cores from others for a moment; few long ones do so less often than many short ones. */
static const uint64_t STEP = 10000000;
enum { MOST_SENDERS = 64 };

/* Address the frame to the `index`th address after the first. */
static void redirect(uint8_t *frame, const uint8_t *first, uint64_t index) {
    uint32_t tail;
    memcpy(&tail, first + 2, sizeof tail);
    tail = htonl(ntohl(tail) + (uint32_t)index);
    memcpy(frame + 2, &tail, sizeof tail);
}

/* Put bytes given in hexadecimal digits after the addresses of all frames. */
static void put_headers(struct burst *burst, const char *digits) {
    size_t bytes = strlen(digits) / 2;
    if (12 + bytes > burst->size) die("these headers are longer than a frame");
    for (size_t i = 0; i < bytes; i++) {
        unsigned byte;
        if (sscanf(digits + 2 * i, "%2x", &byte) != 1) die("headers are hexadecimal digits");
        for (unsigned j = 0; j < burst->capacity; j++) burst_frame(burst, j)[12 + i] = (uint8_t)byte;
    }
}

static void sleep_until(uint64_t moment) {
    struct timespec until = {(time_t)(moment / 1000000000), (long)(moment % 1000000000)};
    if (moment) clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

int run_flood(int count, char **words) {
    if (count != 8 && count != 9)
        die("flood KIND SIZE FRAMES_PER_SECOND(0: all it can) FD SRC_MAC FIRST_DST_MAC HOW_MANY RUSH [HEADERS]");
    bool own = count == 8;
    size_t size = word_size(words[1]);
    uint64_t rate = word_size(words[2]), targets = word_size(words[6]), rush = word_size(words[7]);
    struct link link = link_open((int)word_size(words[3]), words[0]);
    uint8_t src[6], dst[6];
    word_mac(words[4], src);
    word_mac(words[5], dst);
    struct burst burst = burst_make(&link, size, (uint32_t)getpid(), dst, src);
    if (!own) put_headers(&burst, words[8]);

    uint64_t sent = 0, due = 0, step = 0, waited = 0;
    while (!stopping && !link.ended && !link.cut) {
        uint64_t some = burst.capacity;
        if (rate && sent >= rush) {
            if (!step) step = now_ns();
            if (due < rate) { /* in hundredths of a frame: one step's worth is `rate` */
                sleep_until(step);
                step += STEP;
                due += rate;
            }
            some = due / 100 < burst.capacity ? due / 100 : burst.capacity;
            due -= some * 100;
        }
        for (unsigned i = 0; i < some; i++) {
            if (targets > 1) redirect(burst_frame(&burst, i), dst, (sent + i) % targets);
            if (own) frame_stamp(burst_frame(&burst, i), size, burst.run, sent + i);
        }
        uint64_t begun = now_ns();
        sent += burst_send(&link, &burst, (unsigned)some, UINT64_MAX);
        uint64_t took = now_ns() - begun;
        waited += took;
        if (step && took > STEP) { /* what could not be sent in its time is not made up for */
            step = begun + took;
            due = 0;
        }
    }
    printf("{\"sent\": %" PRIu64 ", \"in_send_seconds\": %.6f, \"cut\": %s, \"ended\": %s}\n", sent,
           (double)waited / 1e9, link.cut ? "true" : "false", link.ended ? "true" : "false");
    return 0;
}

/* Which of the addresses from `first` on has sent this frame; beyond `count`: none of them. */
static uint32_t sender(const uint8_t *frame, const uint8_t *first) {
    uint32_t tail, base;
    memcpy(&tail, frame + 8, sizeof tail);
    memcpy(&base, first + 2, sizeof base);
    return memcmp(frame + 6, first, 2) ? UINT32_MAX : ntohl(tail) - ntohl(base);
}

int run_sink(int count, char **words) {
    if (count != 5) die("sink KIND FD FIRST_SRC_MAC HOW_MANY BYTES_PER_SECOND(0: all it can)");
    uint64_t senders = word_size(words[3]), limit = word_size(words[4]), each[MOST_SENDERS] = {0};
    uint8_t first[6];
    word_mac(words[2], first);
    if (senders > MOST_SENDERS) die("too many senders");
    struct link link = link_open((int)word_size(words[1]), words[0]);
    struct reader reader = reader_make(&link, LARGEST);
    uint64_t frames = 0, bytes = 0, begun = now_ns(), due = begun;
    size_t size;
    while (!stopping && !link.ended) {
        if (!reader_fill(&reader)) continue;
        for (const uint8_t *frame; (frame = reader_next(&reader, &size));) {
            uint32_t from = sender(frame, first);
            frames++;
            bytes += size;
            if (from < senders) each[from] += size;
            if (limit) due += size * UINT64_C(1000000000) / limit;
        }
        sleep_until(limit ? due : 0);
    }
    uint64_t took = now_ns() - begun;
    reader_end(&reader);
    printf("{\"frames\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"seconds\": %.6f, \"bytes_from\": [", frames, bytes,
           (double)took / 1e9);
    for (uint64_t i = 0; i < senders; i++) printf("%s%" PRIu64, i ? ", " : "", each[i]);
    printf("]}\n");
    return 0;
}
