/* The two framings of streams: convert frames to records and back if the framing is not that of records.

   Theory of operation. A frame on a stream follows its length: in 4 bytes, big-endian (QEMU's), or in 2, little-endian
   (what gvproxy's clients speak after POST /connect). Rings, pending queues and flood rings carry records and nothing
   else (frame.h). QEMU's framing is that of records, so what a VM sends is neither copied nor inspected here, except frames
   that get a header in front (infer.h). The other framing exists only between the kernel and the engine's private
   memory.

     ingress   bytes as they came ── unpack ──► records, in a buffer of their own, all whole ──► switch
     egress    runs in the ring ── egress_stage.c ──► the staging, each frame behind a length of its own ──► the VM

   A partial frame stays where it was read, so unpack handles whole frames only and ignores the rest: one large chunk
   gives the same result as single bytes. A length is checked here, in either direction, and nowhere later. Below
   MIN_FRAME it ends the link as on any stream, above MAX_FRAME, too, which 2 bytes cannot say.

   A frame above MAX_FRAME16 has no length of 2 bytes. It is left out whole and counted as refused: gvproxy writes such
   a frame behind a length that is too small, and the VM reads the rest of it as lengths for ever (pkg/tap/protocols.go,
   hyperkitProtocol).

   A stream's ring is consumed by whole frames. A short write cuts a frame in the staging, and no ring is in the middle of
   a frame between two writes. So a source may go at any moment: the rest of a frame that the VM has begun to read is in the
   staging. */
#ifndef BULKHEAD_FRAMING_H
#define BULKHEAD_FRAMING_H

#include "packet/frame.h"

#define LENGTH16_BYTES 2u
#define MAX_FRAME16 65535u

/* Most bytes that so many bytes of a stream can become: every frame grows by the same, so the shortest frames grow
   most. */
#define UNPACKED_BYTES(stream)                                                                                         \
    ((stream) + (stream) / (LENGTH16_BYTES + MIN_FRAME) * (VNET_BYTES + LENGTH_BYTES - LENGTH16_BYTES))

struct framing {
    uint32_t prefix; /* bytes of a frame's length: LENGTH_BYTES or LENGTH16_BYTES */
    uint32_t gap;    /* left free in front of each frame that is unpacked, in its record: VNET_BYTES or 0 */
};

/* Make records of the whole frames at the front of `stream`; `records` has room for UNPACKED_BYTES of it. Returns
   the bytes of the stream that are records now. *status says what stopped it: RECORD_PARTIAL or a bad length. */
uint32_t framing_unpack(struct framing framing, const uint8_t *stream, uint32_t available, uint8_t *records,
                        uint32_t *used, enum record_status *status);

/* Write the length of a frame of `bytes` in front of it; false if it cannot be said. */
static inline bool framing_seal(uint32_t prefix, uint8_t *at, uint32_t bytes)
{
    if (LIKELY(prefix == LENGTH_BYTES))
        store_be32(at, bytes);
    else if (bytes <= MAX_FRAME16)
        store_le16(at, bytes);
    else
        return false;
    return true;
}

#endif
