/* sanitize: address,undefined */
/* Publishing against falling asleep, at the same instant: in each round either the sleeper sees the news or it is rung.

   This is the store-buffer test of the memory-model literature with the switch's own code on one side (bells_publish)
   and the sleeper's of doorbell.h on the other. In each round both threads start together, one publishes and the other
   announces its sleep and looks. Without a full fence on either side a processor may let each of them read before its
   own store is seen, also x86; here it does so within some thousand rounds. Rounds alternate between a ring and the
   flood ring. The publisher begins after a pause; the sleeper begins a little later if it was rung in the last round,
   and a little earlier if it saw the news, so the two stay within some nanoseconds of each other on any machine. Each
   has looked at the other's word before, which makes its next look quick and the other's store slow.

   Not under ThreadSanitizer, whose atomics are slower than the window is long. */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "check.h"
#include "port/bells.h"
#include "system/waiter.h"

/* Rounds in which the two overlapped: the sleeper saw the news and was rung. How many others lie between them depends on
   what else the machine does. */
#define OVERLAPS 8000u
#define MOST_ROUNDS 1000000u
#define PAUSE_STEPS 200u
#define RING_BYTES (1u << 18)

static struct flood_shared sleepers; /* of which only the sleep word is used */
static struct peer peer = {.port = 2, .path = PATH_RING, .flood.shared = &sleepers};
static const struct peers peers = {.at[2] = &peer, .port[0] = 2, .count = 1};
static struct bells bells;
static struct flood_tx flood;
static struct ring_rx ring_end;
static struct flood_rx flood_end;
static _Atomic uint32_t arrived;
static _Atomic bool over;

/* Both threads come here the `n`th time; neither goes on before. */
static void meet(uint32_t n)
{
    atomic_fetch_add(&arrived, 1);
    for (uint32_t looks = 0; atomic_load(&arrived) < 2 * n;)
        if (++looks % 4096 == 0)
            sched_yield();
}

static void pause_for(uint32_t steps)
{
    for (volatile uint32_t i = 0; i < steps; i++)
        continue;
}

static bool is_flood(uint32_t round)
{
    return round % 2 != 0;
}

static bool has_news(uint32_t round)
{
    return is_flood(round) ? flood_has_news(&flood_end) : ring_has_news(&ring_end);
}

static void *fall_asleep(void *saw_news)
{
    uint32_t pause = PAUSE_STEPS;
    for (uint32_t round = 0;; round++) {
        meet(2 * round + 1);
        if (atomic_load(&over))
            return NULL;
        *(volatile bool *)saw_news = has_news(round);
        pause_for(pause);
        sleep_begin(&sleepers.sleep);
        *(bool *)saw_news = has_news(round);
        if (!*(bool *)saw_news)
            pause++;
        else if (pause > 0)
            pause--;
        meet(2 * round + 2);
        sleep_end(&sleepers.sleep);
    }
}

static void put_frame(bool flooded)
{
    static const uint8_t record[MIN_RECORD] = {0, 0, 0, MIN_FRAME};
    if (flooded)
        flood_put(&flood, record + LENGTH_BYTES, MIN_FRAME, FLOOD_GROUP);
    else if (ring_put(&peer.tx, record, sizeof record, 1, record + LENGTH_BYTES, false) == 1)
        bells_touch(&bells, &peer);
}

static void take_all(void)
{
    struct run_view view;
    struct flood_record record;
    uint8_t frame[MIN_FRAME];
    uint64_t lost = 0;
    ring_refresh(&ring_end);
    while (ring_view(&ring_end, &view, 1, RUN_LIMIT) == 1)
        ring_consume(&ring_end, &view, 1, view.bytes);
    while (flood_next(&flood_end, frame, sizeof frame, &record, &lost) == FLOOD_FRAME)
        continue;
}

int main(void)
{
    const struct ring_id id = {.src_port = 1, .src_epoch = 11, .dst_port = 2, .dst_epoch = 22};
    struct ring_fds fds;
    pthread_t sleeper;
    static bool saw_news; /* handed over by meet() */
    uint32_t round = 0, overlaps = 0;
    int shared = flood_create(RING_BYTES, 1, 11);
    bells.flood_doorbell = doorbell_create();
    peer.doorbell = doorbell_create();
    CHECK(shared >= 0 && flood_tx_open(&flood, shared, 1, 11) == 0, "cannot make a flood ring");
    CHECK(flood_rx_open(&flood_end, shared, 1, 11, true) == 0, "cannot read a flood ring");
    CHECK(ring_create(RING_BYTES, &id, &fds) == 0 && ring_tx_open(&peer.tx, fds, &id) == 0, "cannot make a ring");
    CHECK(ring_rx_open(&ring_end, fds, &id) == 0, "cannot read a ring");
    CHECK(pthread_create(&sleeper, NULL, fall_asleep, &saw_news) == 0, "thread");
    for (; overlaps < OVERLAPS && round < MOST_ROUNDS; round++) {
        put_frame(is_flood(round));
        meet(2 * round + 1);
        CHECK(atomic_load(&sleepers.sleep.number) <= 2 * round + 1, "round %" PRIu32, round);
        pause_for(PAUSE_STEPS + round * 13 % 31);
        uint32_t bells_rung = bells_publish(&bells, &flood, &peers);
        meet(2 * round + 2);
        CHECK(saw_news || bells_rung == 1, "round %" PRIu32 ": asleep, and not rung", round);
        overlaps += saw_news && bells_rung == 1;
        take_all();
    }
    atomic_store(&over, true);
    meet(2 * round + 1);
    pthread_join(sleeper, NULL);
    printf("%" PRIu32 " rounds, %" PRIu32 " of them overlapped\n", round, overlaps);
    ring_tx_close(&peer.tx);
    ring_rx_close(&ring_end);
    flood_tx_close(&flood);
    flood_rx_close(&flood_end);
    close(fds.ring);
    close(fds.tail);
    close(shared);
    return 0;
}
