/* sanitize: thread address,undefined */
/* A ring between two threads that sleep: every byte arrives, in order, and no wake-up is lost.

   The producer puts runs of random length and publishes at random, with the switch's own code for it (bells.h); the
   consumer takes random amounts, cuts frames, and sleeps on an eventfd when it finds nothing.

   Both use one mapping of the ring, not one each as two processes do: ThreadSanitizer goes by addresses.

   A lost wake-up shows as a wait that only its deadline ends while something is published. */
#include <inttypes.h>
#include <pthread.h>
#include <unistd.h>

#include "check.h"
#include "port/bells.h"
#include "packet/frame.h"
#include "system/waiter.h"

#define RING_BYTES (1u << 18)
#define FRAMES 30000u
/* Far longer than a busy machine keeps a thread from running, far shorter than a hang. */
#define DEADLINE_NS (20 * NS_PER_S)

static struct flood_shared consumers; /* of which only the sleep word is used */
static struct peer peer = {.port = 2, .path = PATH_RING, .flood.shared = &consumers};
static struct ring_tx *const tx = &peer.tx;
static struct ring_rx rx;
static struct waiter waiter = {.epoll = -1};
static struct bells bells;
static uint64_t rung; /* the producer's */

/* xorshift64: the same lengths on every run. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Both sides know what frame `number` looks like. */
static uint32_t frame_length(uint32_t number)
{
    uint32_t mixed = number * 2654435761u;
    return mixed % 97 == 0 ? 60000 + mixed % 5000 : MIN_FRAME + mixed % 1500;
}

static uint8_t frame_byte(uint32_t number, uint32_t at)
{
    return (uint8_t)(number * 31 + at * 7);
}

static uint32_t build(uint8_t *record, uint32_t number)
{
    uint32_t length = frame_length(number);
    store_be32(record, length);
    for (uint32_t i = 0; i < length; i++)
        record[LENGTH_BYTES + i] = frame_byte(number, i);
    return LENGTH_BYTES + length;
}

static void publish(void)
{
    static const struct peers peers = {.at[2] = &peer, .port[0] = 2, .count = 1};
    static struct flood_tx no_flood;
    bells_touch(&bells, &peer);
    rung += bells_publish(&bells, &no_flood, &peers);
}

/* As if it had been read from a VM, with `gap` bytes for others in front of it. */
static uint32_t commit(const uint8_t *run, uint32_t bytes, uint32_t frames, const uint8_t *src, uint64_t gap)
{
    if (!ring_has_room(tx, gap + bytes))
        return 0;
    memcpy(ring_front(tx) + gap, run, bytes);
    return ring_commit(tx, tx->head + gap, bytes, frames, src, false);
}

static void *produce(void *unused)
{
    uint64_t random = 1;
    uint32_t number = 0;
    uint8_t *run = malloc(RUN_LIMIT);
    CHECK(run != NULL, "memory");
    while (number < FRAMES) {
        const uint8_t src[MAC_BYTES] = {2, 0, 0, 0, 0, (uint8_t)(next_random(&random) % 2)};
        uint32_t wanted = 1 + (uint32_t)(next_random(&random) % 8), bytes = 0, frames = 0;
        while (frames < wanted && number + frames < FRAMES
               && bytes + LENGTH_BYTES + frame_length(number + frames) <= RUN_BYTES)
            bytes += build(run + bytes, number + frames++);
        uint32_t fitted = next_random(&random) % 2 == 0 ? ring_put(tx, run, bytes, frames, src, false)
                                                        : commit(run, bytes, frames, src, next_random(&random) % 100);
        CHECK(!tx->broken && fitted <= frames, "frame %" PRIu32, number);
        number += fitted;
        if (fitted < frames || next_random(&random) % 3 == 0)
            publish();
        if (fitted < frames)
            sched_yield();
    }
    publish();
    free(run);
    (void)unused;
    return NULL;
}

/* Check consumed bytes against what frame `*number` looks like from byte `*at` of its record on. */
static void check_bytes(const uint8_t *bytes, uint32_t count, uint32_t *number, uint32_t *at)
{
    uint8_t length[LENGTH_BYTES];
    while (count > 0) {
        uint32_t size = LENGTH_BYTES + frame_length(*number);
        store_be32(length, size - LENGTH_BYTES);
        uint8_t expected = *at < LENGTH_BYTES ? length[*at] : frame_byte(*number, *at - LENGTH_BYTES);
        CHECK(*bytes == expected, "frame %" PRIu32 " byte %" PRIu32, *number, *at);
        bytes++;
        count--;
        if (++*at == size) {
            ++*number;
            *at = 0;
        }
    }
}

static void sleep_for_news(void)
{
    sleep_begin(&consumers.sleep);
    if (!ring_has_news(&rx))
        CHECK(waiter_wait(&waiter, DEADLINE_NS) == READY_BELL, "no ring came; published: %s",
              ring_has_news(&rx) ? "yes" : "no");
    sleep_end(&consumers.sleep);
}

static void *consume(void *unused)
{
    struct run_view views[8];
    uint64_t random = 2, finished = 0;
    uint32_t number = 0, at = 0;
    while (number < FRAMES) {
        if (!ring_refresh(&rx)) {
            CHECK(!rx.broken, "frame %" PRIu32, number);
            sleep_for_news();
            continue;
        }
        uint32_t most = 1 + (uint32_t)(next_random(&random) % 100000), left = most;
        unsigned count = ring_view(&rx, views, 8, most);
        CHECK(count > 0 && !rx.broken, "frame %" PRIu32, number);
        for (unsigned i = 0; i < count && left > 0; i++) {
            uint32_t part = views[i].bytes < left ? views[i].bytes : left;
            check_bytes(views[i].records, part, &number, &at);
            left -= part;
        }
        finished += ring_consume(&rx, views, count, most - left);
    }
    CHECK(at == 0 && finished == FRAMES && !ring_refresh(&rx), "%" PRIu64 " frames in finished runs", finished);
    CHECK(ring_unread_frames(&rx) == 0 && ring_depth(&rx) == 0, "nothing is left");
    (void)unused;
    return NULL;
}

int main(void)
{
    const struct ring_id id = {.src_port = 1, .src_epoch = 11, .dst_port = 2, .dst_epoch = 22};
    pthread_t producer, consumer;
    struct ring_fds fds;
    peer.doorbell = doorbell_create();
    CHECK(peer.doorbell >= 0 && ring_create(RING_BYTES, &id, &fds) == 0, "cannot make a ring");
    CHECK(waiter_open(&waiter) == 0 && waiter_add_bell(&waiter, peer.doorbell) == 0, "cannot wait");
    CHECK(ring_tx_open(tx, fds, &id) == 0 && ring_rx_open(&rx, fds, &id) == 0, "cannot open a ring");
    shm_unmap(&rx.shm);
    rx.shm = tx->shm;
    rx.shared = tx->shared;
    tx->taken = rx.taken;
    CHECK(pthread_create(&consumer, NULL, consume, NULL) == 0, "thread");
    CHECK(pthread_create(&producer, NULL, produce, NULL) == 0, "thread");
    pthread_join(producer, NULL);
    pthread_join(consumer, NULL);
    printf("%u frames, %" PRIu64 " bells\n", FRAMES, rung);
    ring_tx_close(tx);
    close(fds.ring);
    close(fds.tail);
    close(peer.doorbell);
    waiter_close(&waiter);
    return 0;
}
