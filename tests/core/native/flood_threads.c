/* sanitize: address,undefined */
/* One writer that never waits and three readers: what a reader is given is whole, and what it missed it knows.

   Not under ThreadSanitizer, on purpose: a reader copies memory that the writer may be overwriting, and finds out
   afterwards whether it was (flood.h). To C11 that is a race, and nothing else could be said about it; that the copy is
   thrown away is what this test is for. The machine's memory order is as hard on the fences here as anywhere.

   The writer pauses now and then, so that readers are sometimes lapped and sometimes not. It publishes with the
   switch's own code (bells.h), and a reader that finds nothing sleeps until the flood bell rings. */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "check.h"
#include "port/bells.h"
#include "packet/frame.h"
#include "system/waiter.h"

#define RING_BYTES (1u << 18)
#define FRAMES 60000u
#define READERS 3u
/* Far longer than a busy machine keeps a thread from running, far shorter than a hang. */
#define DEADLINE_NS (20 * NS_PER_S)

static int ring;
static _Atomic bool finished;
static struct flood_shared readers_words[READERS]; /* of which only the sleep words are used */
static struct peer readers_peers[READERS];
static struct bells bells;
static struct peers peers;
static _Atomic uint64_t all_lost, all_received;

static uint32_t frame_length(uint32_t number)
{
    uint32_t mixed = number * 2654435761u;
    return mixed % 199 == 0 ? 60000 + mixed % 5000 : MIN_FRAME + 4 + mixed % 1500;
}

/* The number, and then bytes that follow from it. */
static void build(uint8_t *frame, uint32_t number)
{
    uint32_t length = frame_length(number);
    store_be32(frame, number);
    memset(frame + 4, (int)(number % 251), length - 4);
}

static void check_frame(const uint8_t *frame, const struct flood_record *record)
{
    uint32_t number = load_be32(frame);
    CHECK(number == record->number, "frame %" PRIu32 " in record %" PRIu32, number, record->number);
    CHECK(record->bytes == frame_length(number), "frame %" PRIu32, number);
    for (uint32_t i = 4; i < record->bytes; i++)
        CHECK(frame[i] == number % 251, "frame %" PRIu32 " byte %" PRIu32, number, i);
}

static void sleep_for_news(struct waiter *waiter, struct sleep_word *word, const struct flood_rx *rx)
{
    sleep_begin(word);
    if (!flood_has_news(rx))
        CHECK(waiter_wait(waiter, DEADLINE_NS) == READY_BELL, "no ring came; published: %s",
              flood_has_news(rx) ? "yes" : "no");
    sleep_end(word);
}

static void *read_floods(void *argument)
{
    const uint32_t index = (uint32_t)(uintptr_t)argument;
    struct waiter waiter = {.epoll = -1};
    struct flood_rx rx;
    struct flood_record record;
    uint8_t *frame = malloc(MAX_FRAME);
    uint64_t lost = 0, received = 0;
    CHECK(frame != NULL && flood_rx_open(&rx, ring, 5, 55, index == 0) == 0, "cannot open the flood ring");
    CHECK(waiter_open(&waiter) == 0 && waiter_add_bell(&waiter, bells.flood_doorbell) == 0, "cannot wait");
    uint32_t first = rx.number, next = first;
    for (bool last_look = false;;) {
        enum flood_status status = flood_next(&rx, frame, MAX_FRAME, &record, &lost);
        CHECK(!rx.broken, "after frame %" PRIu32, next);
        if (status == FLOOD_FRAME && record.kind != FLOOD_REPLY) {
            check_frame(frame, &record);
            CHECK(record.number >= next, "frame %" PRIu32 " again", record.number);
            next = record.number + 1;
            received++;
            CHECK(rx.recount || first + received + lost == next, "%" PRIu64 " lost before frame %" PRIu32, lost, next);
        } else if (status == FLOOD_EMPTY && !flood_has_news(&rx)) {
            if (last_look)
                break;
            last_look = atomic_load(&finished);
            if (!last_look)
                sleep_for_news(&waiter, &readers_words[index].sleep, &rx);
        }
    }
    CHECK(rx.recount || first + received + lost == FRAMES, "%" PRIu64 " received, %" PRIu64 " lost", received, lost);
    atomic_fetch_add(&all_received, received);
    atomic_fetch_add(&all_lost, lost);
    flood_rx_close(&rx);
    waiter_close(&waiter);
    free(frame);
    return NULL;
}

static void start_reader(pthread_t *thread, uint32_t index)
{
    readers_peers[index].flood.shared = &readers_words[index];
    peers.at[index + 1] = &readers_peers[index];
    peers.port[peers.count++] = (uint16_t)(index + 1);
    CHECK(pthread_create(thread, NULL, read_floods, (void *)(uintptr_t)index) == 0, "thread");
}

int main(void)
{
    static uint8_t frame[MAX_FRAME];
    pthread_t readers[READERS];
    struct flood_tx tx;
    uint64_t rung = 0;
    bells.flood_doorbell = doorbell_create();
    ring = flood_create(RING_BYTES, 5, 55);
    CHECK(ring >= 0 && flood_tx_open(&tx, ring, 5, 55) == 0, "cannot make a flood ring");
    for (uint32_t number = 0; number < FRAMES; number++) {
        /* The readers come one by one; the first of them reads all from the start. */
        if (number % 1000 == 0 && number / 1000 < READERS)
            start_reader(&readers[number / 1000], number / 1000);
        build(frame, number);
        flood_put(&tx, frame, frame_length(number), number % 2 ? FLOOD_GROUP : FLOOD_UNKNOWN);
        if (number % 5 == 0)
            flood_put(&tx, frame, ADDRESSES_BYTES, FLOOD_REPLY);
        if (number % 7 == 0)
            rung += bells_publish(&bells, &tx, &peers);
        if (number % 64 == 0)
            sched_yield();
    }
    atomic_store(&finished, true);
    rung += bells_publish(&bells, &tx, &peers);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    printf("%" PRIu64 " frames received, %" PRIu64 " lost, %" PRIu64 " bells\n", atomic_load(&all_received),
           atomic_load(&all_lost), rung);
    flood_tx_close(&tx);
    close(ring);
    close(bells.flood_doorbell);
    return 0;
}
