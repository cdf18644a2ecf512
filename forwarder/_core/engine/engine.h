/* The forwarding engine of one port: a turn, and when to sleep.

   Theory of operation. One engine, one thread, one VM. A turn is

     ingress  ingress.c  read a burst from the VM, at most INGRESS_BUDGET
     switch   switch.c   check, learn, look up
              send.c     into the rings and the flood ring
              bells.c    publish; ring who sleeps
     egress   egress.c   take from the other ports' rings in turn, write to the VM, at most EGRESS_BUDGET
     tick     engine.c   publish counters; busy-poll, then sleep, if there was nothing to do

   The two budgets bound a turn, so that a VM that floods cannot keep its own worker from serving what
   comes in for it, nor the other way round. Python is entered for control events and deadlines only. */
#ifndef BULKHEAD_ENGINE_H
#define BULKHEAD_ENGINE_H

#include "engine/port.h"

enum {
    EVENT_CONTROL = 1,
    EVENT_LINK_DOWN = 2,
    EVENT_WANTED = 4,
    EVENT_UNFINISHED = 8
};

int engine_open(struct engine *e, enum port_kind kind, int vm, int stats, int flood);
void engine_close(struct engine *e);
/* Leave the VM unread and unwatched, or go on with it. */
int engine_hold(struct engine *e, bool held);
unsigned engine_run(struct engine *e, uint64_t timeout_ns);
uint64_t engine_queued(const struct engine *e);

#endif
