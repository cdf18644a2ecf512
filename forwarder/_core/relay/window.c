#include "relay/window.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define NS_PER_US 1000u

uint32_t window_of(uint64_t bytes, uint64_t passed, uint64_t round_trip)
{
    uint64_t longer = round_trip + round_trip / 4, span = longer > WINDOW_NS ? longer : WINDOW_NS;
    double bound = (double)bytes * (double)span / (double)passed;
    if (bound > WINDOW_MOST)
        return WINDOW_MOST;
    return bound > WINDOW_LEAST ? (uint32_t)bound : WINDOW_LEAST;
}

/* The shorter of the kernel's two measures; 0 if it has none. That of its own packets may be of a handshake in a busy
   moment, and that of the guest's data has the wait in the guest's queue in it. */
static uint64_t round_trip_of(int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
    uint32_t sent = info.tcpi_min_rtt, received = info.tcpi_rcv_rtt;
    uint32_t shorter = received != 0 && received < sent ? received : sent;
    return shorter == UINT32_MAX ? 0 : (uint64_t)shorter * NS_PER_US;
}

/* Whether the stream was silent before these bytes. */
static bool was_silent(const struct window *window, int fd, uint64_t now)
{
    uint64_t silence = now - window->last;
    return window->last == 0 || (silence > WINDOW_SILENCE_NS && silence > 2 * round_trip_of(fd));
}

/* Bound the window by the sample; false: it is too short. */
static bool bound(const struct window *window, int fd, uint64_t passed)
{
    if (window->bytes < WINDOW_SAMPLE_BYTES || passed < WINDOW_SAMPLE_NS)
        return false;
    uint64_t round_trip = round_trip_of(fd);
    if (passed < WINDOW_SAMPLE_TRIPS * round_trip)
        return false;
    uint32_t most = window_of(window->bytes, passed, round_trip);
    setsockopt(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &most, sizeof most);
    return true;
}

void window_took(struct window *window, int fd, uint64_t now)
{
    if (was_silent(window, fd, now) || bound(window, fd, now - window->since))
        *window = (struct window){.since = now};
    window->last = now;
}
