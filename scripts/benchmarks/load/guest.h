/* A guest behind a vhost-user socket: front-end, memory and driver in one, as far as a load generator needs it.
 *
 * It offers its frames one at a time, as drivers do: a descriptor (of long ones a table of pieces), the available ring,
 * the index, then a look at whether the device wants a kick. What is sent lies in the guest's memory already, as an
 * operating system's packets do, so nothing is copied here. Queues of GUEST_ENTRIES, event indices, mergeable buffers of
 * 4 KiB that lie side by side, so that a frame of many buffers is in one piece.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GUEST_ENTRIES = 256,
    GUEST_HEADER = 12,
    GUEST_BUFFER = 4096,
    GUEST_IN_FLIGHT = GUEST_ENTRIES - 64, /* frames, so that those stamped next are the driver's */
};

struct guest;

/* Speak for a guest with the switch at the other end of the socket. */
struct guest *guest_open(int fd);

/* Forget it; the descriptor stays the caller's. */
void guest_close(struct guest *guest);

/* The memory that the driver and the device share: descriptors, rings, tables. */
uint8_t *guest_queues(struct guest *guest, size_t *bytes);

/* Let the driver claim to have offered more frames than its queue holds. */
void guest_contradict(struct guest *guest);

/* Memory of the guest's. */
uint8_t *guest_memory(struct guest *guest, size_t bytes);

/* Offer the frame behind the header at `at`. False: the device takes none before the deadline. */
bool guest_send(struct guest *guest, uint8_t *at, size_t bytes, uint64_t deadline);

/* Wait at most so long for a frame. */
bool guest_wait(struct guest *guest, unsigned ms);

/* The next frame, in memory that is good until the next call; NULL: none is there. */
const uint8_t *guest_next(struct guest *guest, size_t *size);

#endif
