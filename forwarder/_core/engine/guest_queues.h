/* The engine loop's part for queues in a guest's memory; it does nothing for a VM with a descriptor.

   Theory of operation. epoll shows the state of a descriptor; the state of a queue is in memory. So a worker that is
   awake checks the queues once a turn, at no cost, and tells the driver not to kick. Before it sleeps it asks for
   kicks and checks once more, since the driver may have been faster than the request:

     worker:  arm (avail_event, or the flag); full fence; look at the index; wait for the kick
     driver:  move the index; full fence; read the request; kick if it is asked for

   It asks for kicks of the queue to the guest only while frames wait for buffers: a guest that posts none costs no
   wake-up, and a guest that posts some costs one.

   The driver is called at the end of a turn, at most once for each queue. */
#ifndef BULKHEAD_GUEST_QUEUES_H
#define BULKHEAD_GUEST_QUEUES_H

#include "port/port.h"

/* The driver has accepted these features. */
void queues_set_features(struct engine *e, uint64_t features);

/* Use a queue from now on: from `index`, or from where the last worker stopped. -1 and errno: EFAULT, it is not in the
   guest's memory; EPERM, the kick cannot be waited for. */
int queues_start(struct engine *e, unsigned which, const struct queue_place *place, uint16_t index, bool resumed,
                 int kick, int call);

/* Stop a queue; returns the index of the next chain. */
uint16_t queues_stop(struct engine *e, unsigned which);

/* Set the descriptor that calls the driver; -1: do not call. */
void queues_set_call(struct engine *e, unsigned which, int call);

/* READY_READ: the guest has sent frames, which may be read. READY_WRITE: it has posted the missing buffers. */
unsigned queues_look(struct engine *e);

/* The same for a worker that is at work: frames are left to become a burst while the driver still adds to them. */
unsigned queues_gather(struct engine *e);

/* Ask to be kicked for these, and check once more. */
unsigned queues_arm(struct engine *e);

/* Stop asking for kicks: the worker is awake. */
void queues_suppress(struct engine *e);

/* The end of a turn: call the driver; a queue that makes no sense ends the link. */
void queues_end_turn(struct engine *e);

#endif
