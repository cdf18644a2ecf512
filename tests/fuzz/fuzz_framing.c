/* Fuzz target: the framings of streams, with lengths of 16 bits and of 32, either way.

   The input is what a VM sends. One chunk must become the same records as byte by byte, also with room for headers, and
   these the same bytes again. Buffers are exactly as long as the interface says, so that one byte too many is found. */
#include <stdlib.h>

#include "packet/framing.h"

struct unpacked {
    uint8_t *records;
    uint32_t taken, bytes;
    enum record_status status;
};

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes > 0 ? bytes : 1);
    if (memory == NULL)
        abort();
    return memory;
}

static struct framing framing;

static struct unpacked unpack(const uint8_t *data, uint32_t size, uint32_t step)
{
    struct unpacked all = {.records = allocate(UNPACKED_BYTES(size)), .status = RECORD_PARTIAL};
    for (uint32_t to = 0; to < size && all.status == RECORD_PARTIAL;) {
        uint32_t used;
        to = size - to < step ? size : to + step;
        const uint8_t *rest = data + all.taken;
        all.taken += framing_unpack(framing, rest, to - all.taken, all.records + all.bytes, &used, &all.status);
        all.bytes += used;
    }
    return all;
}

/* The inverse. */
static uint32_t pack(const struct unpacked *all, uint8_t *out)
{
    uint32_t to = 0, size;
    for (uint32_t at = 0; at < all->bytes; at += size) {
        if (record_next(all->records + at, all->bytes - at, &size) != RECORD_WHOLE
            || !framing_seal(framing.prefix, out + to, size - LENGTH_BYTES))
            abort();
        memcpy(out + to + framing.prefix, record_frame(all->records + at), size - LENGTH_BYTES);
        to += framing.prefix + size - LENGTH_BYTES;
    }
    return to;
}

static void there_and_back(const uint8_t *data, uint32_t size)
{
    struct unpacked once = unpack(data, size, size), bytewise = unpack(data, size, 1);
    if (once.taken != bytewise.taken || once.bytes != bytewise.bytes || once.status != bytewise.status
        || memcmp(once.records, bytewise.records, once.bytes) != 0)
        abort();
    free(bytewise.records);
    if (framing.gap != 0) {
        free(once.records);
        return;
    }
    uint8_t *again = allocate(once.bytes);
    if (pack(&once, again) != once.taken || memcmp(again, data, once.taken) != 0)
        abort();
    free(again);
    free(once.records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1 << 18)
        return 0;
    static const struct framing framings[] = {{LENGTH16_BYTES, 0}, {LENGTH16_BYTES, VNET_BYTES},
                                              {LENGTH_BYTES, 0},   {LENGTH_BYTES, VNET_BYTES}};
    for (unsigned i = 0; i < sizeof framings / sizeof *framings; i++) {
        framing = framings[i];
        there_and_back(data, (uint32_t)size);
    }
    return 0;
}
