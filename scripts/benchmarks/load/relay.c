/* The bare relay: a process that only copies from one socket to another, both ways, without looking at a byte.
 *
 * It is what the kernel's sockets allow for one hop, with the same batching as a switch could have: a stream by 256 KiB,
 * messages by 64 at a time. It learns nothing, checks nothing, and one stuck reader stops both ways; so a switch cannot
 * do less.
 */
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *buffer;
static struct mmsghdr messages[BATCH];
static struct iovec vectors[BATCH];
static size_t slot;

static bool ended(ssize_t got) { return got == 0 || (errno != EAGAIN && errno != EINTR); }

/* False: a link ended. */
static bool copy_stream(int from, int to) {
    ssize_t got = recv(from, buffer, BURST_BYTES, MSG_DONTWAIT);
    if (got <= 0) return !ended(got);
    for (ssize_t done = 0; done < got && !stopping;) {
        ssize_t some = send(to, buffer + done, (size_t)(got - done), MSG_NOSIGNAL);
        if (some > 0)
            done += some;
        else if (ended(some))
            return false;
    }
    return true;
}

static bool copy_messages(int from, int to) {
    for (unsigned i = 0; i < BATCH; i++) vectors[i].iov_len = slot;
    int got = recvmmsg(from, messages, BATCH, MSG_DONTWAIT, NULL);
    if (got <= 0) return !ended(got);
    if (messages[0].msg_len == 0) return false;
    for (int i = 0; i < got; i++) vectors[i].iov_len = messages[i].msg_len;
    for (int done = 0; done < got && !stopping;) {
        int some = sendmmsg(to, messages + done, (unsigned)(got - done), MSG_NOSIGNAL);
        if (some > 0)
            done += some;
        else if (ended(some))
            return false;
    }
    return true;
}

int run_relay(int count, char **words) {
    if (count != 4) die("relay KIND LARGEST_FRAME ONE_FD OTHER_FD");
    slot = (word_size(words[1]) + 128) & ~(size_t)63;
    size_t room = BATCH * slot > BURST_BYTES ? BATCH * slot : BURST_BYTES;
    buffer = malloc(room);
    if (!buffer) die("out of memory");
    memset(buffer, 0, room);
    for (unsigned i = 0; i < BATCH; i++) {
        vectors[i].iov_base = buffer + i * slot;
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    struct link one = link_open((int)word_size(words[2]), words[0]);
    struct link other = link_open((int)word_size(words[3]), words[0]);
    bool (*copy)(int, int) = one.stream ? copy_stream : copy_messages;
    struct pollfd ready[2] = {{one.fd, POLLIN, 0}, {other.fd, POLLIN, 0}};
    while (!stopping && poll(ready, 2, -1) >= 0)
        for (int i = 0; i < 2; i++)
            if (ready[i].revents && !copy(ready[i].fd, ready[!i].fd)) return 0;
    return 0;
}
