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
    set(&sent->data_ns, 0);
}

/* A question as a row has it. */
struct about {
    uint64_t sender[2];
    uint64_t target[2];
    uint64_t vlan;
};

static bool is_about(const struct question_row *row, const struct about *about)
{
    return get(&row->last_ns) != 0 && get(&row->sender[0]) == about->sender[0]
           && get(&row->sender[1]) == about->sender[1] && get(&row->target[0]) == about->target[0]
           && get(&row->target[1]) == about->target[1] && get(&row->vlan) == about->vlan;
}

/* The row of this question, or the one that has not been asked for longest, made ready for it. */
static struct question_row *row_for(struct questions *questions, const struct about *about)
{
    struct question_row *oldest = &questions->row[0];
    for (uint32_t i = 0; i < QUESTION_ROWS; i++) {
        struct question_row *row = &questions->row[i];
        if (is_about(row, about))
            return row;
        if (get(&row->last_ns) < get(&oldest->last_ns))
            oldest = row;
    }
    set(&oldest->last_ns, 0);
    set(&oldest->times, 0);
    for (uint32_t i = 0; i < 2; i++) {
        set(&oldest->sender[i], about->sender[i]);
        set(&oldest->target[i], about->target[i]);
    }
    set(&oldest->vlan, about->vlan);
    return oldest;
}

static void note(struct questions *questions, const struct question *question, uint64_t now)
{
    struct about about = {.vlan = question->vlan};
    memcpy(about.sender, question->sender, sizeof about.sender);
    memcpy(about.target, question->target, sizeof about.target);
    struct question_row *row = row_for(questions, &about);
    uint64_t last = get(&row->last_ns);
    bool goes_on = last != 0 && now - last <= SERIES_NS;
    if (!goes_on)
        set(&row->first_ns, now);
    set(&row->times, goes_on ? get(&row->times) + 1 : 1);
    set(&row->last_ns, now);
}

void questions_note(struct questions *questions, const uint8_t *frame, uint32_t bytes, uint64_t now)
{
    struct question question;
    if (question_read(&question, frame, bytes))
        note(questions, &question, now);
}

void questions_note_sender(struct questions *questions, const uint8_t *frame, uint32_t bytes, uint64_t now)
{
    struct question question;
    if (!question_read(&question, frame, bytes))
        return;
    memset(question.target, 0, sizeof question.target);
    note(questions, &question, now);
}
