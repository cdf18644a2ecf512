/* sanitize: address,undefined */
/* A frame that is published after the engine's last look at the rings and before it announces its sleep.

   Its producer sees a worker that is awake and does not ring; so the engine has to look once more. The moment is exact:
   the engine asks for the time between the two, and here the clock is what publishes. */
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "engine/engine.h"
#include "engine/engine_peers.h"

#define RING_BYTES (1u << 18)
/* Far longer than a busy machine keeps a thread from running. */
#define TIMEOUT_NS (10 * NS_PER_S)

static struct ring_tx producer;
static int vm[2], control;
static unsigned looks;

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static const uint8_t record[MIN_RECORD] = {0, 0, 0, MIN_FRAME};
    uint8_t frame[MIN_FRAME];
    if (producer.shared != NULL && ++looks == 2 && ring_put(&producer, record, sizeof record, 1, record + 10, false) == 1)
        ring_publish(&producer);
    if (looks > 2 && recv(vm[1], frame, sizeof frame, MSG_DONTWAIT) == MIN_FRAME)
        eventfd_write(control, 1);
    return (int)syscall(SYS_clock_gettime, clock, time);
}

int main(void)
{
    const struct ring_id id = {.src_port = 2, .src_epoch = 22, .dst_port = 1, .dst_epoch = 11};
    static struct engine e = {.port = 1, .epoch = 11};
    struct ring_fds fds;
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, vm) == 0, "sockets");
    e.doorbell = doorbell_create();
    e.bells.flood_doorbell = doorbell_create();
    control = eventfd(0, EFD_NONBLOCK);
    int stats = stats_page_create(0), flood = flood_create(RING_BYTES, 1, 11);
    CHECK(engine_open(&e, KIND_DGRAM, vm[0], stats, flood) == 0, "engine");
    CHECK(waiter_add_control(&e.waiter, control) == 0, "control");
    CHECK(engine_peer_join(&e, 2, 22, 22) == 0, "peer");
    CHECK(ring_create(RING_BYTES, &id, &fds) == 0 && engine_attach_rx(&e, 2, 22, fds) == 0, "ring");
    e.pulse_ns = 1000 * NS_PER_S;
    CHECK(ring_tx_open(&producer, fds, &id) == 0, "producer");
    CHECK(engine_run(&e, TIMEOUT_NS) == EVENT_CONTROL, "the frame was slept through");
    engine_close(&e);
    ring_tx_close(&producer);
    int open[] = {vm[0], vm[1], control, stats, flood, fds.ring, fds.tail, e.doorbell, e.bells.flood_doorbell};
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        close(open[i]);
    return 0;
}
