/* The only place where a worker sleeps: readiness of descriptors, with a deadline in nanoseconds.

   Theory of operation. An epoll instance watches the VM's descriptor (level-triggered, for what is asked of it), the
   two bells (edge-triggered: each ring is one event, and the counter of the eventfd is never read), and the control
   descriptors of Python (level-triggered). Readiness is reported as a set of READY_* bits, not by descriptor: an
   engine has one VM, and Python checks its descriptors itself.

   epoll, eventfd and epoll_pwait2 are behind this header, so a port to another system gives kqueue the same face.

   Example. The VM does not read: the engine asks WANT_WRITE and waits. A neighbour's flood rings: READY_BELL. The
   engine masks both bells and waits again, undisturbed. The VM reads: READY_WRITE. The bells are unmasked and count
   as rung if they ever were, so no ring is lost.

   A bell has many ringers, and one of them may be hostile. The bell's counter begins in the middle, and each read takes
   one of it (EFD_SEMAPHORE). So a ringer cannot read it empty, after which epoll would drop an event that a worker has
   not seen yet. A ringer can write it full; then the next one makes room (doorbell_ring). The descriptor must not block,
   since a ringer at a full bell would hang: a worker's cell forbids changing that (cell_filter.c).

   Calls. From the engine's thread; doorbell_ring from any. waiter_close frees the epoll instance and none of the
   descriptors watched. Errors: -1 and errno. */
#ifndef BULKHEAD_WAITER_H
#define BULKHEAD_WAITER_H

#include "common.h"

struct waiter {
    int epoll;
    uint32_t wanted; /* of the VM's descriptor: WANT_* */
};

/* Bits of waiter_wait's answer. */
enum {
    READY_READ = 1,    /* the VM's descriptor */
    READY_WRITE = 2,
    READY_HANGUP = 4,
    READY_CONTROL = 8, /* a watched descriptor, or a signal */
    READY_BELL = 16
};

int waiter_create(void);

/* Begin with the epoll instance in `waiter`, or make one if that is -1. */
int waiter_open(struct waiter *waiter);
void waiter_close(struct waiter *waiter);

int waiter_add_vm(struct waiter *waiter, int fd);
enum { WANT_READ = 1, WANT_WRITE = 2 };
/* Watch, or stop watching, whether the VM's descriptor is readable (watched from the start) or writable. A VM without
   one (-1) is never watched. */
int waiter_want(struct waiter *waiter, int fd, uint32_t what, bool wanted);
int waiter_remove(struct waiter *waiter, int fd);
/* Watch the VM's descriptor again, for the present events. */
int waiter_restore_vm(struct waiter *waiter, int fd);
int waiter_add_bell(struct waiter *waiter, int fd);
/* Mask a bell, or unmask it. An unmasked bell rings at once if it ever has, so no ring is missed. */
int waiter_mask_bell(struct waiter *waiter, int fd, bool masked);
int waiter_add_control(struct waiter *waiter, int fd);
/* Be woken by a guest's kick with `ready`. The descriptor is the guest's, so it is only waited for, never read. */
int waiter_add_kick(struct waiter *waiter, int fd, unsigned ready);

/* Wait up to timeout_ns (0: only look). */
unsigned waiter_wait(struct waiter *waiter, uint64_t timeout_ns);

/* A bell: edge-triggered, and always readable. */
int doorbell_create(void);
void doorbell_ring(int fd);

#endif
