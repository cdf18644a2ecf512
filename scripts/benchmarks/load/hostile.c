/* A guest that rewrites its queues while the switch uses them, until told to stop.
 *
 * It offers so many frames a second, in steps of 10 ms. Behind each offer it writes random words over the memory of its
 * queues: descriptors, tables, both rings, flags and event words. CONTRADICTIONS times a second it moves its index
 * further than its queue is long, for which the switch ends the link; then it comes again as a new VM. A sound guest
 * offers the same frames and writes nothing over them, so that the two cost the machine the same.
 */
#include "guest.h"
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FRAME_BYTES = 1514, SCRIBBLES = 4, CONTRADICTIONS = 2, STEPS_PER_SECOND = 100 };
static const uint64_t STEP = 1000000000 / STEPS_PER_SECOND;

struct counts {
    uint64_t offered, refused, links;
};

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static int dial(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timespec pause = {.tv_nsec = 10000000};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    while (!stopping && connect(fd, (struct sockaddr *)&address, sizeof address)) nanosleep(&pause, NULL);
    return fd;
}

static void scribble(struct guest *guest, uint64_t *random) {
    size_t bytes;
    uint8_t *queues = guest_queues(guest, &bytes);
    for (unsigned i = 0; i < SCRIBBLES; i++) {
        uint64_t word = next_random(random), at = next_random(random) % (bytes / 8) * 8;
        memcpy(queues + at, &word, sizeof word);
    }
}

static bool is_over(int fd) {
    uint8_t byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* One VM: from its set-up to the end of its link. */
static void live(int fd, uint64_t rate, bool sound, uint64_t *random, struct counts *counts) {
    struct guest *guest = guest_open(fd);
    uint8_t *frame = guest_memory(guest, GUEST_HEADER + FRAME_BYTES);
    uint64_t step = now_ns(), due = 0;
    memset(frame, 0, GUEST_HEADER + FRAME_BYTES);
    memset(frame + GUEST_HEADER, 2, 12);
    for (unsigned steps = 1; !stopping && !is_over(fd); steps++) {
        step += STEP;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME,
                        &(struct timespec){(time_t)(step / 1000000000), (long)(step % 1000000000)}, NULL);
        for (due += rate; due >= STEPS_PER_SECOND; due -= STEPS_PER_SECOND) {
            bool went = guest_send(guest, frame, FRAME_BYTES, 0);
            *(went ? &counts->offered : &counts->refused) += 1;
            if (!sound) scribble(guest, random);
        }
        if (!sound && steps % (STEPS_PER_SECOND / CONTRADICTIONS) == 0) guest_contradict(guest);
    }
    guest_close(guest);
}

int run_hostile(int count, char **words) {
    if (count != 3) die("hostile PATH FRAMES_PER_SECOND SOUND(0 or 1)");
    uint64_t random = now_ns() | 1;
    struct counts counts = {0};
    while (!stopping) {
        int fd = dial(words[0]);
        counts.links++;
        if (!stopping) live(fd, word_size(words[1]), word_size(words[2]) != 0, &random, &counts);
        close(fd);
    }
    printf("{\"sent\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"links\": %" PRIu64 "}\n", counts.offered,
           counts.refused, counts.links);
    return 0;
}
