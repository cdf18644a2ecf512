/* The pump: carries frames between a TAP and a stream socket in QEMU's framing, a thread for each direction.
 *
 * It makes the kernel's own TCP/IP behind the TAP a VM of whoever takes VMs by a socket only. Each frame is written by
 * a call of its own, as QEMU does it: some readers lose their place in a stream that comes in other pieces. A thread
 * waits for its side alone, so two that wait for each other's reader do not stand still for ever.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

struct ways {
    int tap;
    struct link link;  /* of it the thread that sends uses the descriptor only */
    _Atomic bool over; /* one thread has come to its end: the other one is to end, too */
};

static bool going(struct ways *ways) { return !stopping && !ways->over; }

static bool send_all(struct ways *ways, const uint8_t *bytes, size_t count) {
    while (count && going(ways)) {
        ssize_t sent = send(ways->link.fd, bytes, count, MSG_NOSIGNAL);
        if (sent > 0) {
            bytes += sent;
            count -= (size_t)sent;
        } else if (errno != EAGAIN && errno != EINTR) {
            return false;
        }
    }
    return true;
}

static void *outward(void *context) {
    struct ways *ways = context;
    struct pollfd ready = {ways->tap, POLLIN, 0};
    uint8_t record[LENGTH_BYTES + LARGEST];
    while (going(ways)) {
        ssize_t got = read(ways->tap, record + LENGTH_BYTES, LARGEST);
        if (got <= 0) {
            poll(&ready, 1, PATIENCE_MS);
            continue;
        }
        uint32_t length = htonl((uint32_t)got);
        memcpy(record, &length, LENGTH_BYTES);
        if (!send_all(ways, record, LENGTH_BYTES + (size_t)got)) ways->over = true;
    }
    return NULL;
}

static void inward(struct ways *ways) {
    struct reader reader = reader_make(&ways->link, LARGEST);
    const uint8_t *frame;
    size_t size;
    while (going(ways) && !ways->link.ended) {
        reader_fill(&reader);
        while ((frame = reader_next(&reader, &size)))
            if (write(ways->tap, frame, size) < 0) continue; /* lost, as on any wire: the TAP does not take it */
    }
    ways->over = true;
}

int run_pump(int count, char **words) {
    if (count != 2) die("pump TAP_FD SOCKET_FD");
    struct ways ways = {.tap = (int)word_size(words[0]), .link = link_open((int)word_size(words[1]), "stream")};
    pthread_t thread;
    if (pthread_create(&thread, NULL, outward, &ways)) die("no thread");
    inward(&ways);
    pthread_join(thread, NULL);
    return 0;
}
