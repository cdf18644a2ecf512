/* Fuzz target: a frame behind a virtio_net_hdr, as a program behind a TAP may have it sent; and the same frame without,
   as a VM may send it through a socket.

   What the frame becomes must stay within the bytes promised, keep the addresses, and together carry the payload: no
   byte of it lost or twice. A frame that was finished needs nothing more: done again, without its header's wishes, it
   stays what it is, and it claims what it claimed before. Shortened, a frame becomes the same but the last. A header that
   is inferred is always one that makes sense; what was finished by it stays what it is when its header is inferred
   again. */
#include <stdlib.h>

#include "offload/infer.h"
#include "offload/offload.h"
#include "packet/claim.h"
#include "packet/frame.h"

static void must(bool done)
{
    if (!done)
        abort();
}

static void expect_unchanged(const uint8_t *record, uint32_t bytes)
{
    static uint8_t plain[VNET_BYTES + MAX_FRAME], again[MAX_RECORD];
    struct offload offload;
    memset(plain, 0, VNET_BYTES);
    memcpy(plain + VNET_BYTES, record_frame(record), bytes - LENGTH_BYTES);
    must(offload_open(&offload, plain, VNET_BYTES + bytes - LENGTH_BYTES));
    must(offload_next(&offload, again) == bytes && offload_is_done(&offload) && memcmp(again, record, bytes) == 0);
}

static void expect_shorter(const uint8_t *data, uint32_t size, uint32_t frames)
{
    struct offload offload;
    uint8_t *vnet = malloc(size);
    must(vnet != NULL);
    memcpy(vnet, data, size);
    uint32_t left = offload_shorten(vnet, size), parts = 0;
    must((left != 0) == (frames > 1) && left < size);
    if (left == 0)
        must(memcmp(vnet, data, size) == 0);
    else
        must(offload_open(&offload, vnet, left));
    while (left != 0 && !offload_is_done(&offload)) {
        static uint8_t record[MAX_RECORD];
        offload_next(&offload, record);
        parts++;
    }
    must(left == 0 || parts == frames - 1);
    free(vnet);
}

/* Infer the header of the frame in `record` and do what it asks for: nothing changes. */
static void expect_finished(const uint8_t *record, uint32_t bytes, uint32_t mtu)
{
    static uint8_t headed[VNET_BYTES + MAX_FRAME], again[MAX_RECORD];
    struct offload offload;
    memcpy(headed + VNET_BYTES, record_frame(record), bytes - LENGTH_BYTES);
    infer(headed, headed + VNET_BYTES, bytes - LENGTH_BYTES, mtu);
    must(offload_open(&offload, headed, VNET_BYTES + bytes - LENGTH_BYTES));
    must(offload_next(&offload, again) == bytes && offload_is_done(&offload) && memcmp(again, record, bytes) == 0);
}

static void expect_inferred(const uint8_t *frame, uint32_t bytes, uint32_t mtu)
{
    struct offload offload;
    uint8_t *headed = malloc(VNET_BYTES + bytes);
    must(headed != NULL);
    memcpy(headed + VNET_BYTES, frame, bytes);
    bool unfinished = infer(headed, headed + VNET_BYTES, bytes, mtu) == SUM_BEGUN;
    must(offload_is_sound(headed, headed + VNET_BYTES, bytes) && offload_open(&offload, headed, VNET_BYTES + bytes));
    must(unfinished == (offload.sum_at != 0));
    bool cut = offload.headers != 0;
    while (!offload_is_done(&offload)) {
        uint32_t size = offload_next_bytes(&offload);
        uint8_t *record = malloc(size);
        must(record != NULL && offload_next(&offload, record) == size);
        must(!cut || size <= LENGTH_BYTES + offload.ip + mtu);
        if (unfinished)
            expect_finished(record, size, mtu);
        free(record);
    }
    free(headed);
}

/* What the guard has read is the same in the finished frame. */
static void expect_same_claim(const uint8_t *before, uint32_t bytes, const uint8_t *record)
{
    struct claim claim, after;
    claim_read(&claim, before, bytes);
    claim_read(&after, record_frame(record), load_be32(record));
    must(claim.kind == CLAIM_HIDDEN
         || (after.kind == claim.kind && after.count == claim.count
             && memcmp(after.address, claim.address, sizeof after.address) == 0));
}

static void expect_done(const uint8_t *data, uint32_t size)
{
    struct offload offload;
    if (!offload_is_sound(data, data + VNET_BYTES, size - VNET_BYTES) || !offload_open(&offload, data, size))
        return;
    uint32_t frames = 0, payload = 0, headers = offload.headers;
    while (!offload_is_done(&offload)) {
        uint32_t bytes = offload_next_bytes(&offload);
        uint8_t *record = malloc(bytes);
        must(record != NULL && bytes <= MAX_RECORD && offload_next(&offload, record) == bytes);
        must(load_be32(record) == bytes - LENGTH_BYTES && bytes >= MIN_RECORD);
        must(memcmp(record_frame(record), data + VNET_BYTES, ADDRESSES_BYTES) == 0);
        expect_same_claim(data + VNET_BYTES, size - VNET_BYTES, record);
        if (headers != 0)
            must(memcmp(record_frame(record) + headers, data + VNET_BYTES + headers + payload,
                        bytes - LENGTH_BYTES - headers)
                 == 0);
        expect_unchanged(record, bytes);
        payload += bytes - LENGTH_BYTES - headers;
        free(record);
        frames++;
    }
    must(headers + payload == size - VNET_BYTES && frames <= size / SEGMENT_LEAST);
    expect_shorter(data, size, frames);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < VNET_BYTES + MIN_FRAME || size > MAX_FRAME)
        return 0;
    expect_done(data, (uint32_t)size);
    expect_inferred(data + VNET_BYTES, (uint32_t)size - VNET_BYTES, load_le16(data + 4)); /* the segment as the MTU */
    return 0;
}
