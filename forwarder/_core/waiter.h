/* The one place that sleeps: readiness of descriptors, with a deadline in nanoseconds.

   The Linux-only calls of the core are behind this header (epoll, eventfd) and tap.h; a port to macOS
   gives kqueue the same face. */
#ifndef BULKHEAD_WAITER_H
#define BULKHEAD_WAITER_H

#include "common.h"

struct waiter {
    int epoll;
    bool writable_armed;
};

/* Bits of waiter_wait's answer. */
enum {
    READY_READ = 1,    /* the VM's descriptor */
    READY_WRITE = 2,
    READY_HANGUP = 4,
    READY_CONTROL = 8, /* a watched descriptor, or a signal */
    READY_BELL = 16
};

int waiter_open(struct waiter *waiter);
void waiter_close(struct waiter *waiter);

int waiter_add_vm(struct waiter *waiter, int fd);
/* Ask (or stop asking) whether the VM's descriptor takes bytes. */
int waiter_want_writable(struct waiter *waiter, int fd, bool wanted);
int waiter_remove(struct waiter *waiter, int fd);
int waiter_add_bell(struct waiter *waiter, int fd);
int waiter_add_control(struct waiter *waiter, int fd);

/* Wait up to timeout_ns (0: only look). */
unsigned waiter_wait(struct waiter *waiter, uint64_t timeout_ns);

int doorbell_create(void);
void doorbell_ring(int fd);

#endif
