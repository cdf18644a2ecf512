/* Copies of what one port sees, for readers outside of the switch.

   Theory of operation. A capture is a ring (capture_ring.h) with one frame to a record. The worker copies what has room
   and counts the rest, so a capture costs it no more than its reader can take, and never a wait. A port has a list of
   captures, each under a number of its own: one that is stuck keeps no other from beginning. While the list is empty
   that costs a test of a pointer for each run.

   A frame is seen up to three times, by the worker of its port:

     CAPTURE_IN    it came from the VM, before any decision; these are rx_frames
     CAPTURE_OUT   it was written to the VM (on a stream: it will be, it is behind others); these are tx_frames
     CAPTURE_DROP  it was dropped; the reason is the counter that was charged

   A frame without room in a ring was dropped by its sender's worker, and `peer` is the port that it was for.

   The captured bytes are those on the wire of that port: without a virtio_net_hdr, but with its large length and its
   partial checksum. A filter looks at the whole frame; at most `snap` bytes of it are kept.

   Example: `tcp` with snap 128 on a VM that sends 3 TCP frames of 1,514 bytes and an ARP request, the third TCP frame
   spoofed: records IN 128 of 1,514, IN, IN, DROP "spoofed"; ARP is not wanted, and costs 5 instructions.

   Called by the thread that runs the engine only. captures_add allocates, captures_end and captures_end_all free. */
#ifndef BULKHEAD_CAPTURE_H
#define BULKHEAD_CAPTURE_H

#include "capture/capture_ring.h"
#include "capture/cbpf.h"

enum capture_way { CAPTURE_IN = 1, CAPTURE_OUT = 2, CAPTURE_DROP = 3 };

/* The reason of a drop that is counted at another port, so not in this port's page. */
#define CAPTURE_EGRESS_FULL 255u

/* One of a list; NULL is the list without any. */
struct capture;

/* Whose frames. */
struct captured_port {
    uint32_t port;
    uint64_t epoch;
};

/* Which of them. */
struct wanted_frames {
    const struct cbpf_insn *program; /* `count` instructions, which are copied; 0: every frame is wanted */
    uint32_t count;
    uint32_t snap; /* most bytes kept of a frame */
};

/* Begin the capture `number`, instead of one that has that number. `fd`: a capture ring made for this port and epoch.
   -1 and errno (EINVAL: the program is none), and the list is as it was. */
int captures_add(struct capture **first, uint32_t number, int fd, struct captured_port of, struct wanted_frames wanted);

/* A number that is not there is ignored. The reader finds all that was captured. */
void captures_end(struct capture **first, uint32_t number);
void captures_end_all(struct capture **first);

/* The common facts of a frame, or of all frames of a run. */
struct sighting {
    uint64_t now;
    uint32_t header; /* bytes in front of each frame, in its record, that are not the frame's */
    uint16_t peer;
    uint8_t way;
    uint8_t reason;
};

/* Copy a frame to each capture of the list that wants it. */
void captures_frame(struct capture *first, const uint8_t *frame, uint32_t bytes, const struct sighting *sighting);

/* Each of the records, all of them whole. */
void captures_records(struct capture *first, const uint8_t *records, uint32_t bytes, const struct sighting *sighting);

/* Show the readers what was captured so far. */
void captures_publish(struct capture *first);

#endif
