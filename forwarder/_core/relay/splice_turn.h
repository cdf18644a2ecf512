/* A turn of the set of connections: take events, move bytes, report.

   Theory of operation. The set is edge-triggered: a connection is told once when something has become possible, and
   remembers it, from before the join, too. Short messages are moved with their event. Bulk waits in a queue, of which a
   turn moves a few connections a fair share each (SPLICE_BULKY), so that one guest's bulk delays short messages, and the
   caller's descriptors, by a few milliseconds only. Example: of 300 connections with bulk, four move 1 MiB each; an echo
   that came meanwhile and a SYN at the caller's set are next.

   The caller's own sets of descriptors may be in this one (`splices_watch`), so a process sleeps here, and events of
   connections wake no Python unless there is something to report.

   Example: a request of 100 bytes and its answer on a joined connection: two events, two recv, two send, no report. */
#ifndef BULKHEAD_SPLICE_TURN_H
#define BULKHEAD_SPLICE_TURN_H

#include "relay/splices.h"

/* Move what can be moved until there is something to tell, a descriptor of the caller's is readable, or it is that
   late (monotonic, ns). `reports` says what has become of connections. -1 with errno: a signal. */
int splices_wait(struct splices *splices, uint64_t until);

/* After a failure: end it if the other end has acknowledged all bytes. The errno to end it with; -1: not yet. */
int splices_settle(struct splices *splices, uint32_t number);

#endif
