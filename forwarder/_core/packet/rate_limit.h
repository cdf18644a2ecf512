/* Rate limits: frames or bytes a second, with a burst.

   Theory of operation. The generic cell rate algorithm (ITU-T I.371): a limit is one moment, the earliest at which the
   next unit would be in time if units came evenly. A unit is in time if that moment is at most the burst away. Frames
   that come too early are refused (storm control). Bytes are charged after they were read, and the VM is not read again
   before they are due (pacing), so a VM that is too fast is slowed down and loses nothing.

   To refuse a frame costs its sender's worker nearly as much as to carry it, on a machine that the others need, too.
   So refused frames are paced like bytes: a VM that sends more of them than REFUSED_PER_S is read later.

   Example. 1,000 broadcasts a second are allowed: each is due 1 ms after the last. Of 150 that come at once the first
   101 are in time, which moves `due` 101 ms ahead; the other 49 are refused. After 10 ms of silence 10 more may come.

   Calls. Pure functions of their arguments, for the thread that owns the struct. `now` is monotonic, in ns. */
#ifndef BULKHEAD_RATE_LIMIT_H
#define BULKHEAD_RATE_LIMIT_H

#include "common.h"

/* A tenth of a second at full rate in one go: the frames of a booting guest are no storm. */
#define BURST_NS (NS_PER_S / 10)

/* Ten times the highest sound rate of broadcasts, and a few per cent of a core. */
#define REFUSED_PER_S 20000u

struct rate_limit {
    uint64_t per_second; /* 0: no limit */
    uint64_t due;        /* ns on the monotonic clock */
};

static inline uint64_t rate_limit_cost(const struct rate_limit *rate, uint64_t units)
{
    return (uint64_t)((double)units * (double)NS_PER_S / (double)rate->per_second);
}

static inline void rate_limit_charge(struct rate_limit *rate, uint64_t units, uint64_t now)
{
    uint64_t from = rate->due > now ? rate->due : now;
    if (rate->per_second != 0)
        rate->due = from + rate_limit_cost(rate, units);
}

/* Charge one unit if it is in time. */
static inline bool rate_limit_admits(struct rate_limit *rate, uint64_t now)
{
    if (rate->per_second == 0)
        return true;
    if (rate->due > now + BURST_NS)
        return false;
    rate_limit_charge(rate, 1, now);
    return true;
}

/* When units charged so far are due, less the burst. */
static inline uint64_t rate_limit_resumes(const struct rate_limit *rate)
{
    return rate->per_second != 0 && rate->due > BURST_NS ? rate->due - BURST_NS : 0;
}

#endif
