#include "offload/checksum.h"

struct sums {
    uint64_t whole; /* of the words, modulo 2^64 */
    uint64_t upper; /* of their upper halves */
};

static inline void add(struct sums *sums, uint64_t word)
{
    sums->whole += word;
    sums->upper += word >> 32;
}

/* Of the last bytes, fewer than 8. In steps of constant size: a call of memcpy costs more than a header's whole sum. */
static inline uint64_t sum_of_rest(const uint8_t *p, uint32_t bytes)
{
    uint32_t four = 0;
    uint16_t two = 0, one = 0;
    if (bytes & 4)
        memcpy(&four, p, 4);
    if (bytes & 2)
        memcpy(&two, p + (bytes & 4), 2);
    if (bytes & 1)
        memcpy(&one, p + (bytes & 6), 1);
    return (uint64_t)four + two + one;
}

static inline uint64_t together(const struct sums *sums)
{
    return (sums->whole - (sums->upper << 32)) + sums->upper;
}

uint64_t sum_of(const uint8_t *p, uint32_t bytes)
{
    struct sums sums = {0};
    uint64_t word;
    for (; bytes >= sizeof word; bytes -= (uint32_t)sizeof word, p += sizeof word) {
        memcpy(&word, p, sizeof word);
        add(&sums, word);
    }
    return together(&sums) + sum_of_rest(p, bytes);
}

uint64_t sum_copied(uint8_t *restrict to, const uint8_t *restrict from, uint32_t bytes)
{
    struct sums sums = {0};
    uint64_t word;
    for (; bytes >= sizeof word; bytes -= (uint32_t)sizeof word, from += sizeof word, to += sizeof word) {
        memcpy(&word, from, sizeof word);
        memcpy(to, &word, sizeof word);
        add(&sums, word);
    }
    memcpy(to, from, bytes);
    return together(&sums) + sum_of_rest(from, bytes);
}
