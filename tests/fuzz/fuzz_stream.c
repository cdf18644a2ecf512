/* Fuzz target: what a VM may send over a stream. One chunk must equal byte by byte.

   Two engines with one neighbour each get the same bytes, one in a single call and one byte by byte. Both must
   switch the same frames to the same places, count the same, and stop at the same bad length. */
#include <stdlib.h>
#include <unistd.h>

#include "ingress/switch.h"
#include "harness.h"

/* The switched memory belongs to the engine; here it is exactly as long as the input. */
static uint32_t feed(struct engine *e, const uint8_t *input, size_t size, size_t step, enum record_status *status)
{
    uint32_t from = 0;
    uint8_t *data = malloc(size > 0 ? size : 1);
    if (data == NULL)
        abort();
    memcpy(data, input, size);
    *status = RECORD_PARTIAL;
    for (size_t to = step < size ? step : size; *status == RECORD_PARTIAL; to = to + step < size ? to + step : size) {
        switch_begin(e);
        from += switch_records(e, data + from, (uint32_t)to - from, status);
        switch_end(e);
        if (to == size)
            break;
    }
    free(data);
    return from;
}

static void expect_same_counters(const struct engine *a, const struct engine *b)
{
    if (a->count.rx_frames != b->count.rx_frames || a->count.rx_bytes != b->count.rx_bytes
        || a->count.flooded != b->count.flooded || a->count.spoofed != b->count.spoofed
        || a->count.hairpin != b->count.hairpin)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pair *once = pair_open(), *bytewise = pair_open();
    enum record_status status_once, status_bytewise;
    if (size > 1 << 18)
        return 0;
    uint32_t all = feed(&once->engine, data, size, size, &status_once);
    uint32_t parts = feed(&bytewise->engine, data, size, 1, &status_bytewise);
    if (all != parts || status_once != status_bytewise)
        abort();
    expect_same_counters(&once->engine, &bytewise->engine);
    if (pair_digest(once) != pair_digest(bytewise))
        abort();
    pair_close(once);
    pair_close(bytewise);
    return 0;
}
