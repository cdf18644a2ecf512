/* Fuzz target: the framings of streams, with lengths of 16 bits and of 32, either way.

   The input is what a VM sends, and then what a hostile ring holds. One chunk must become the same records as byte by
   byte, also with room for headers, and these the same bytes again; records must never become more bytes than they are. Buffers are exactly as
   long as the interface says, so that one byte too many is found. */
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
    struct packed packed = framing_pack(framing.prefix, once.records, once.bytes, MAX_FRAME, again);
    if (packed.taken != once.bytes || packed.bytes != once.taken || packed.refused != 0
        || memcmp(again, data, once.taken) != 0)
        abort();
    free(again);
    free(once.records);
}

static void from_a_ring(const uint8_t *records, uint32_t size)
{
    uint8_t *out = allocate(size);
    struct packed packed = framing_pack(framing.prefix, records, size, MAX_FRAME, out);
    struct unpacked again = unpack(out, packed.bytes, size);
    if (packed.taken > size || packed.bytes > packed.taken || again.taken != packed.bytes)
        abort();
    free(again.records);
    free(out);
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
        if (framing.gap == 0)
            from_a_ring(data, (uint32_t)size);
    }
    return 0;
}
