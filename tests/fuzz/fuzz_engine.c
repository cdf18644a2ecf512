/* Fuzz target: a whole engine beside a neighbour that was taken over.

   The neighbour may write what it likes, when it likes, to the memory that it owns: the ring towards the engine, its flood
   ring, and the tail of the ring from the engine. The input is a list of steps; each is something that one of the three does,
   the VM, the engine or the neighbour. In half of the runs a second thread goes on scribbling during the engine's turns.

   Whatever is written, nothing is read or written outside of the mappings, a turn ends, and a VM of datagrams gets none that
   is shorter than a frame can be, or longer. A VM of a stream stays in step. */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/engine_peers.h"
#include "harness.h"
#include "packet/framing.h"

#define STEP 12u
/* No step needs more turns: what is not done by then waits for the VM. */
#define TURNS 4

static struct pair *pair;
static struct ring_tx hostile; /* the neighbour's end of the ring towards the engine */
static struct ring_fds fds;
static atomic_bool stop;
static uint8_t memory[4 * MAX_FRAME];
static uint8_t stream[1 << 18];
static uint32_t kept; /* bytes of the VM's stream that are no whole frame yet */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Where the neighbour may write: most of it lies near what is about to be read. */
static void scribble(uint8_t where, uint32_t offset, uint64_t value)
{
    struct flood_tx *flood = &pair->peer;
    uint8_t *places[] = {
        hostile.shm.data + (hostile.tail + offset) % FUZZ_RING_BYTES,
        (uint8_t *)hostile.shm.header + offset % sizeof(struct ring_shared),
        (uint8_t *)&hostile.shared->runs[(hostile.runs - offset % 8) % RING_RUNS] + offset / 8 % sizeof(struct run),
        flood->shm.data + (flood->head - offset % 4096) % FUZZ_RING_BYTES,
        (uint8_t *)flood->shm.header + offset % (sizeof(struct flood_shared) - sizeof value),
        (uint8_t *)pair->reader.tail_shm.header + offset % sizeof(struct ring_tail),
        (uint8_t *)&hostile.shared->head,
        (uint8_t *)&flood->shared->head,
    };
    memcpy(places[where % 8], &value, where % 8 == 0 ? 4 : sizeof value);
}

static void *go_on_scribbling(void *seed)
{
    uint64_t state = *(uint64_t *)seed | 1;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t chance = next_random(&state);
        scribble((uint8_t)chance, (uint32_t)(chance >> 8), next_random(&state));
    }
    return NULL;
}

/* What an honest neighbour does: frames for the engine's VM, one after the other. */
static void speak(uint32_t length, bool flooded)
{
    static const uint8_t src[MAC_BYTES] = {2, 0, 0, 0, 0, 2};
    uint32_t bytes = MIN_FRAME + length % 3000;
    uint8_t *frame = memory + LENGTH_BYTES;
    memset(frame, flooded ? 0xff : 2, MAC_BYTES);
    memcpy(frame + MAC_BYTES, src, MAC_BYTES);
    if (flooded) {
        flood_put(&pair->peer, frame, bytes, FLOOD_GROUP);
        flood_publish(&pair->peer);
        return;
    }
    store_be32(memory, bytes);
    ring_put(&hostile, memory, LENGTH_BYTES + bytes, 1, src, length & 1);
    ring_publish(&hostile);
}

