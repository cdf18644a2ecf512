/* The memcpy bound: what it takes to copy a frame out of one guest's memory into a ring, and from there into another's.
 *
 * One thread, no queues, no look at a frame, no wake-up: 256 frames side by side go through a ring of 1 MiB in runs
 * of 64 KiB. A switch that moves frames between two guests cannot do less.
 */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FRAMES = 256, RING_BYTES = 1 << 20, RUN_BYTES = 64 << 10 };

static uint64_t cpu_ns(void) {
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

int run_bound(int count, char **words) {
    if (count != 2) die("bound SIZE SECONDS");
    size_t size = word_size(words[0]), stride = (size + 127) & ~(size_t)63, each = size + LENGTH_BYTES;
    size_t run = RUN_BYTES / each ? RUN_BYTES / each : 1, room = RING_BYTES + each * run;
    uint8_t *from = aligned_alloc(4096, (FRAMES * stride + 4095) & ~(size_t)4095);
    uint8_t *to = aligned_alloc(4096, (FRAMES * stride + 4095) & ~(size_t)4095);
    uint8_t *ring = aligned_alloc(4096, (room + 4095) & ~(size_t)4095);
    if (!from || !to || !ring) die("out of memory");
    memset(from, 1, FRAMES * stride);
    memset(to, 2, FRAMES * stride);
    memset(ring, 3, room);
    uint64_t frames = 0, begun = cpu_ns(), end = now_ns() + (uint64_t)(strtod(words[1], NULL) * 1e9);
    for (size_t at = 0; now_ns() < end && !stopping; at = (at + run * each) % RING_BYTES) {
        for (size_t i = 0; i < run; i++) memcpy(ring + at + i * each, from + (frames + i) % FRAMES * stride, size);
        for (size_t i = 0; i < run; i++) memcpy(to + (frames + i) % FRAMES * stride, ring + at + i * each, size);
        frames += run;
    }
    printf("{\"frames\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 "}\n", frames, cpu_ns() - begun);
    return 0;
}
