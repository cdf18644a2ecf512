/* The Internet checksum (RFC 1071), in the order of memory, which it does not depend on. */
#ifndef BULKHEAD_CHECKSUM_H
#define BULKHEAD_CHECKSUM_H

#include "common.h"

/* 64 bits never overflow. */
static inline uint64_t sum_of(const uint8_t *p, uint32_t bytes)
{
    uint64_t sum = 0;
    uint32_t word;
    for (; bytes >= sizeof word; bytes -= (uint32_t)sizeof word, p += sizeof word) {
        memcpy(&word, p, sizeof word);
        sum += word;
    }
    word = 0;
    memcpy(&word, p, bytes);
    return sum + word;
}

static inline uint16_t folded(uint64_t sum)
{
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static inline void store_sum(uint8_t *at, uint16_t field)
{
    memcpy(at, &field, sizeof field);
}

#endif
