/* The forwarding engine of one port: a turn, and when to sleep.

   Theory of operation. One engine, one thread, one VM. A turn is

     ingress  ingress.c       read a burst from the VM, at most INGRESS_BUDGET
     switch   switch.c        check, learn, look up
              send.c          into the rings and the flood ring
              bells.c         publish the rings, ring the neighbours that sleep
     egress   egress.c        take from the other ports' rings in turn, at most EGRESS_BUDGET
              egress_write.c  write to the VM; wait for it where it does not read
     tick     engine.c        publish counters; busy-poll, then sleep, if there was nothing to do

   The two budgets bound a turn: a VM that floods cannot keep its own worker from serving it, and floods from others
   cannot keep the worker from reading its VM. Python is entered for control events and deadlines only.

   Example. A VM pings another one; both workers sleep. The sender's epoll_pwait2 returns with READY_READ. The turn
   reads 102 bytes to the front of the ring to port 2, finds port 2 behind the destination address, commits 102 bytes as
   one run, publishes the ring and rings port 2's doorbell, since its sleep word is odd: three system calls (wait, recv,
   write). Port 2's worker wakes, views one run of 102 bytes, writes it to its VM and moves the tail: two system calls.
   The answer comes 80 us later, which is a short pause, so both workers busy-poll for 20 us after it.

   Calls. The thread that made an engine calls everything in this folder, one call at a time; other threads and
   processes see only what lies in shared memory. engine_open takes an engine of zeroes with port, epoch and doorbells
   filled in, and with waiter.epoll if there is one already (waiter_create). The caller may unmap its memory and close
   its descriptors afterwards, except the VM's and the doorbells, which must outlive the engine. engine_close frees
   everything else; it may be called twice. */
#ifndef BULKHEAD_ENGINE_H
#define BULKHEAD_ENGINE_H

#include "port/port.h"

enum {
    EVENT_CONTROL = 1,
    EVENT_LINK_DOWN = 2,
    EVENT_WANTED = 4,
    EVENT_UNFINISHED = 8,
    EVENT_GUARDED = 16
};

int engine_open(struct engine *e, enum port_kind kind, int vm, int stats, int flood);
void engine_close(struct engine *e);
/* Leave the VM unread and unwatched, or go on with it. */
int engine_hold(struct engine *e, bool held);
unsigned engine_run(struct engine *e, uint64_t timeout_ns);
uint64_t engine_queued(const struct engine *e);

#endif
