#include "engine/engine.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "egress/egress.h"
#include "egress/egress_write.h"
#include "engine/guest_queues.h"
#include "ingress/inbuf.h"
#include "ingress/ingress.h"
#include "ingress/switch.h"

/* Published counters are at most so many busy turns old. */
#define PUBLISH_TURNS 64u

/* A worker that follows another within this time reads the floods that came meanwhile; older ones are of no use. It
   covers a pulse, the time after which a worker counts as silent, and the start of the next one. */
#define FOLLOWS_NS (5 * NS_PER_S)

int engine_open(struct engine *e, enum port_kind kind, int vm, int stats, int flood)
{
    e->vm = (struct vm){.fd = kind == KIND_VHOST ? -1 : vm, .kind = kind};
    e->flood_unknown = true;
    e->refusal_rate.per_second = REFUSED_PER_S;
    if (e->waiter.epoll == 0)
        e->waiter.epoll = -1;
    e->stats = stats_page_map(&e->stats_shm, stats, SHM_WRITE);
    if (e->stats != NULL) {
        uint64_t published = atomic_load_explicit(&e->stats->published_ns, memory_order_acquire);
        e->follows = published != 0 && monotonic_ns() < published + FOLLOWS_NS;
        stats_page_read(e->stats, &e->count);
        fdb_recount(&e->stats->fdb);
    }
    if (e->stats != NULL && kind == KIND_VHOST)
        e->vhost = vhost_open(e->stats->queue_moved, &e->stats->memory_gone);
    bool has_link = kind == KIND_VHOST ? e->vhost != NULL : true;
    e->pulse_ns = NS_PER_S;
    e->busy_poll.most_ns = kind == KIND_VHOST ? GUEST_POLL_NS : BUSY_POLL_NS;
    e->out.staging = malloc(STAGING_BYTES);
    if (e->stats == NULL || !has_link || e->out.staging == NULL || inbuf_open(e) < 0 || waiter_open(&e->waiter) < 0
        || flood_tx_open(&e->flood, flood, e->port, e->epoch) < 0
        || (e->vm.fd >= 0 && waiter_add_vm(&e->waiter, e->vm.fd) < 0)
        || waiter_add_bell(&e->waiter, e->doorbell) < 0 || waiter_add_bell(&e->waiter, e->bells.flood_doorbell) < 0) {
        int saved = errno;
        engine_close(e);
        errno = saved;
        return -1;
    }
    e->sends = TAKES_ALL;
    e->longest = MAX_FRAME;
    port_take(e, kind == KIND_TAP ? (struct intake){.takes = TAKES_ALL, .longest = MAX_FRAME} : INTAKE_PLAIN);
    return 0;
}

void engine_close(struct engine *e)
{
    while (e->peers.count > 0)
        peers_remove(&e->peers, e->peers.port[0]);
    if (e->stats != NULL)
        stats_page_publish(e->stats, &e->count, monotonic_ns());
    captures_end_all(&e->captures);
    flood_tx_close(&e->flood);
    vhost_close(e->vhost);
    e->vhost = NULL;
    inbuf_close(e);
    waiter_close(&e->waiter);
    guard_close(&e->guard);
    free(e->sources);
    e->sources = NULL;
    free(e->out.staging);
    e->out.staging = NULL;
    shm_unmap(&e->stats_shm);
    e->stats = NULL;
    e->down = true;
}

/* A VM that has gone is not noticed meanwhile either: an ignored hang-up would make epoll spin. */
int engine_hold(struct engine *e, bool held)
{
    if (e->held == held || e->down)
        return 0;
    e->held = held;
    if (e->vm.fd < 0)
        return 0;
    return held ? waiter_remove(&e->waiter, e->vm.fd) : waiter_restore_vm(&e->waiter, e->vm.fd);
}

uint64_t engine_queued(const struct engine *e)
{
    uint64_t bytes = e->out.to - e->out.from;
    for (uint32_t i = 0; i < e->peers.count; i++) {
        const struct peer *peer = e->peers.at[e->peers.port[i]];
        if (peer->rx.shared != NULL)
            bytes += ring_depth(&peer->rx);
    }
    return bytes;
}

static void publish(struct engine *e, uint64_t now)
{
    e->unpublished_turns = 0;
    e->count.egress_bytes = engine_queued(e);
    stats_page_publish(e->stats, &e->count, now);
}

static void mask_bells(struct engine *e, bool masked)
{
    e->bells_masked = masked;
    waiter_mask_bell(&e->waiter, e->doorbell, masked);
    waiter_mask_bell(&e->waiter, e->bells.flood_doorbell, masked);
}

/* Apply the waiter's events to the engine. */
static unsigned absorb(struct engine *e, unsigned ready, uint64_t now)
{
    struct egress *out = &e->out;
    bool timer = out->retry_at != 0 && now >= out->retry_at;
    if (out->blocked && (timer || ((ready & READY_WRITE) && out->retry_at == 0))) {
        out->blocked = false;
        out->fruitless = true;
        out->retry_at = 0;
        waiter_want(&e->waiter, e->vm.fd, WANT_WRITE, false);
    }
    /* A worker that waits for its VM cannot act on a doorbell, and the flood bell rings for all, so it masks them. */
    if (UNLIKELY(e->bells_masked != out->blocked) && (e->bells_masked || (ready & READY_BELL)))
        mask_bells(e, !e->bells_masked);
    return ready & READY_CONTROL ? EVENT_CONTROL : 0;
}

