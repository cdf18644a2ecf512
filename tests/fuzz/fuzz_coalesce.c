/* Segments that lie one behind the other, nearly right: what is joined comes apart again, by the inverse, into the same
   frames, with right checksums. */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "offload/checksum.h"
#include "offload/coalesce.h"
#include "offload/offload.h"
#include "packet/packet.h"

#define IP 14u
#define SEGMENTS 70u
#define LONGEST 256u

static void must(bool done)
{
    if (!done)
        abort();
}

struct input {
    const uint8_t *data;
    size_t size;
};

static uint8_t next_byte(struct input *input)
{
    if (input->size == 0)
        return 0;
    input->size--;
    return *input->data++;
}

/* A segment of a connection whose `sent` bytes went before; returns its length. */
static uint32_t make_segment(uint8_t *frame, bool is_ipv4, uint32_t options, uint32_t sent, uint32_t payload, bool push)
{
    uint32_t tcp = IP + (is_ipv4 ? IPV4_LEAST : IPV6_BYTES), headers = tcp + TCP_LEAST + 4 * options;
    memset(frame, 0x42, headers + payload);
    store_be16(frame + IP - 2, is_ipv4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    frame[IP] = is_ipv4 ? 0x45 : 0x60;
    if (is_ipv4) {
        store_be16(frame + IP + 2, headers + payload - IP);
        store_be16(frame + IP + 6, 0x4000);
        frame[IP + 9] = IPPROTO_TCP;
        store_sum(frame + IP + IPV4_SUM, 0);
        store_sum(frame + IP + IPV4_SUM, (uint16_t)~folded(sum_of(frame + IP, IPV4_LEAST)));
    } else {
        store_be16(frame + IP + 4, headers + payload - tcp);
        frame[IP + 6] = IPPROTO_TCP;
    }
    store_be32(frame + tcp + 4, 1000 + sent);
    frame[tcp + 12] = (uint8_t)((5 + options) << 4);
    frame[tcp + 13] = (uint8_t)(TCP_ACK | (push ? TCP_PSH : 0u));
    for (uint32_t i = 0; i < payload; i++)
        frame[headers + i] = (uint8_t)(sent + i);
    uint32_t addresses = is_ipv4 ? 8 : 32, carried = headers - tcp + payload;
    store_sum(frame + tcp + TCP_SUM, 0);
    uint64_t sum = sum_of(frame + tcp - addresses, addresses) + htons(IPPROTO_TCP) + htons((uint16_t)carried)
                   + sum_of(frame + tcp, carried);
    store_sum(frame + tcp + TCP_SUM, (uint16_t)~folded(sum));
    return headers + payload;
}

/* A checksum of zero has two forms, which are equal in TCP; the inverse stores the form for UDP. */
static void settle_zero(uint8_t *frame)
{
    uint8_t *sum = frame + IP + (load_be16(frame + IP - 2) == ETHERTYPE_IPV4 ? IPV4_LEAST : IPV6_BYTES) + TCP_SUM;
    if (load_be16(sum) == 0)
        store_be16(sum, UINT16_MAX);
}

/* Two frames are the same but for the identification of IPv4, which the inverse counts by itself, and its checksum. */
static void expect_same(const uint8_t *one, const uint8_t *other, uint32_t bytes)
{
    uint8_t a[LONGEST], b[LONGEST];
    memcpy(a, one, bytes);
    memcpy(b, other, bytes);
    if (load_be16(a + IP - 2) == ETHERTYPE_IPV4) {
        must(folded(sum_of(a + IP, IPV4_LEAST)) == UINT16_MAX);
        memset(a + IP + 4, 0, 2), memset(b + IP + 4, 0, 2);
        memset(a + IP + IPV4_SUM, 0, 2), memset(b + IP + IPV4_SUM, 0, 2);
    }
    settle_zero(a);
    settle_zero(b);
    must(memcmp(a, b, bytes) == 0);
}

static void expect_apart(const struct coalesced *whole, const struct iovec *frames, unsigned n)
{
    static uint8_t headed[MAX_FRAME];
    uint8_t record[LENGTH_BYTES + LONGEST];
    uint32_t bytes = 0;
    struct offload offload;
    for (unsigned i = 0; i <= n; i++) {
        must(bytes + whole->parts[i].iov_len <= sizeof headed);
        memcpy(headed + bytes, whole->parts[i].iov_base, whole->parts[i].iov_len);
        bytes += (uint32_t)whole->parts[i].iov_len;
    }
    must(offload_is_sound(headed, headed + VNET_BYTES, bytes - VNET_BYTES) && offload_open(&offload, headed, bytes));
    for (unsigned i = 0; i < n; i++) {
        must(!offload_is_done(&offload) && offload_next_bytes(&offload) == LENGTH_BYTES + frames[i].iov_len);
        offload_next(&offload, record);
        expect_same(record + LENGTH_BYTES, frames[i].iov_base, (uint32_t)frames[i].iov_len);
    }
    must(offload_is_done(&offload));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t memory[SEGMENTS][LONGEST];
    struct input input = {data, size};
    struct iovec frames[SEGMENTS];
    struct coalesced whole;
    uint8_t shape = next_byte(&input);
    uint32_t options = (shape >> 1) % 11, payload = 1 + next_byte(&input) % 120, sent = 0;
    unsigned count = 0;
    while (count < SEGMENTS && (count < 2 || input.size > 0)) {
        uint8_t how = next_byte(&input);
        uint32_t bytes = how & 1 ? 1 + next_byte(&input) % payload : payload;
        uint32_t length = make_segment(memory[count], shape & 1, options, sent, bytes, how & 2);
        for (unsigned i = 0; i < (how >> 6); i++)
            memory[count][next_byte(&input) % length] ^= next_byte(&input);
        frames[count] = (struct iovec){memory[count], how & 4 ? 1 + next_byte(&input) % length : length};
        sent += bytes;
        count++;
    }
    unsigned n = coalesce(&whole, frames, count);
    must(n >= 1 && n <= count);
    if (n > 1)
        expect_apart(&whole, frames, n);
    return 0;
}
