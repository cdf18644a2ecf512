/* sanitize: address,undefined */
/* What a VM that does not read does to the egress: when it waits for the descriptor, when for the timer, and how long. */
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "egress/egress_write.h"

#define FIRST_NS 50000u
#define MOST_NS 10000000u

static struct stats_page page;
static uint8_t record[MAX_RECORD];

static void open_engine(struct engine *e, enum port_kind kind, int type, int vm[2])
{
    int small = 4608;
    CHECK(socketpair(AF_UNIX, type, 0, vm) == 0, "sockets");
    CHECK(setsockopt(vm[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0, "buffer");
    *e = (struct engine){.vm = {.fd = vm[0], .kind = kind}, .stats = &page, .waiter.epoll = -1};
    CHECK(waiter_open(&e->waiter) == 0 && waiter_add_vm(&e->waiter, vm[0]) == 0, "waiter");
    e->out.staging = malloc(STAGING_BYTES);
    CHECK(e->out.staging != NULL, "memory");
}

static void close_engine(struct engine *e, const int vm[2])
{
    waiter_close(&e->waiter);
    free(e->out.staging);
    close(vm[0]);
    close(vm[1]);
}

static uint64_t write_record(struct engine *e, uint32_t bytes)
{
    struct span span = {.records = record, .bytes = LENGTH_BYTES + bytes};
    bool garbled;
    store_be32(record, bytes);
    e->out.blocked = false;
    return egress_write(e, &span, 1, MAX_FRAME, &garbled, NS_PER_S);
}

static void fill(struct engine *e)
{
    while (write_record(e, 1500) > 0)
        continue;
}

/* As after a wait that ended without room. */
static uint64_t retry_in_vain(struct engine *e)
{
    e->out.fruitless = true;
    CHECK(write_record(e, 1500) == 0 && e->out.blocked, "the socket is full");
    return e->out.retry_at - NS_PER_S;
}

static void pauses_double_until_something_is_written(void)
{
    struct engine e;
    int vm[2];
    uint64_t expected = FIRST_NS;
    open_engine(&e, KIND_DGRAM, SOCK_DGRAM, vm);
    fill(&e);
    CHECK(e.out.blocked && e.out.retry_at == 0, "the first time the descriptor is waited for");
    for (int i = 0; i < 12; i++) {
        uint64_t pause = retry_in_vain(&e);
        CHECK(pause == expected, "pause %d is %llu ns", i, (unsigned long long)pause);
        expected = 2 * expected < MOST_NS ? 2 * expected : MOST_NS;
    }
    CHECK(recv(vm[1], record, sizeof record, 0) > 0 && write_record(&e, 1500) > 0, "there is room again");
    CHECK(!e.out.fruitless && !e.out.blocked, "something was written");
    fill(&e);
    CHECK(retry_in_vain(&e) == FIRST_NS, "pauses begin anew");
    close_engine(&e, vm);
}

static void a_short_write_blocks_at_once(void)
{
    struct engine e;
    int vm[2];
    open_engine(&e, KIND_STREAM, SOCK_STREAM, vm);
    uint64_t taken = write_record(&e, MAX_FRAME);
    CHECK(taken > 0 && taken < MAX_RECORD, "%llu bytes", (unsigned long long)taken);
    CHECK(e.out.blocked && e.count.eagain == 1, "without another system call");
    close_engine(&e, vm);
}

int main(void)
{
    pauses_double_until_something_is_written();
    a_short_write_blocks_at_once();
    return 0;
}
