/* sanitize: address,undefined */
/* When a worker lingers: only among short pauses, and never for longer than a wake-up takes. */
#include "check.h"
#include "port/busy_poll.h"

static struct busy_poll l = {.most_ns = BUSY_POLL_NS};
static uint64_t now = NS_PER_S;

/* Work after a pause of so long; returns how much of the pause the worker would have looked on for. */
static uint64_t pause_and_work(uint64_t ns)
{
    uint64_t began = now, until = busy_poll_until(&l, now);
    now += ns;
    busy_poll_after_work(&l, now);
    return until == 0 ? 0 : until - began;
}

int main(void)
{
    busy_poll_after_work(&l, now);
    CHECK(pause_and_work(SHORT_PAUSE_NS) == 0, "nothing is known of pauses yet");
    CHECK(pause_and_work(SHORT_PAUSE_NS + 1) == BUSY_POLL_NS, "the last pause was short");
    CHECK(pause_and_work(1000) == 0, "the last pause was long");
    CHECK(busy_poll_until(&l, now) == now + BUSY_POLL_NS, "the last pause was short");
    CHECK(busy_poll_until(&l, now + BUSY_POLL_NS - 1) == now + BUSY_POLL_NS, "a look that found nothing extends nothing");
    CHECK(busy_poll_until(&l, now + BUSY_POLL_NS) == 0, "a wake-up's time is over");
    CHECK(busy_poll_until(&l, now + NS_PER_S) == 0, "and stays over");

    /* Two turns of work on end: the pause before the first one is still the last pause. */
    now += NS_PER_S;
    busy_poll_after_work(&l, now);
    busy_poll_after_work(&l, now);
    CHECK(busy_poll_until(&l, now) == 0, "the last pause was long");

    struct busy_poll guest = {.most_ns = GUEST_POLL_NS, .last_was_short = true};
    CHECK(busy_poll_until(&guest, now) == now + GUEST_POLL_NS, "a driver pays for a wake-up, too");
    CHECK(GUEST_POLL_NS <= SHORT_PAUSE_NS, "a pause that is polled for to its end is a short one");
    struct busy_poll never = {.last_was_short = true};
    CHECK(busy_poll_until(&never, now) == 0, "never");
    return 0;
}
