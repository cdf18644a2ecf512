#include "relay/window.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define NS_PER_US 1000u

uint32_t window_of(uint64_t bytes, uint64_t passed, uint64_t round_trip)
{
    uint64_t span = 2 * round_trip > WINDOW_NS ? 2 * round_trip : WINDOW_NS;
    double bound = (double)bytes * (double)span / (double)passed;
    if (bound > WINDOW_MOST)
        return WINDOW_MOST;
    return bound > WINDOW_LEAST ? (uint32_t)bound : WINDOW_LEAST;
}

static uint64_t shortest_round_trip(int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    bool is_known = getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_min_rtt != UINT32_MAX;
    return is_known ? (uint64_t)info.tcpi_min_rtt * NS_PER_US : 0;
}

void window_bound(struct window *window, int fd, uint64_t now)
{
    uint64_t passed = now - window->since;
    if (window->since != 0 && passed < WINDOW_SAMPLE_NS)
        return;
    if (window->since != 0) {
        uint32_t bound = window_of(window->bytes, passed, shortest_round_trip(fd));
        setsockopt(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &bound, sizeof bound);
    }
    *window = (struct window){.since = now};
}
