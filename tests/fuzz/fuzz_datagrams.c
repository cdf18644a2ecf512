/* Fuzz target: frames of guests, given to the relay's datagrams; one flow has a way, and one source is shed.

   The input is a row of frames, each behind its length (two bytes, little-endian) as a packet socket shows it. What
   lies behind the end of a frame must not matter, so each input runs twice, over memory of zeros and of ones. What is
   carried must leave whole: the payload of each carried frame, in order, and nothing else. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/datagrams.h"

#define MOST DATAGRAM_BATCH
#define FRAMES 8u
#define ETHERNET_AT 10u
#define IP_AT 24u

static const uint8_t mac[MAC_BYTES] = {2, 0, 0, 0, 0, 1}, shed_mac[MAC_BYTES] = {2, 0, 0, 0, 0, 2};
static const uint8_t guest[4] = {10, 0, 0, 2}, far[4] = {192, 0, 2, 1}, far6[16] = {0x20, 1}, guest6[16] = {0xfd};

static void must(bool done)
{
    if (!done)
        abort();
}

struct result {
    uint8_t fate[MOST]; /* 0: left, 1: gone */
    uint32_t count, carried, bytes;
    uint64_t shed[SHED_KINDS], dropped, sum;
};

static void pair_of(int *pair)
{
    int size = 1 << 22;
    must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) == 0);
    must(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
}

static void enter(struct datagrams *datagrams, int out)
{
    struct flow_way way = {.fd = out};
    must(flow_socket_open(&datagrams->outlet.cache, out) == 0);
    struct flow_key four = flow_key_of_guest(4, mac, guest, far, 7, 64, true);
    struct flow_key six = flow_key_of_guest(6, mac, guest6, far6, 7, 64, true);
    flow_cache_enter(&datagrams->outlet.cache, &four, -1, &way, 1);
    flow_cache_enter(&datagrams->outlet.cache, &six, -1, &way, 1);
    datagrams_shed(datagrams, shed_mac, SHED_SYN, UINT64_MAX);
    datagrams_shed(datagrams, shed_mac, SHED_FORGED, UINT64_MAX);
}

/* How many bytes UDP carries in a frame that was carried. */
static uint32_t payload_of(const uint8_t *frame)
{
    uint32_t transport = IP_AT + (frame[IP_AT] >> 4 == 4 ? 20u : 40u);
    return load_be16(frame + transport + 4) - 8u;
}

static struct result run(const uint8_t *data, size_t size, int filler)
{
    static struct datagrams datagrams;
    static uint8_t bytes[1 << 17];
    const struct lan lan = {.network = {10, 0, 0, 0}, .mask = {255, 255, 255, 0}, .prefix = {0xfd}};
    struct result result = {.count = 0};
    int in[2], out[2];
    uint32_t wanted = 0;
    pair_of(in);
    pair_of(out);
    must(datagrams_open(&datagrams, &lan) == 0);
    memset(datagrams.bytes, filler, (size_t)FRAMES * DATAGRAM_BYTES);
    enter(&datagrams, out[0]);
    size_t at = 0;
    for (uint32_t sent = 0; at + 2 <= size && sent < FRAMES; sent++) {
        size_t length = load_le16(data + at);
        at += 2;
        if (length > size - at)
            length = size - at;
        must(send(in[0], data + at, length, 0) == (ssize_t)length);
        at += length;
    }
    int count = datagrams_from_guests(&datagrams, in[1], 2);
    for (int i = 0; i < count; i++) {
        const struct message *message = &datagrams.messages[i];
        result.fate[i] = !message->left;
        bool is_shed = message->bytes >= IP_AT && memcmp(message->data + ETHERNET_AT + 6, shed_mac, MAC_BYTES) == 0;
        if (!message->left && !is_shed)
            wanted += payload_of(message->data);
    }
    result.count = count > 0 ? (uint32_t)count : 0;
    result.carried = datagrams.carried;
    result.dropped = datagrams.outlet.dropped;
    memcpy(result.shed, datagrams.shed, sizeof result.shed);
    for (ssize_t got; (got = recv(out[1], bytes, sizeof bytes, 0)) >= 0;) {
        result.bytes += (uint32_t)got;
        for (ssize_t i = 0; i < got; i++)
            result.sum = result.sum * 31 + bytes[i];
    }
    must(result.dropped > 0 || result.bytes == wanted);
    datagrams_close(&datagrams);
    for (int i = 0; i < 2; i++) {
        close(in[i]);
        close(out[i]);
    }
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct result one = run(data, size, 0), other = run(data, size, 0xff);
    must(memcmp(&one, &other, sizeof one) == 0);
    return 0;
}
