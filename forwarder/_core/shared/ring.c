#include "shared/ring.h"

#include "packet/frame.h"

_Static_assert((RING_RUNS & (RING_RUNS - 1)) == 0, "descriptions wrap by a mask");

static uint8_t *tx_at(const struct ring_tx *tx, uint64_t cursor)
{
    return tx->shm.data + (cursor & (tx->shm.size - 1));
}

static const uint8_t *rx_at(const struct ring_rx *rx, uint64_t cursor)
{
    return rx->shm.data + (cursor & (rx->shm.size - 1));
}

static void read_tail(struct ring_tx *tx)
{
    uint64_t runs = atomic_load_explicit(&tx->taken->runs, memory_order_acquire);
    uint64_t bytes = atomic_load_explicit(&tx->taken->bytes, memory_order_acquire); /* may be newer than `runs` */
    if (UNLIKELY(runs < tx->tail_runs || runs > tx->shown || bytes < tx->tail || bytes > tx->head)) {
        tx->broken = true;
        return;
    }
    tx->tail_runs = runs;
    tx->tail = bytes;
}

static uint64_t free_bytes(struct ring_tx *tx, uint64_t wanted)
{
    if (UNLIKELY(tx->shm.size - (tx->head - tx->tail) < wanted))
        read_tail(tx);
    return tx->broken ? 0 : tx->shm.size - (tx->head - tx->tail);
}

static bool has_description(struct ring_tx *tx)
{
    if (UNLIKELY(tx->runs - tx->tail_runs >= RING_RUNS))
        read_tail(tx);
    return !tx->broken && tx->runs - tx->tail_runs < RING_RUNS;
}

bool ring_has_room(struct ring_tx *tx, uint64_t bytes)
{
    return free_bytes(tx, bytes) >= bytes;
}

uint8_t *ring_front(const struct ring_tx *tx)
{
    return tx_at(tx, tx->head);
}

bool ring_holds(const struct ring_tx *tx, const uint8_t *records, uint64_t *at)
{
    uint64_t offset = (uint64_t)((uintptr_t)records - (uintptr_t)tx->shm.data);
    *at = tx->head + ((offset - tx->head) & (tx->shm.size - 1));
    return offset < 2 * (uint64_t)tx->shm.size;
}

/* How many of the records fit into `space`, and how many bytes those are. */
static uint32_t fitting(const uint8_t *records, uint32_t frames, uint64_t space, uint32_t *bytes)
{
    uint32_t n = 0, used = 0;
    while (n < frames) {
        uint32_t size = LENGTH_BYTES + load_be32(records + used);
        if (used + size > space)
            break;
        used += size;
        n++;
    }
    *bytes = used;
    return n;
}

static bool continues(const struct run *open, uint64_t at, uint32_t bytes, const uint8_t *src, bool vnet)
{
    return open->bytes != 0 && open->at + open->bytes == at && open->bytes + bytes <= RUN_BYTES && open->vnet == vnet
           && memcmp(open->src, src, MAC_BYTES) == 0;
}

uint32_t ring_commit(struct ring_tx *tx, uint64_t at, uint32_t bytes, uint32_t frames, const uint8_t *src, bool vnet)
{
    struct run *open = &tx->open;
    if (!continues(open, at, bytes, src, vnet)) {
        if (UNLIKELY(!has_description(tx)))
            return 0;
        *open = (struct run){.at = at, .vnet = vnet};
        memcpy(open->src, src, MAC_BYTES);
        tx->runs++;
    }
    open->bytes += bytes;
    open->frames += frames;
    tx->shared->runs[(tx->runs - 1) & (RING_RUNS - 1)] = *open;
    tx->head = at + bytes;
    return frames;
}

uint32_t ring_put(struct ring_tx *tx, const uint8_t *records, uint32_t bytes, uint32_t frames, const uint8_t *src,
                  bool vnet)
{
    uint64_t space = free_bytes(tx, bytes);
    if (UNLIKELY(space < bytes)) {
        frames = fitting(records, frames, space, &bytes);
        if (frames == 0)
            return 0;
    }
    memcpy(tx_at(tx, tx->head), records, bytes);
    return ring_commit(tx, tx->head, bytes, frames, src, vnet);
}

bool ring_publish(struct ring_tx *tx)
{
    if (tx->runs == tx->shown)
        return false;
    tx->open.bytes = 0;
    tx->shown = tx->runs;
    atomic_store_explicit(&tx->shared->head, tx->runs, memory_order_release);
    return true;
}