/* Is the next byte of the stream, each way, the first of a record? */
static bool at_boundary(const struct engine *e)
{
    return e->in.rest == 0 && e->out.from == e->out.to;
}

static void settle_doubt(struct engine *e)
{
    _Atomic uint32_t *flag = &e->stats->at_boundary;
    if (vm_is_stream(&e->vm) && atomic_load_explicit(flag, memory_order_relaxed) == 0 && at_boundary(e))
        atomic_store_explicit(flag, 1, memory_order_seq_cst);
}

static bool turn(struct engine *e, unsigned ready, uint64_t now)
{
    bool worked = false;
    e->now = now;
    bool paused = e->held || ingress_resumes(e) != 0;
    waiter_want(&e->waiter, e->vm.fd, WANT_READ, !paused);
    if ((ready & READY_HANGUP) || ((ready & READY_READ) && !paused)) {
        switch_begin(e);
        worked = ingress_poll(e);
        switch_end(e);
    }
    if (!e->down && egress_poll(e, now))
        worked = true;
    if (e->reply_due)
        switch_end(e);
    queues_end_turn(e);
    settle_doubt(e);
    if (UNLIKELY(e->captures != NULL))
        captures_publish(e->captures);
    e->count.turns++;
    if (++e->unpublished_turns >= PUBLISH_TURNS)
        publish(e, now);
    return worked;
}

static uint64_t until(uint64_t deadline, uint64_t now)
{
    return deadline > now ? deadline - now : 0;
}

/* Sleep as doorbell.h says; a worker that waits for its VM sleeps without announcing it. */
static unsigned sleep_until(struct engine *e, uint64_t deadline, uint64_t now)
{
    struct sleep_word *word = &e->flood.shared->sleep;
    bool announced = !e->out.blocked;
    unsigned ready = 0;
    uint64_t retry = egress_deadline(e), resume = ingress_resumes(e);
    if (retry < deadline)
        deadline = retry;
    if (resume != 0 && resume < deadline)
        deadline = resume;
    if (now + e->pulse_ns < deadline)
        deadline = now + e->pulse_ns;
    publish(e, now);
    if (announced)
        sleep_begin(word);
    ready = queues_arm(e);
    if (ready == 0 && (!announced || !egress_has_news(e))) {
        e->count.sleeps++;
        ready = waiter_wait(&e->waiter, until(deadline, now));
    }
    queues_suppress(e);
    if (announced)
        sleep_end(word);
    return ready;
}

/* Poll until something comes or the time is over. Neighbours see a worker that is awake, and do not ring. A guest's queues
   are in memory, so the kernel is asked only once there. */
static unsigned busy_poll(struct engine *e, uint64_t until)
{
    bool in_memory = e->vhost != NULL;
    unsigned ready = in_memory ? waiter_wait(&e->waiter, 0) : 0;
    while (ready == 0 && !egress_has_news(e) && monotonic_ns() < until) {
        sched_yield();
        ready = in_memory ? queues_gather(e) : waiter_wait(&e->waiter, 0);
    }
    return ready;
}

/* A turn has found nothing to do. */
static unsigned rest(struct engine *e, uint64_t deadline, uint64_t now)
{
    uint64_t until = busy_poll_until(&e->busy_poll, now);
    return until != 0 && !e->out.blocked ? busy_poll(e, until) : sleep_until(e, deadline, now);
}

/* Between two turns of work. A guest's queues and all rings are polled in memory, so the kernel is asked only now and
   then, for messages of the supervisor or the front-end. */
#define TURNS_BETWEEN_LOOKS 16u

static unsigned look(struct engine *e)
{
    bool ask = e->vhost == NULL || e->count.turns % TURNS_BETWEEN_LOOKS == 0;
    return queues_gather(e) | (ask ? waiter_wait(&e->waiter, 0) : 0);
}

unsigned engine_run(struct engine *e, uint64_t timeout_ns)
{
    uint64_t now = monotonic_ns();
    uint64_t deadline = now + timeout_ns;
    unsigned ready = waiter_wait(&e->waiter, 0) | queues_look(e);
    unsigned events = 0;
    bells_pay(&e->bells);
    while (!e->down) {
        events |= absorb(e, ready, now);
        bool worked = turn(e, ready, now);
        if (e->any_wanted)
            events |= EVENT_WANTED;
        if (UNLIKELY(e->unfinished.told != e->unfinished.noticed)) {
            e->unfinished.told = e->unfinished.noticed;
            events |= EVENT_UNFINISHED;
        }
        if (UNLIKELY(e->guard.news))
            events |= EVENT_GUARDED;
        now = monotonic_ns();
        if (events != 0 || e->down || now >= deadline)
            break;
        if (worked)
            busy_poll_after_work(&e->busy_poll, e->now);
        ready = worked ? look(e) : rest(e, deadline, now);
        now = monotonic_ns();
    }
    publish(e, now);
    return e->down ? events | EVENT_LINK_DOWN : events;
}
