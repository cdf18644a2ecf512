/* What the loop of an engine has to do with queues in a guest's memory; nothing where the VM has a descriptor.

   Theory of operation. A descriptor tells by epoll whether it can be read or written, a queue tells whoever looks. So a
   worker that is awake looks, once a turn and at no cost, and tells the driver not to kick. Before it sleeps it asks for
   kicks and looks once more, since the driver may have been quicker than the question:

     worker:  arm (avail_event, or the flag); full fence; look at the index; wait for the kick
     driver:  move the index; full fence; read the wish; kick if it is asked for

   It asks for the queue of frames to the guest only while frames wait for its buffers: a guest that posts none costs no
   wake-up, and one that posts some costs one.

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

/* Use it no more; returns the index of the next chain. */
uint16_t queues_stop(struct engine *e, unsigned which);

/* Call the driver this way; -1: not at all. */
void queues_set_call(struct engine *e, unsigned which, int call);

/* READY_READ: the guest has sent frames, which may be read. READY_WRITE: it has posted buffers, which were missed. */
unsigned queues_look(struct engine *e);

/* Ask to be kicked for these, and look once more. */
unsigned queues_arm(struct engine *e);

/* Awake again. */
void queues_suppress(struct engine *e);

/* The end of a turn: call the driver; a queue that makes no sense ends the link. */
void queues_end_turn(struct engine *e);

#endif
