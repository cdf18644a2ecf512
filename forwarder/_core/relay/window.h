/* The window that the relay offers a guest: what its stream carries in two milliseconds.

   Theory of operation. TCP fills the queues in front of it. The kernel lets a window grow for as long as more bytes come
   in a round trip (net.ipv4.tcp_rmem: to 6 MiB, on some hosts 32), and more do come, since they wait in the queue that
   they form: in the guest's card, in its socket, in the ring. Behind them wait the guest's other packets, and the
   acknowledgements of what it receives. So the relay bounds the window by the rate that it sees: to the bytes of
   WINDOW_NS, or of a round trip and a quarter if that is longer (a guest may be far away), and to WINDOW_LEAST at least.
   This slows no stream: if its bytes take less time, the bound is more than what is under way, and grows with the rate.

   The kernel lifts the bound when it lets the socket's buffer grow, which happens a few times at the beginning of a
   stream. Therefore each sample sets it again.

   Example: a stream of 4 Gbit/s. In 10 ms 5 MB have come, so the window is 1 MB, and a packet behind it waits for 2 ms;
   behind 6 MiB it waited for 12.

   Single-threaded: for the set of connections, about the guest's end of each. */
#ifndef BULKHEAD_WINDOW_H
#define BULKHEAD_WINDOW_H

#include "common.h"

#define WINDOW_NS 2000000u
#define WINDOW_LEAST (512u << 10) /* less slows a VM that sends and receives at once */
#define WINDOW_MOST (1u << 30)    /* TCP has no larger ones (RFC 7323, section 2.2) */
/* A sample is not shorter in any of these, in round trips neither: a burst would be taken for a rate. */
#define WINDOW_SAMPLE_NS 10000000u
#define WINDOW_SAMPLE_BYTES (64u << 10)
#define WINDOW_SAMPLE_TRIPS 4u
/* A longer silence, and than two round trips, is no part of a stream: what comes after it begins a sample. */
#define WINDOW_SILENCE_NS 100000000u

struct window {
    uint64_t since, last; /* when the sample began, and when bytes came last; 0: there were none yet */
    uint64_t bytes;       /* taken from the guest in this sample */
};

/* The bound after so many bytes in so many ns; `round_trip` in ns. */
uint32_t window_of(uint64_t bytes, uint64_t passed, uint64_t round_trip);

/* Bytes have been taken from this TCP socket, and counted. If the sample is long enough, bound the window and begin the
   next sample. */
void window_took(struct window *window, int fd, uint64_t now);

#endif
