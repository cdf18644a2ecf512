/* sanitize: address,undefined */
/* The bound of a guest's window: what its stream carries in a time, and when it is set. */
#include "check.h"
#include "relay/window.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static const uint64_t MS = 1000000;

static uint32_t clamp_of(int fd)
{
    uint32_t clamp = 0;
    socklen_t size = sizeof clamp;
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &clamp, &size) == 0, "no clamp");
    return clamp;
}

static void check_rates(void)
{
    CHECK(window_of(5000000, 10 * MS, 0) == 1000000, "4 Gbit/s in 2 ms");
    CHECK(window_of(5000000, 10 * MS, MS) == 1000000, "a round trip of 1 ms");
    CHECK(window_of(5000000, 10 * MS, 4 * MS) == 2500000, "a guest that is far away");
    CHECK(window_of(1000000, 10 * MS, 0) == WINDOW_LEAST, "200 kB in 2 ms");
    CHECK(window_of(WINDOW_SAMPLE_BYTES, UINT64_MAX / 2, 0) == WINDOW_LEAST, "after a long pause");
    CHECK(window_of(UINT64_MAX / 2, 10 * MS, 4000 * MS) == WINDOW_MOST, "more than TCP can say");
}

int main(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0, "no socket");
    check_rates();

    struct window window = {.bytes = 5000000};
    uint32_t before = clamp_of(fd);
    uint64_t now = 1000 * MS;
    window_took(&window, fd, now);
    CHECK(clamp_of(fd) == before && window.since == now && window.bytes == 0, "nothing is known of the time before");

    window.bytes = 5000000;
    window_took(&window, fd, now += WINDOW_SAMPLE_NS - 1);
    CHECK(clamp_of(fd) == before && window.bytes == 5000000, "the sample is too short");
    window_took(&window, fd, now += 1);
    CHECK(clamp_of(fd) == 1000000, "the rate's bytes of 2 ms, not %u", clamp_of(fd));
    CHECK(window.since == now && window.bytes == 0, "the next sample begins");

    window.bytes = WINDOW_SAMPLE_BYTES - 1;
    window_took(&window, fd, now += WINDOW_SILENCE_NS);
    CHECK(clamp_of(fd) == 1000000 && window.bytes == WINDOW_SAMPLE_BYTES - 1, "a burst is no rate");
    window.bytes++;
    window_took(&window, fd, now += 1);
    CHECK(clamp_of(fd) == WINDOW_LEAST && window.bytes == 0, "a slower stream needs less");

    uint32_t fast = 1000000;
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &fast, sizeof fast) == 0, "no clamp");
    window.bytes = WINDOW_SAMPLE_BYTES;
    window_took(&window, fd, now += WINDOW_SILENCE_NS + 1);
    CHECK(clamp_of(fd) == fast && window.since == now && window.bytes == 0, "silence is no rate");
    close(fd);
    return 0;
}
