#include "engine/guest_queues.h"

#include <errno.h>
#include <fcntl.h>

#include "ingress/ingress.h"
#include "vhost/vhost_features.h"

static struct virtqueue *queue_of(struct engine *e, unsigned which)
{
    return &e->vhost->queue[which];
}

void queues_set_features(struct engine *e, uint64_t features)
{
    vhost_set_features(e->vhost, features);
    e->sends = vhost_sends(features);
    port_take(e, vhost_intake(features));
}

/* The guest's side may make it block again; that stops only its own worker. */
void queues_set_call(struct engine *e, unsigned which, int call)
{
    if (call >= 0)
        fcntl(call, F_SETFL, fcntl(call, F_GETFL) | O_NONBLOCK);
    queue_of(e, which)->call = call;
}

int queues_start(struct engine *e, unsigned which, const struct queue_place *place, uint16_t index, bool resumed,
                 int kick, int call)
{
    struct virtqueue *queue = queue_of(e, which);
    if (!virtqueue_start(queue, &e->vhost->memory, place, index, resumed)) {
        errno = EFAULT;
        return -1;
    }
    if (waiter_add_kick(&e->waiter, kick, which == QUEUE_FROM_GUEST ? READY_READ : READY_WRITE) < 0) {
        virtqueue_stop(queue);
        return -1;
    }
    queue->kick = kick;
    queues_set_call(e, which, call);
    return 0;
}

/* Refuse the frames that wait for its buffers. */
uint16_t queues_stop(struct engine *e, unsigned which)
{
    struct virtqueue *queue = queue_of(e, which);
    if (queue->kick >= 0)
        waiter_remove(&e->waiter, queue->kick);
    queue->kick = -1;
    if (which == QUEUE_TO_GUEST) {
        e->out.blocked = false;
        e->out.retry_at = 0;
    }
    return virtqueue_stop(queue);
}

static bool may_read(const struct engine *e)
{
    return !e->held && ingress_resumes(e) == 0;
}

/* Frames wait for buffers, not for a timer. */
static bool misses_buffers(const struct engine *e)
{
    return e->out.blocked && e->out.retry_at == 0;
}

static unsigned ask(struct engine *e, bool (*has_frames)(struct virtqueue *), bool (*has_buffers)(struct virtqueue *))
{
    unsigned ready = 0;
    if (may_read(e) && has_frames(queue_of(e, QUEUE_FROM_GUEST)))
        ready |= READY_READ;
    if (misses_buffers(e) && has_buffers(queue_of(e, QUEUE_TO_GUEST)))
        ready |= READY_WRITE;
    return ready;
}

static bool has_any(struct virtqueue *queue)
{
    return virtqueue_waiting(queue) > 0;
}

unsigned queues_look(struct engine *e)
{
    return e->vhost != NULL ? ask(e, has_any, has_any) : 0;
}

unsigned queues_gather(struct engine *e)
{
    return e->vhost != NULL ? ask(e, virtqueue_has_burst, has_any) : 0;
}

unsigned queues_arm(struct engine *e)
{
    return e->vhost != NULL ? ask(e, virtqueue_arm, virtqueue_arm) : 0;
}

void queues_suppress(struct engine *e)
{
    for (unsigned i = 0; e->vhost != NULL && i < QUEUES; i++)
        virtqueue_suppress(queue_of(e, i));
}

void queues_end_turn(struct engine *e)
{
    if (e->vhost == NULL)
        return;
    e->count.doorbells += vhost_call(e->vhost);
    const char *fault = vhost_fault(e->vhost);
    if (UNLIKELY(fault != NULL))
        port_link_down(e, fault, 0);
}
