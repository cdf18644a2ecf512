/* The unicast ring and its sleep protocol (ring.h, doorbell.h), for an exhaustive search by spin.

   Two processes and a memory that is weaker than any machine we run on: every store waits by itself and
   reaches memory whenever it likes, in any order, and a load of data may happen late, unless
     RELEASE_*   a cursor is stored with release: what the process did before it has happened, or
     FENCE_*     a full fence: nothing of that process is still on its way.
   The producer publishes ITEMS records through a ring of SLOTS and drops at the tail when the ring is full.
   The consumer takes what is there, and sleeps as doorbell.h says when nothing is. The bell is an eventfd
   waited for edge-triggered: an event stays until it is waited for.

   What spin checks: every record taken holds what was put there (no lost, torn or duplicated byte); the only
   end is received + dropped = ITEMS (a lost wake-up would leave the consumer waiting for ever). The test also
   searches with each of the four rules taken out, and demands that spin then finds a fault. */

#ifndef RELEASE_HEAD
#define RELEASE_HEAD 1
#endif
#ifndef RELEASE_TAIL
#define RELEASE_TAIL 1
#endif
#ifndef FENCE_PRODUCER
#define FENCE_PRODUCER 1
#endif
#ifndef FENCE_CONSUMER
#define FENCE_CONSUMER 1
#endif

#define ITEMS 4
#define SLOTS 2

byte slot[SLOTS], head, tail, asleep;         /* memory */
byte slot_next[SLOTS], head_next, tail_next, asleep_next;
bool slot_due[SLOTS], head_due, tail_due, asleep_due; /* stores on their way */
bool load_due;                                /* the consumer's load of a record, not done yet */
byte load_at;
byte put[ITEMS + 1];                          /* what was put at each position: known to the check only */
bool bell, producer_done;
byte received, dropped;

#define slots_settled (!slot_due[0] && !slot_due[1])

active proctype memory()
{
end:
    do
    :: atomic { slot_due[0] -> slot[0] = slot_next[0]; slot_due[0] = false }
    :: atomic { slot_due[1] -> slot[1] = slot_next[1]; slot_due[1] = false }
    :: atomic { head_due -> head = head_next; head_due = false }
    :: atomic { tail_due -> tail = tail_next; tail_due = false }
    :: atomic { asleep_due -> asleep = asleep_next; asleep_due = false }
    :: atomic { load_due -> assert(slot[load_at % SLOTS] == put[load_at]); load_due = false }
    od
}

active proctype producer()
{
    byte item = 1, written, rung, seen;
    do
    :: item <= ITEMS ->
        seen = tail;
        if
        :: written - seen == SLOTS -> dropped++
        :: else ->
            atomic {
                !slot_due[written % SLOTS] ->
                put[written] = item;
                slot_next[written % SLOTS] = item;
                slot_due[written % SLOTS] = true
            }
            written++;
            if
            :: RELEASE_HEAD -> slots_settled
            :: else
            fi;
            atomic { !head_due -> head_next = written; head_due = true }
            if
            :: FENCE_PRODUCER -> !head_due && slots_settled
            :: else
            fi;
            seen = asleep;
            if
            :: seen % 2 == 1 && seen != rung -> rung = seen; bell = true
            :: else
            fi
        fi;
        item++
    :: else -> break
    od;
    producer_done = true
}

active proctype consumer()
{
    byte at, announced;
    do
    :: producer_done && received + dropped == ITEMS -> break
    :: head != at ->
        atomic { !load_due -> load_at = at; load_due = true }
        at++;
        received++;
        if
        :: RELEASE_TAIL -> !load_due
        :: else
        fi;
        atomic { !tail_due -> tail_next = at; tail_due = true }
    :: head == at && !(producer_done && received + dropped == ITEMS) ->
        atomic { !asleep_due -> announced++; asleep_next = announced; asleep_due = true }
        if
        :: FENCE_CONSUMER -> !asleep_due && !tail_due
        :: else
        fi;
        if
        :: head == at ->
            if
            :: bell -> bell = false
            :: producer_done && received + dropped == ITEMS
            fi
        :: head != at
        fi;
        atomic { !asleep_due -> announced++; asleep_next = announced; asleep_due = true }
    od;
    !load_due
}
