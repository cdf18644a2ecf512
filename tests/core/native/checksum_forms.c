/* sanitize: address,undefined */
/* The checksum's fast forms against the one of the book: words of 16 bits, one after the other (RFC 1071). */
#include "check.h"
#include "offload/checksum.h"

#define MOST 700u

static uint64_t state = 1;

static uint8_t next_byte(void)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint8_t)(state >> 56);
}

static uint16_t by_the_book(const uint8_t *p, uint32_t bytes)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < bytes; i++)
        sum += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
    while (sum >> 16 != 0)
        sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)sum;
}

static uint16_t in_order_of_the_book(uint64_t sum)
{
    uint8_t field[2];
    store_sum(field, folded(sum));
    return (uint16_t)load_be16(field);
}

/* Exact memory, so that a read beyond an end is seen. */
static void check(const uint8_t *bytes, uint32_t count)
{
    uint8_t *from = malloc(count > 0 ? count : 1), *to = malloc(count > 0 ? count : 1);
    CHECK(from != NULL && to != NULL, "no memory");
    memcpy(from, bytes, count);
    uint16_t expected = by_the_book(bytes, count);
    CHECK(in_order_of_the_book(sum_of(from, count)) == expected, "%u bytes", count);
    CHECK(in_order_of_the_book(sum_copied(to, from, count)) == expected, "%u bytes, copied", count);
    CHECK(memcmp(to, bytes, count) == 0, "%u bytes were not copied right", count);
    free(from);
    free(to);
}

int main(void)
{
    static uint8_t bytes[MAX_FRAME];
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < sizeof bytes; i++) /* none, all that can be carried, anything */
            bytes[i] = round == 0 ? 0 : round == 1 ? 0xff : next_byte();
        for (uint32_t at = 0; at < 9; at++)
            for (uint32_t count = 0; count < MOST; count++)
                check(bytes + at, count);
        check(bytes, MAX_FRAME);
        check(bytes + 1, MAX_FRAME - 1);
    }
    for (uint32_t count = 0; count + 4 < MOST; count += 2) {
        uint64_t parts = sum_of(bytes, count) + sum_of(bytes + count, 3);
        CHECK(in_order_of_the_book(parts) == by_the_book(bytes, count + 3), "%u bytes and 3", count);
    }
    return 0;
}
