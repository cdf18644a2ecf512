#include "shared/dealings.h"

static uint64_t get(const _Atomic uint64_t *value)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)value, memory_order_relaxed);
}

static void set(_Atomic uint64_t *value, uint64_t number)
{
    atomic_store_explicit(value, number, memory_order_relaxed);
}

void sent_reset(struct sent *sent)
{
    set(&sent->bytes, 0);
    set(&sent->frames, 0);
    set(&sent->at_ns, 0);
    set(&sent->longest, 0);
}

static bool is_about(const struct question_row *row, const uint64_t *sender, const uint64_t *target)
{
    return get(&row->last_ns) != 0 && get(&row->sender[0]) == sender[0] && get(&row->sender[1]) == sender[1]
           && get(&row->target[0]) == target[0] && get(&row->target[1]) == target[1];
}

/* The row of this question, or the one that has not been asked for longest, made ready for it. */
static struct question_row *row_for(struct questions *questions, const uint64_t *sender, const uint64_t *target)
{
    struct question_row *oldest = &questions->row[0];
    for (uint32_t i = 0; i < QUESTION_ROWS; i++) {
        struct question_row *row = &questions->row[i];
        if (is_about(row, sender, target))
            return row;
        if (get(&row->last_ns) < get(&oldest->last_ns))
            oldest = row;
    }
    set(&oldest->last_ns, 0);
    set(&oldest->times, 0);
    for (uint32_t i = 0; i < 2; i++) {
        set(&oldest->sender[i], sender[i]);
        set(&oldest->target[i], target[i]);
    }
    return oldest;
}

void questions_note(struct questions *questions, const uint8_t *frame, uint32_t bytes, uint64_t now)
{
    struct question question;
    uint64_t sender[2], target[2];
    if (!question_read(&question, frame, bytes))
        return;
    memcpy(sender, question.sender, sizeof sender);
    memcpy(target, question.target, sizeof target);
    struct question_row *row = row_for(questions, sender, target);
    uint64_t last = get(&row->last_ns);
    bool goes_on = last != 0 && now - last <= SERIES_NS;
    if (!goes_on)
        set(&row->first_ns, now);
    set(&row->times, goes_on ? get(&row->times) + 1 : 1);
    set(&row->last_ns, now);
}
