#include "system/waiter.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 16

enum role { ROLE_VM, ROLE_BELL, ROLE_CONTROL, ROLE_KICK };

/* The READY_* bits of a kick are stored above its role. */
#define KICK_SHIFT 8
#define ROLE_MASK 0xffu

int waiter_create(void)
{
    return epoll_create1(EPOLL_CLOEXEC);
}

int waiter_open(struct waiter *waiter)
{
    waiter->wanted = 0;
    if (waiter->epoll < 0)
        waiter->epoll = waiter_create();
    return waiter->epoll < 0 ? -1 : 0;
}

void waiter_close(struct waiter *waiter)
{
    if (waiter->epoll >= 0)
        close(waiter->epoll);
    waiter->epoll = -1;
}

static int control(struct waiter *waiter, int operation, int fd, uint32_t events, enum role role)
{
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)role};
    return epoll_ctl(waiter->epoll, operation, fd, &event);
}

/* A VM that has hung up matters only while it is read: RDHUP comes and goes with EPOLLIN. */
static uint32_t vm_events(const struct waiter *waiter)
{
    return (waiter->wanted & WANT_READ ? EPOLLIN | EPOLLRDHUP : 0u) | (waiter->wanted & WANT_WRITE ? EPOLLOUT : 0u);
}

int waiter_add_vm(struct waiter *waiter, int fd)
{
    waiter->wanted = WANT_READ;
    return control(waiter, EPOLL_CTL_ADD, fd, vm_events(waiter), ROLE_VM);
}

int waiter_restore_vm(struct waiter *waiter, int fd)
{
    return control(waiter, EPOLL_CTL_ADD, fd, vm_events(waiter), ROLE_VM);
}

int waiter_want(struct waiter *waiter, int fd, uint32_t what, bool wanted)
{
    uint32_t now = wanted ? waiter->wanted | what : waiter->wanted & ~what;
    if (now == waiter->wanted || fd < 0)
        return 0;
    waiter->wanted = now;
    return control(waiter, EPOLL_CTL_MOD, fd, vm_events(waiter), ROLE_VM);
}

int waiter_remove(struct waiter *waiter, int fd)
{
    return epoll_ctl(waiter->epoll, EPOLL_CTL_DEL, fd, NULL);
}

/* Edge-triggered: every ring is one event, and the bell need not be read to silence it. */
int waiter_add_bell(struct waiter *waiter, int fd)
{
    return control(waiter, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, ROLE_BELL);
}

int waiter_mask_bell(struct waiter *waiter, int fd, bool masked)
{
    return control(waiter, EPOLL_CTL_MOD, fd, masked ? 0u : EPOLLIN | EPOLLET, ROLE_BELL);
}

int waiter_add_control(struct waiter *waiter, int fd)
{
    return control(waiter, EPOLL_CTL_ADD, fd, EPOLLIN, ROLE_CONTROL);
}

int waiter_add_kick(struct waiter *waiter, int fd, unsigned ready)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = ROLE_KICK | ready << KICK_SHIFT};
    return epoll_ctl(waiter->epoll, EPOLL_CTL_ADD, fd, &event);
}

/* epoll_pwait2 (Linux 5.11) for its nanoseconds; before that, milliseconds rounded up. */
static int wait_ns(int epoll, struct epoll_event *events, uint64_t timeout_ns)
{
#ifdef SYS_epoll_pwait2
    struct timespec t = {.tv_sec = (time_t)(timeout_ns / NS_PER_S), .tv_nsec = (long)(timeout_ns % NS_PER_S)};
    int n = (int)syscall(SYS_epoll_pwait2, epoll, events, EVENTS_AT_ONCE, &t, NULL, 0);
    if (n >= 0 || errno != ENOSYS)
        return n;
#endif
    return epoll_wait(epoll, events, EVENTS_AT_ONCE, (int)((timeout_ns + 999999) / 1000000));
}

static unsigned meaning(const struct epoll_event *event)
{
    if (event->data.u32 == ROLE_BELL)
        return READY_BELL;
    if (event->data.u32 == ROLE_CONTROL)
        return READY_CONTROL;
    if ((event->data.u32 & ROLE_MASK) == ROLE_KICK)
        return event->data.u32 >> KICK_SHIFT;
    unsigned ready = 0;
    if (event->events & EPOLLIN)
        ready |= READY_READ;
    if (event->events & EPOLLOUT)
        ready |= READY_WRITE;
    if (event->events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR))
        ready |= READY_HANGUP;
    return ready;
}

unsigned waiter_wait(struct waiter *waiter, uint64_t timeout_ns)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int n = timeout_ns == 0 ? epoll_wait(waiter->epoll, events, EVENTS_AT_ONCE, 0)
                            : wait_ns(waiter->epoll, events, timeout_ns);
    if (n < 0)
        return READY_CONTROL; /* EINTR: the interpreter has a signal to handle */
    unsigned ready = 0;
    for (int i = 0; i < n; i++)
        ready |= meaning(&events[i]);
    return ready;
}

/* Half of what the counter can hold. */
#define BELL_LEVEL ((uint64_t)1 << 63)

int doorbell_create(void)
{
    uint64_t level = BELL_LEVEL;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE);
    if (fd >= 0 && write(fd, &level, sizeof level) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void doorbell_ring(int fd)
{
    uint64_t one = 1;
    /* A full counter refuses a ring: make room. If it is full again, another one has rung meanwhile. */
    if (write(fd, &one, sizeof one) < 0 && read(fd, &one, sizeof one) > 0) {
        one = 1;
        ssize_t written = write(fd, &one, sizeof one);
        (void)written;
    }
}