/* The VM sends a frame, to the neighbour or to all. */
static void send_from_vm(uint32_t length, bool to_all)
{
    uint32_t bytes = MIN_FRAME + length % 3000, prefix = 0;
    uint8_t *frame = memory + LENGTH_BYTES;
    if (pair->engine.vm.kind == KIND_STREAM)
        prefix = LENGTH_BYTES;
    else if (pair->engine.vm.kind == KIND_STREAM16)
        prefix = LENGTH16_BYTES;
    memset(frame, to_all ? 0xff : 0, MAC_BYTES);
    memcpy(frame, to_all ? frame : (const uint8_t[]){2, 0, 0, 0, 0, 2}, MAC_BYTES);
    memcpy(frame + MAC_BYTES, (const uint8_t[]){2, 0, 0, 0, 0, 1}, MAC_BYTES);
    if (prefix > 0 && !framing_seal(prefix, frame - prefix, bytes))
        abort();
    (void)!send(pair->vm[1], frame - prefix, prefix + bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void expect_frames_of_stream(uint32_t prefix)
{
    uint32_t at = 0;
    while (kept - at >= prefix) {
        uint32_t bytes = prefix == LENGTH_BYTES ? load_be32(stream + at) : load_le16(stream + at);
        if (bytes < MIN_FRAME || bytes > MAX_FRAME)
            abort();
        if (kept - at < prefix + bytes)
            break;
        at += prefix + bytes;
    }
    kept -= at;
    memmove(stream, stream + at, kept);
}

static void read_at_vm(unsigned most)
{
    enum port_kind kind = pair->engine.vm.kind;
    for (unsigned i = 0; i < most; i++) {
        bool is_stream = vm_is_stream(&pair->engine.vm);
        uint8_t *to = is_stream ? stream + kept : memory;
        size_t room = is_stream ? sizeof stream - kept : sizeof memory;
        ssize_t got = recv(pair->vm[1], to, room, MSG_DONTWAIT);
        if (got < 0 || (got == 0 && pair->engine.down))
            return;
        if (is_stream) {
            kept += (uint32_t)got;
            expect_frames_of_stream(kind == KIND_STREAM16 ? LENGTH16_BYTES : LENGTH_BYTES);
        } else if (got < (ssize_t)MIN_FRAME || got > (ssize_t)MAX_FRAME) {
            abort();
        }
    }
}

static void take_turns(bool beside_thread, uint64_t seed)
{
    pthread_t thread;
    atomic_store(&stop, false);
    if (beside_thread && pthread_create(&thread, NULL, go_on_scribbling, &seed) != 0)
        abort();
    for (int i = 0; i < TURNS; i++)
        engine_run(&pair->engine, 0);
    atomic_store(&stop, true);
    if (beside_thread)
        pthread_join(thread, NULL);
}

static void begin(enum port_kind kind)
{
    const struct ring_id id = {.src_port = PEER_PORT, .src_epoch = 2, .dst_port = OWN_PORT, .dst_epoch = 1};
    pair = pair_open_as(kind);
    if (ring_create(FUZZ_RING_BYTES, &id, &fds) < 0 || ring_tx_open(&hostile, fds, &id) < 0
        || engine_attach_rx(&pair->engine, PEER_PORT, 2, fds) < 0)
        abort();
    kept = 0;
}

static void end(void)
{
    engine_give_up_ring(&pair->engine, PEER_PORT);
    engine_peer_leave(&pair->engine, PEER_PORT);
    read_at_vm(1000);
    ring_tx_close(&hostile);
    close(fds.ring);
    close(fds.tail);
    pair_close(pair);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    bool beside_thread = data[0] & 4;
    begin((enum port_kind)(data[0] & 3));
    for (data++, size--; size >= STEP && !pair->engine.down; data += STEP, size -= STEP) {
        uint32_t argument;
        uint64_t value;
        memcpy(&argument, data, sizeof argument);
        memcpy(&value, data + 4, sizeof value);
        switch (argument % 8) {
        case 0:
            speak(argument >> 8, argument & 8);
            break;
        case 1:
            send_from_vm(argument >> 8, argument & 8);
            break;
        case 2:
            take_turns(beside_thread, value);
            break;
        case 3:
            read_at_vm(1 + (argument >> 8) % 64);
            break;
        default:
            scribble((uint8_t)(argument >> 3), argument >> 8, value);
        }
    }
    end();
    return 0;
}
