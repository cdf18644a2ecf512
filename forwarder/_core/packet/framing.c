#include "packet/framing.h"

uint32_t framing_unpack(struct framing framing, const uint8_t *stream, uint32_t available, uint8_t *records,
                        uint32_t *used, enum record_status *status)
{
    uint32_t at = 0, to = 0;
    *status = RECORD_PARTIAL;
    while (available - at >= framing.prefix) {
        uint32_t length = framing.prefix == LENGTH_BYTES ? load_be32(stream + at) : load_le16(stream + at);
        if (UNLIKELY(length < MIN_FRAME || length > MAX_FRAME - framing.gap)) {
            *status = length < MIN_FRAME ? RECORD_RUNT : RECORD_OVERSIZE;
            break;
        }
        if (available - at - framing.prefix < length)
            break;
        store_be32(records + to, framing.gap + length);
        to += LENGTH_BYTES + framing.gap;
        memcpy(records + to, stream + at + framing.prefix, length);
        to += length;
        at += framing.prefix + length;
    }
    *used = to;
    return at;
}
