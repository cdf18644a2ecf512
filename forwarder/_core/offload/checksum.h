/* The Internet checksum (RFC 1071), in the order of memory, which it does not depend on.

   Theory of operation. A sum of 16-bit words in one's complement is a sum of wider words modulo 0xffff, so whole 64-bit
   words are added up and folded at the end. Their carries must not get lost, and no vector unit has an add that keeps
   them. So two sums are kept, of whole words (modulo 2^64) and of their upper halves: the sum of the lower halves is
   whole - (upper << 32), exactly, since it is below 2^64. That is one shift and two adds for each vector, half of what
   widening 32-bit words takes, and a loop that every compiler turns into vectors by itself (-O3).

   Where the bytes are copied anyway, the sum is made on the way: they are read once instead of twice. */
#ifndef BULKHEAD_CHECKSUM_H
#define BULKHEAD_CHECKSUM_H

#include "common.h"

/* Not folded, so that sums of parts can be added; every part but the last has an even number of bytes. Below 2^48. */
uint64_t sum_of(const uint8_t *p, uint32_t bytes);

/* The same of bytes that are copied to `to`, which is somewhere else. */
uint64_t sum_copied(uint8_t *restrict to, const uint8_t *restrict from, uint32_t bytes);

static inline uint16_t folded(uint64_t sum)
{
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static inline uint16_t load_sum(const uint8_t *at)
{
    uint16_t field;
    memcpy(&field, at, sizeof field);
    return field;
}

static inline void store_sum(uint8_t *at, uint16_t field)
{
    memcpy(at, &field, sizeof field);
}

#endif
