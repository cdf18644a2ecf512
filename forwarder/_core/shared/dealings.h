/* What a port's VM has had to do with others lately, for an operator who asks why two do not reach each other: what it
   sent to each peer, which neighbours it asked for, and which addresses it said it has.

   Theory of operation. In the port's statistics page; its worker writes, the supervisor reads without asking. What is
   sent is noted once for each run of frames, so the longest frame is that of the first of each run: a VM that sends
   longer ones sends one first sooner or later. A run counts as data if its first frame is not about neighbours: a
   guest that filters everything answers ARP all the same. Questions are noted when they are flooded, and only those:
   ARP and neighbour discovery ask all. An answer, or a question to one alone, says an address of its sender, and is a
   row without a target.

   Questions of one sender for one target in one VLAN within SERIES_NS of each other are a series. A kernel asks once or
   twice if it gets an answer, and once a second until then. A port has QUESTION_ROWS rows; a new question takes the
   place of the oldest. A VM that scans a network pushes out its own questions and no other VM's.

   Each value is stored whole; a row that is read while it changes may be half the old one and half the new.

     t = 0 s, 1 s, 2 s   10.0.0.7 asks for 10.0.0.9     one row, times 3, first 0 s, last 2 s
     t = 60 s            asks again                     times 1, first 60 s
     t = 61 s            answers 10.0.0.8, as 10.0.0.7  another row: sender 10.0.0.7, no target

   Calls. From the worker that has the port; reading from any process that maps the page. */
#ifndef BULKHEAD_DEALINGS_H
#define BULKHEAD_DEALINGS_H

#include <stdatomic.h>

#include "packet/question.h"

#define QUESTION_ROWS 16u
#define SERIES_NS (5 * NS_PER_S)

struct sent {
    _Atomic uint64_t bytes; /* of frames for that port alone, those lost on the way included */
    _Atomic uint64_t frames;
    _Atomic uint64_t at_ns; /* when the last of them was read from the VM, monotonic */
    _Atomic uint64_t longest; /* bytes, of the frames that began a run */
    _Atomic uint64_t data_ns; /* when the last run of data was; 0: never */
};

struct question_row {
    _Atomic uint64_t sender[2];
    _Atomic uint64_t target[2]; /* 0: its VM asked for nothing */
    _Atomic uint64_t vlan;
    _Atomic uint64_t first_ns;
    _Atomic uint64_t last_ns; /* 0: no question */
    _Atomic uint64_t times;
};

struct questions {
    struct question_row row[QUESTION_ROWS];
};

/* Add to a value of a page that its worker alone writes. */
static inline void page_add(_Atomic uint64_t *value, uint64_t more)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + more, memory_order_relaxed);
}

/* Note a run of frames, of which the first has `first_bytes`; `data`: it is not about neighbours. */
static inline void sent_note(struct sent *sent, uint32_t frames, uint32_t bytes, uint32_t first_bytes, bool data,
                             uint64_t now)
{
    if (LIKELY(data))
        atomic_store_explicit(&sent->data_ns, now, memory_order_relaxed);
    page_add(&sent->bytes, bytes);
    page_add(&sent->frames, frames);
    atomic_store_explicit(&sent->at_ns, now, memory_order_relaxed);
    if (first_bytes > atomic_load_explicit(&sent->longest, memory_order_relaxed))
        atomic_store_explicit(&sent->longest, first_bytes, memory_order_relaxed);
}

/* What is noted is about another VM from now on. */
void sent_reset(struct sent *sent);

/* Note a flooded frame if it is a question or an answer. */
void questions_note(struct questions *questions, const uint8_t *frame, uint32_t bytes, uint64_t now);

/* Note the address that a frame for one port alone says its VM has. */
void questions_note_sender(struct questions *questions, const uint8_t *frame, uint32_t bytes, uint64_t now);

#endif
