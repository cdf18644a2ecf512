/* The pump: carries frames between a TAP and a VM's link, a thread for each direction.
 *
 * It makes the kernel's own TCP/IP behind the TAP a VM for contenders that take VMs by a socket only. Each frame is
 * written by a call of its own, as QEMU and libkrun do it: some readers of a stream lose their place if it comes in
 * other pieces. A thread waits for its side alone, so two that wait for each other's reader do not stand still for
 * ever.
 *
 * The TAP's frames may be behind a header of some bytes (virtio_net_hdr). As in libkrun that does not go through the
 * socket, and what comes from there is written behind as many zeros. A guest that shares its memory (guest.h) has the
 * same header in its queues, so there it goes through: the kernel's offloads are the guest's.
 */
#include "load.h"

#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LARGEST_HEADER = 12 };

struct ways {
    int tap;
    size_t header;     /* in front of each frame at the TAP */
    struct link link;  /* of it the thread that sends uses the descriptor only */
    _Atomic bool over; /* one thread has come to its end: the other one is to end, too */
};

static bool going(struct ways *ways) { return !stopping && !ways->over; }

/* A stream takes parts, and a datagram goes whole or not at all. */
static bool send_all(struct ways *ways, const uint8_t *bytes, size_t count) {
    while (count && going(ways)) {
        ssize_t sent = send(ways->link.fd, bytes, count, MSG_NOSIGNAL);
        if (sent > 0) {
            bytes += sent;
            count -= (size_t)sent;
        } else if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
            return false;
        }
    }
    return true;
}

/* The next frame of the TAP, behind its header at `at`; its bytes without the header. 0: it is over. */
static size_t next_from_tap(struct ways *ways, uint8_t *at) {
    struct pollfd ready = {ways->tap, POLLIN, 0};
    while (going(ways)) {
        ssize_t got = read(ways->tap, at, ways->header + LARGEST);
        if (got > (ssize_t)ways->header) return (size_t)got - ways->header;
        poll(&ready, 1, PATIENCE_MS);
    }
    return 0;
}

static void *to_socket(void *context) {
    struct ways *ways = context;
    uint8_t buffer[LENGTH_BYTES + LARGEST_HEADER + LARGEST];
    uint8_t *frame = buffer + LENGTH_BYTES + ways->header;
    size_t prefix = ways->link.stream ? LENGTH_BYTES : 0;
    for (size_t bytes; (bytes = next_from_tap(ways, frame - ways->header));) {
        uint32_t length = htonl((uint32_t)bytes);
        memcpy(frame - prefix, &length, prefix); /* over the end of the header, as libkrun does */
        if (!send_all(ways, frame - prefix, prefix + bytes)) ways->over = true;
    }
    return NULL;
}

/* A place is written again when the queue has gone round. */
static void *to_guest_queue(void *context) {
    struct ways *ways = context;
    struct guest *guest = ways->link.guest;
    const size_t place = (GUEST_HEADER + LARGEST + 63) & ~63;
    uint8_t *places = guest_memory(guest, GUEST_ENTRIES * place);
    for (size_t i = 0, bytes; (bytes = next_from_tap(ways, places + i * place)); i = (i + 1) % GUEST_ENTRIES)
        while (going(ways) && !guest_send(guest, places + i * place, bytes, now_ns() + PATIENCE_MS * UINT64_C(1000000)))
            continue;
    return NULL;
}

static void inward(struct ways *ways) {
    static const uint8_t zeros[LARGEST_HEADER];
    struct reader reader = reader_make(&ways->link, LARGEST);
    const uint8_t *frame;
    size_t size;
    while (going(ways) && !ways->link.ended) {
        reader_fill(&reader);
        while ((frame = reader_next(&reader, &size))) {
            const uint8_t *header = ways->link.guest ? frame - ways->header : zeros;
            struct iovec parts[] = {{(void *)(uintptr_t)header, ways->header}, {(void *)(uintptr_t)frame, size}};
            if (writev(ways->tap, parts, 2) < 0) continue; /* lost, as on any wire: the TAP does not take it */
        }
    }
    ways->over = true;
}

int run_pump(int count, char **words) {
    if (count != 4) die("pump TAP_FD HEADER_BYTES KIND SOCKET_FD");
    struct ways ways = {.tap = (int)word_size(words[0]),
                        .header = word_size(words[1]),
                        .link = link_open((int)word_size(words[3]), words[2])};
    if (ways.header > LARGEST_HEADER) die("the header is too long");
    if (ways.link.guest && ways.header != GUEST_HEADER) die("this header is not a guest's");
    pthread_t thread;
    if (pthread_create(&thread, NULL, ways.link.guest ? to_guest_queue : to_socket, &ways)) die("no thread");
    inward(&ways);
    pthread_join(thread, NULL);
    return 0;
}