bool ring_refresh(struct ring_rx *rx)
{
    if (UNLIKELY(rx->broken))
        return false;
    uint64_t head = atomic_load_explicit(&rx->shared->head, memory_order_acquire);
    if (UNLIKELY(head < rx->head || head - rx->tail_runs > RING_RUNS)) {
        rx->broken = true;
        return false;
    }
    rx->head = head;
    return head != rx->tail_runs;
}

uint64_t ring_depth(const struct ring_rx *rx)
{
    uint64_t head = atomic_load_explicit(&rx->shared->head, memory_order_acquire);
    if (rx->broken || head == rx->tail_runs)
        return 0;
    const struct run *last = &rx->shared->runs[(head - 1) & (RING_RUNS - 1)];
    uint64_t depth = last->at + last->bytes - rx->tail;
    return depth > rx->shm.size || depth < rx->done ? 0 : depth - rx->done;
}

/* Copy the description of run `index`, the one before which ended at `end`, and believe it only if it can be true. */
static bool run_at(const struct ring_rx *rx, uint64_t index, uint64_t end, struct run *run)
{
    *run = rx->shared->runs[index & (RING_RUNS - 1)];
    uint64_t ahead = run->at - rx->tail;
    return run->bytes >= MIN_RECORD && run->bytes <= RUN_LIMIT && run->at >= end && ahead <= rx->shm.size
           && run->bytes <= rx->shm.size - ahead && run->frames >= 1 && run->frames <= run->bytes / MIN_RECORD
           && run->vnet <= 1;
}

unsigned ring_view(struct ring_rx *rx, struct run_view *views, unsigned max, uint64_t allowance)
{
    uint64_t end = rx->tail;
    uint64_t total = 0;
    unsigned n = 0;
    for (uint64_t index = rx->tail_runs; n < max && index != rx->head && !rx->broken; index++) {
        struct run_view *view = &views[n];
        uint32_t done = n == 0 ? rx->done : 0;
        if (done > 0) {
            view->run = rx->run;
        } else if (UNLIKELY(!run_at(rx, index, end, &view->run))) {
            rx->broken = true;
            break;
        }
        view->records = rx_at(rx, view->run.at) + done;
        view->bytes = view->run.bytes - done;
        if (n > 0 && total + view->bytes > allowance)
            break;
        total += view->bytes;
        end = view->run.at + view->run.bytes;
        n++;
    }
    return n;
}

uint32_t ring_consume(struct ring_rx *rx, const struct run_view *views, unsigned count, uint64_t bytes)
{
    uint32_t frames = 0;
    for (unsigned i = 0; i < count && bytes > 0; i++) {
        const struct run *run = &views[i].run;
        if (bytes < views[i].bytes) {
            rx->run = *run;
            rx->done = run->bytes - views[i].bytes + (uint32_t)bytes;
            break;
        }
        bytes -= views[i].bytes;
        rx->tail = run->at + run->bytes;
        rx->tail_runs++;
        rx->done = 0;
        frames += run->frames;
    }
    atomic_store_explicit(&rx->taken->bytes, rx->tail, memory_order_release);
    atomic_store_explicit(&rx->taken->runs, rx->tail_runs, memory_order_release);
    return frames;
}

/* Frames of the runs not taken, as far as their descriptions make sense; *end: where the last of them ends. */
static uint64_t frames_left(const struct ring_rx *rx, uint64_t *end)
{
    uint64_t frames = 0;
    struct run run;
    *end = rx->tail;
    for (uint64_t index = rx->tail_runs; index != rx->head; index++) {
        if (!run_at(rx, index, *end, &run))
            break;
        *end = run.at + run.bytes;
        frames += run.frames;
    }
    return frames;
}

uint64_t ring_unread_frames(struct ring_rx *rx)
{
    uint64_t end;
    uint32_t boundary;
    ring_refresh(rx);
    uint32_t done = records_begun(rx_at(rx, rx->run.at), rx->run.bytes, rx->done, &boundary);
    uint64_t frames = frames_left(rx, &end);
    return frames > done ? frames - done : 0;
}

void ring_abandon(struct ring_rx *rx)
{
    uint64_t end;
    frames_left(rx, &end);
    if (!rx->broken) {
        atomic_store_explicit(&rx->taken->bytes, end, memory_order_release);
        atomic_store_explicit(&rx->taken->runs, rx->head, memory_order_release);
    }
    ring_rx_close(rx);
}

uint64_t ring_untaken_frames(const struct ring_tx *tx)
{
    if (tx->shared == NULL)
        return 0;
    uint64_t frames = 0, index = atomic_load_explicit(&tx->taken->runs, memory_order_acquire);
    if (index < tx->tail_runs || index > tx->shown)
        return 0;
    for (; index != tx->shown; index++)
        frames += tx->shared->runs[index & (RING_RUNS - 1)].frames;
    return frames;
}
