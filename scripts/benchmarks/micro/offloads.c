/* What checksums, segments and the inference of headers cost one core: the core's own packet files, in a loop.
 *
 *     offloads ROUNDS
 *
 * Prints a line for each case: what, bytes of the frame, nanoseconds of the fastest round and of the median one.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload/checksum.h"
#include "offload/coalesce.h"
#include "offload/infer.h"
#include "offload/offload.h"
#include "offload/vnet.h"
#include "packet/packet.h"

enum { ETHERNET = 14, HEADERS = 66, MTU = 1500, LARGE = 65226, CALLS = 200, MOST_ROUNDS = 10000 };

static uint8_t frame[VNET_BYTES + MAX_FRAME], records[4 * MAX_RECORD];
static volatile uint64_t sink;

/* TCP over IPv4 with time stamps, its sum begun, behind the header that is inferred. Returns the whole's bytes. */
static uint32_t make(uint32_t bytes) {
    uint8_t *ip = frame + VNET_BYTES + ETHERNET, *tcp = ip + IPV4_LEAST;
    uint32_t carried = bytes - ETHERNET - IPV4_LEAST;
    for (uint32_t i = 0; i < bytes; i++) frame[VNET_BYTES + i] = (uint8_t)(i * 7);
    store_be16(ip - 2, ETHERTYPE_IPV4);
    ip[0] = 0x45;
    store_be16(ip + IPV4_TOTAL, IPV4_LEAST + carried);
    store_be16(ip + IPV4_FRAGMENT, 0x4000);
    ip[IPV4_PROTOCOL] = IPPROTO_TCP;
    tcp[TCP_OFFSET] = 8 << 4;
    tcp[TCP_FLAGS] = TCP_ACK;
    store_sum(ip + IPV4_SUM, 0);
    store_sum(ip + IPV4_SUM, (uint16_t)~folded(sum_of(ip, IPV4_LEAST)));
    store_sum(tcp + TCP_SUM,
              folded(sum_of(ip + IPV4_ADDRESSES, 8) + htons(IPPROTO_TCP) + htons((uint16_t)carried)));
    infer(frame, frame + VNET_BYTES, bytes, MTU);
    return VNET_BYTES + bytes;
}

static void sum(uint32_t bytes) { sink = sum_of(frame + VNET_BYTES, bytes); }

static void sum_and_copy(uint32_t bytes) { sink = sum_copied(records, frame + VNET_BYTES, bytes); }

static void infer_header(uint32_t bytes) {
    uint8_t vnet[VNET_BYTES];
    sink = (uint64_t)infer(vnet, frame + VNET_BYTES, bytes, MTU);
}

static void finish(uint32_t bytes, bool whole) {
    struct offload offload;
    uint32_t at = 0;
    if (!offload_open(&offload, frame, VNET_BYTES + bytes)) abort();
    if (whole) offload_keep_whole(&offload);
    while (!offload_is_done(&offload)) at += offload_next(&offload, records + at);
    sink = at;
}

static void finish_whole(uint32_t bytes) { finish(bytes, true); }

static void finish_and_cut(uint32_t bytes) { finish(bytes, false); }

/* Of the segments that finish_and_cut has left in `records`. */
static void join(uint32_t bytes) {
    struct iovec frames[COALESCE_MOST];
    struct coalesced joined;
    unsigned count = 0;
    for (uint32_t at = 0; at < bytes + bytes / MTU * HEADERS && count < COALESCE_MOST; count++) {
        uint32_t size = load_be32(records + at);
        if (size < MIN_FRAME || size > MTU + ETHERNET) break;
        frames[count] = (struct iovec){.iov_base = records + at + LENGTH_BYTES, .iov_len = size};
        at += LENGTH_BYTES + size;
    }
    sink = coalesce(&joined, frames, count);
}

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

static void measure(const char *what, void (*work)(uint32_t), uint32_t bytes, unsigned rounds) {
    static double each[MOST_ROUNDS];
    make(bytes);
    if (work == join) finish_and_cut(bytes);
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t begun = monotonic_ns();
        for (int i = 0; i < CALLS; i++) work(bytes);
        each[round] = (double)(monotonic_ns() - begun) / CALLS;
    }
    qsort(each, rounds, sizeof *each, by_value);
    printf("%s\t%u\t%.1f\t%.1f\n", what, bytes, each[0], each[rounds / 2]);
}

int main(int count, char **words) {
    unsigned rounds = count > 1 ? (unsigned)atoi(words[1]) : 0;
    if (rounds == 0 || rounds > MOST_ROUNDS) return 2;
    measure("sum", sum, 20, rounds);
    measure("sum", sum, 1460, rounds);
    measure("sum", sum, 65536, rounds);
    measure("sum and copy", sum_and_copy, 1460, rounds);
    measure("sum and copy", sum_and_copy, 65536, rounds);
    measure("infer a header", infer_header, 1514, rounds);
    measure("infer a header", infer_header, LARGE, rounds);
    measure("finish", finish_whole, 1514, rounds);
    measure("finish", finish_whole, LARGE, rounds);
    measure("finish and cut", finish_and_cut, LARGE, rounds);
    measure("verify and join", join, LARGE, rounds);
    return 0;
}
