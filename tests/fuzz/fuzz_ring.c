/* Fuzz target: a unicast ring whose other end is hostile.

   The input is a list of steps; each scribbles somewhere over the shared header or data, or lets the honest side
   do what it does with a ring. Nothing may be read or written outside of the mapping, and a view must lie in it. */
#include <stdlib.h>
#include <unistd.h>

#include "shared/ring.h"

#define SIZE (1u << 18)

static struct ring_tx tx;
static struct ring_rx rx;
static struct ring_fds fds;
static uint8_t records[RUN_LIMIT];
static volatile uint64_t touched; /* so that no read is optimised away */

static void start(void)
{
    struct ring_id id = {.src_port = 1, .src_epoch = 1, .dst_port = 2, .dst_epoch = 2};
    if (ring_create(SIZE, &id, &fds) < 0 || ring_tx_open(&tx, fds, &id) < 0 || ring_rx_open(&rx, fds, &id) < 0)
        abort();
}

static void stop(void)
{
    ring_tx_close(&tx);
    ring_rx_close(&rx);
    close(fds.ring);
    close(fds.tail);
}

static uint64_t touch_all(const uint8_t *bytes, uint32_t count)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += bytes[i];
    return sum;
}

static void consume(uint32_t most)
{
    struct run_view views[8];
    uint64_t sum = 0;
    ring_refresh(&rx);
    unsigned n = ring_view(&rx, views, 8, most);
    uint64_t total = 0;
    for (unsigned i = 0; i < n; i++) {
        if (views[i].records < rx.shm.data || views[i].records + views[i].bytes > rx.shm.data + 2 * (size_t)SIZE)
            abort();
        sum += touch_all(views[i].records, views[i].bytes);
        total += views[i].bytes;
    }
    ring_consume(&rx, views, n, most < total ? most : total);
    touched += sum + ring_unread_frames(&rx);
}

static void produce(uint32_t length, bool vnet)
{
    static const uint8_t src[MAC_BYTES] = {2, 0, 0, 0, 0, 1};
    uint32_t frame = MIN_FRAME + length % (MAX_FRAME - MIN_FRAME + 1);
    records[0] = (uint8_t)(frame >> 24);
    records[1] = (uint8_t)(frame >> 16);
    records[2] = (uint8_t)(frame >> 8);
    records[3] = (uint8_t)frame;
    uint64_t gap = length % 3 * 10;
    if (gap > 0 && ring_has_room(&tx, gap + LENGTH_BYTES + frame)) {
        memcpy(ring_front(&tx) + gap, records, LENGTH_BYTES);
        ring_commit(&tx, tx.head + gap, LENGTH_BYTES + frame, 1, src, vnet);
    } else {
        ring_put(&tx, records, LENGTH_BYTES + frame, 1, src, vnet);
    }
    ring_publish(&tx);
}

static void scribble(uint8_t where, uint16_t offset, const uint8_t *value, size_t count)
{
    uint8_t *places[] = {
        tx.shm.data + ((rx.tail + offset) & (SIZE - 1)),
        (uint8_t *)tx.shm.header + offset % sizeof(struct ring_shared),
        (uint8_t *)&tx.shared->runs[(rx.tail_runs + offset / 32) % RING_RUNS] + offset % sizeof(struct run),
        (uint8_t *)rx.tail_shm.header + offset % sizeof(struct ring_tail),
    };
    memcpy(places[where % 4], value, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    start();
    while (size >= 12) {
        uint16_t argument;
        memcpy(&argument, data + 2, sizeof argument);
        switch (data[0] % 4) {
        case 0:
            produce(argument, data[1] & 1);
            break;
        case 1:
            consume(argument);
            break;
        default:
            scribble(data[1], argument, data + 4, 8);
        }
        data += 12;
        size -= 12;
    }
    stop();
    return 0;
}
