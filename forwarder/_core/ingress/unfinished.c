#include "ingress/unfinished.h"

#include "offload/infer.h"

#define SAMPLE_NS (NS_PER_S / 100)
#define SAMPLE_FRAMES 4u
#define NOTICE_SCORE 3u
/* A bound of the score, so that a noticed VM stays noticed for a while, not for ever. */
#define MOST_SCORE 16u

static void score(struct unfinished *unfinished, enum inferred sum)
{
    if (sum == SUM_BEGUN && unfinished->score < MOST_SCORE)
        unfinished->score++;
    else if (sum == SUM_FINISHED && unfinished->score > 0)
        unfinished->score--;
    if (unfinished->score >= NOTICE_SCORE)
        unfinished->noticed = true;
    else if (unfinished->score == 0)
        unfinished->noticed = false;
}

void unfinished_sample(struct engine *e, const struct frame_run *run)
{
    uint8_t vnet[VNET_BYTES];
    const uint8_t *record = run->start;
    if (LIKELY(e->now < e->unfinished.due))
        return;
    for (uint32_t i = 0; i < run->frames && i < SAMPLE_FRAMES; i++) {
        uint32_t bytes = load_be32(record);
        enum inferred sum = infer(vnet, record_frame(record), bytes, UINT16_MAX);
        if (sum != SUM_NONE)
            e->unfinished.due = e->now + SAMPLE_NS;
        score(&e->unfinished, sum);
        record += LENGTH_BYTES + bytes;
    }
}
