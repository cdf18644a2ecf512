/* sanitize: address,undefined */
/* When a worker lingers: only among short pauses, and never for longer than a wake-up takes. */
#include "check.h"
#include "engine/busy_poll.h"

static struct lingering l;
static uint64_t now = NS_PER_S;

/* Work after a pause of so long; returns how much of the pause the worker would have looked on for. */
static uint64_t pause_and_work(uint64_t ns)
{
    uint64_t began = now, until = linger_when_idle(&l, now);
    now += ns;
    linger_after_work(&l, now);
    return until == 0 ? 0 : until - began;
}

int main(void)
{
    linger_after_work(&l, now);
    CHECK(pause_and_work(DENSE_PAUSE_NS) == 0, "nothing is known of pauses yet");
    CHECK(pause_and_work(DENSE_PAUSE_NS + 1) == LINGER_NS, "the last pause was short");
    CHECK(pause_and_work(1000) == 0, "the last pause was long");
    CHECK(linger_when_idle(&l, now) == now + LINGER_NS, "the last pause was short");
    CHECK(linger_when_idle(&l, now + LINGER_NS - 1) == now + LINGER_NS, "a look that found nothing extends nothing");
    CHECK(linger_when_idle(&l, now + LINGER_NS) == 0, "a wake-up's time is over");
    CHECK(linger_when_idle(&l, now + NS_PER_S) == 0, "and stays over");

    /* Two turns of work on end: the pause before the first one is still the last pause. */
    now += NS_PER_S;
    linger_after_work(&l, now);
    linger_after_work(&l, now);
    CHECK(linger_when_idle(&l, now) == 0, "the last pause was long");
    return 0;
}
