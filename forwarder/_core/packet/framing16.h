/* Streams whose lengths are 16 bits, little-endian: what gvproxy's clients speak after POST /connect.

   Theory of operation. Rings, pending queues and flood rings carry records and nothing else (frame.h), so this framing
   exists between the kernel and the engine's private memory only, and is made into records and out of them
   there. That costs one copy each way, which is the price of one format for everybody else.

     ingress   bytes as they came ── unpack ──► records, in a buffer of their own, all whole ──► switch
     egress    runs in the ring ───── pack ───► the staging ──► the VM

   A partial frame stays where it was read, so unpack sees whole frames only, and what it leaves is what it has
   not looked at: one chunk equals byte by byte. A length is checked here, in either direction, and nowhere
   later. Below MIN_FRAME it ends the link as on any stream; it cannot be above MAX_FRAME.

   A frame above MAX_FRAME16 has no length here. It is left out whole and counted as refused: gvproxy writes such a
   frame behind a length that is too small, and the VM reads the rest of it as lengths for ever
   (pkg/tap/protocols.go, hyperkitProtocol).

   A ring is consumed by whole runs, when they have been packed: what is cut by a short write is in the staging,
   and no ring is in the middle of a run between two writes. So a source may go at any moment and takes nothing
   of a frame with it that the VM has begun to read. */
#ifndef BULKHEAD_FRAMING16_H
#define BULKHEAD_FRAMING16_H

#include "packet/frame.h"

#define LENGTH16_BYTES 2u
#define MAX_FRAME16 65535u

/* What so many bytes of a stream can become at the most: every frame grows by the same, the shortest are most. */
#define UNPACKED_BYTES(stream) ((stream) + (stream) / (LENGTH16_BYTES + MIN_FRAME) * (LENGTH_BYTES - LENGTH16_BYTES))

/* Make records of the whole frames at the front of `stream`; `records` has room for UNPACKED_BYTES of it. Returns
   the bytes of the stream that are records now. *status says what stopped it: RECORD_PARTIAL or RECORD_RUNT. */
uint32_t framing16_unpack(const uint8_t *stream, uint32_t available, uint8_t *records, uint32_t *used,
                          enum record_status *status);

struct packed {
    uint32_t taken;   /* bytes of records; fewer than there are only where a length does not fit */
    uint32_t bytes;   /* written */
    uint32_t frames;  /* written */
    uint32_t refused; /* left out */
};

/* Make frames of this framing of records, which may lie in shared memory; `out` has room for as many bytes. */
struct packed framing16_pack(const uint8_t *records, uint32_t bytes, uint8_t *out);

#endif
