#include "packet/framing16.h"

uint32_t framing16_unpack(const uint8_t *stream, uint32_t available, uint8_t *records, uint32_t *used,
                          enum record_status *status)
{
    uint32_t at = 0, to = 0;
    *status = RECORD_PARTIAL;
    while (available - at >= LENGTH16_BYTES) {
        uint32_t length = load_le16(stream + at);
        if (UNLIKELY(length < MIN_FRAME)) {
            *status = RECORD_RUNT;
            break;
        }
        if (available - at - LENGTH16_BYTES < length)
            break;
        store_be32(records + to, length);
        memcpy(records + to + LENGTH_BYTES, stream + at + LENGTH16_BYTES, length);
        at += LENGTH16_BYTES + length;
        to += LENGTH_BYTES + length;
    }
    *used = to;
    return at;
}

struct packed framing16_pack(const uint8_t *records, uint32_t bytes, uint8_t *out)
{
    struct packed packed = {0};
    uint32_t size;
    while (record_next(records + packed.taken, bytes - packed.taken, &size) == RECORD_WHOLE) {
        const uint8_t *frame = record_frame(records + packed.taken);
        uint32_t length = size - LENGTH_BYTES;
        packed.taken += size;
        if (UNLIKELY(length > MAX_FRAME16)) {
            packed.refused++;
            continue;
        }
        store_le16(out + packed.bytes, length);
        memcpy(out + packed.bytes + LENGTH16_BYTES, frame, length);
        packed.bytes += LENGTH16_BYTES + length;
        packed.frames++;
    }
    return packed;
}
