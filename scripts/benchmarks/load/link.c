/* Links, bursts and readers: see load.h. */
#include "load.h"

#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

static const uint64_t ODD = 0x9E3779B97F4A7C15u;

static void *allocate(size_t size) {
    void *memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    if (!memory) die("out of memory");
    memset(memory, 0, size);
    return memory;
}

struct link link_open(int fd, const char *kind) {
    struct timeval patience = {.tv_usec = PATIENCE_MS * 1000};
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK)) die("not a descriptor");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience))
        die("not a socket");
    bool single = !strcmp(kind, "stream-1");
    return (struct link){.fd = fd,
                         .stream = single || !strcmp(kind, "stream"),
                         .single = single,
                         .guest = !strcmp(kind, "vhost") ? guest_open(fd) : NULL};
}

static struct mmsghdr *message_table(uint8_t *bytes, size_t stride, size_t skip, size_t size) {
    struct mmsghdr *messages = allocate(BATCH * sizeof *messages);
    struct iovec *vectors = allocate(BATCH * sizeof *vectors);
    for (unsigned i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){bytes + i * stride + skip, size};
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    return messages;
}

struct burst burst_make(const struct link *link, size_t size, uint32_t run, const uint8_t *dst, const uint8_t *src) {
    struct burst burst = {.size = size, .stride = LENGTH_BYTES + size, .run = run};
    if (size < SMALLEST || size > LARGEST) die("no such frame size");
    burst.capacity = link->stream ? BURST_BYTES / burst.stride : BATCH;
    if (link->guest) {
        burst.stride = (GUEST_HEADER + size + 63) & ~(size_t)63;
        burst.slots = GUEST_ENTRIES;
    }
    unsigned frames = link->guest ? burst.slots : burst.capacity;
    burst.bytes = link->guest ? guest_memory(link->guest, frames * burst.stride) : allocate(frames * burst.stride);
    for (unsigned i = 0; i < frames; i++) {
        uint8_t *frame = burst_frame(&burst, i);
        uint32_t length = htonl((uint32_t)size);
        if (!link->guest) memcpy(frame - LENGTH_BYTES, &length, LENGTH_BYTES);
        memcpy(frame, dst, 6);
        memcpy(frame + 6, src, 6);
        frame[12] = 0x88; /* IEEE 802 local experimental: no kernel answers it */
        frame[13] = 0xB5;
        for (size_t k = SEQUENCE_AT + 8; k < size; k++) frame[k] = (uint8_t)(k * 31 + k / 256);
        frame_stamp(frame, size, run, 0);
    }
    if (!link->stream && !link->guest) burst.messages = message_table(burst.bytes, burst.stride, LENGTH_BYTES, size);
    return burst;
}

uint8_t *burst_frame(const struct burst *burst, unsigned index) {
    if (burst->slots) return burst->bytes + (burst->next + index) % burst->slots * burst->stride + GUEST_HEADER;
    return burst->bytes + index * burst->stride + LENGTH_BYTES;
}

void frame_stamp(uint8_t *frame, size_t size, uint32_t run, uint64_t sequence) {
    uint64_t check = (sequence + run) * ODD;
    memcpy(frame + RUN_AT, &run, sizeof run);
    memcpy(frame + SEQUENCE_AT, &sequence, sizeof sequence);
    memcpy(frame + size - CHECK_BYTES, &check, sizeof check);
}

/* After a call that sent nothing: is it worth another try? The call has waited PATIENCE_MS for room, except where the
 * kernel lacks memory. */
static bool retry(struct link *link, uint64_t deadline) {
    if (errno == ENOBUFS) nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
        link->ended = true;
        return false;
    }
    return !stopping && now_ns() < deadline;
}

static unsigned send_stream(struct link *link, struct burst *burst, size_t bytes, uint64_t deadline) {
    size_t sent = 0;
    while (sent < bytes) {
        size_t some = link->single ? burst->stride - sent % burst->stride : bytes - sent;
        ssize_t got = send(link->fd, burst->bytes + sent, some, MSG_NOSIGNAL);
        if (got > 0)
            sent += (size_t)got;
        else if (!retry(link, deadline))
            break;
        /* Out of time, but within a frame: only its end is still sent. */
        if (sent < bytes && now_ns() >= deadline)
            bytes = (sent + burst->stride - 1) / burst->stride * burst->stride;
    }
    if (sent % burst->stride) link->cut = true;
    return (unsigned)(sent / burst->stride);
}

static unsigned send_guest(struct link *link, struct burst *burst, unsigned count, uint64_t deadline) {
    unsigned sent = 0;
    while (sent < count && guest_send(link->guest, burst_frame(burst, 0) - GUEST_HEADER, burst->size, deadline)) {
        burst->next = (burst->next + 1) % burst->slots;
        sent++;
    }
    return sent;
}

unsigned burst_send(struct link *link, struct burst *burst, unsigned count, uint64_t deadline) {
    unsigned sent = 0;
    if (link->guest) return send_guest(link, burst, count, deadline);
    if (link->stream) return send_stream(link, burst, count * burst->stride, deadline);
    while (sent < count) {
        int got = sendmmsg(link->fd, burst->messages + sent, count - sent, MSG_NOSIGNAL);
        if (got > 0)
            sent += (unsigned)got;
        else if (!retry(link, deadline))
            break;
    }
    return sent;
}

struct reader reader_make(struct link *link, size_t largest) {
    struct reader reader = {.link = link};
    if (link->guest) return reader;
    if (link->stream) {
        reader.bytes = allocate(2 * BURST_BYTES);
    } else {
        reader.slot = (largest + 128) & ~(size_t)63; /* a longer message is cut by the kernel, and seen as foreign */
        reader.bytes = allocate(BATCH * reader.slot);
        reader.messages = message_table(reader.bytes, reader.slot, 0, reader.slot);
    }
    return reader;
}

static bool nothing(struct reader *reader, ssize_t got) {
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) reader->link->ended = true;
    return false;
}

bool reader_fill(struct reader *reader) {
    if (reader->link->guest) return guest_wait(reader->link->guest, PATIENCE_MS);
    if (!reader->link->stream) {
        int got = recvmmsg(reader->link->fd, reader->messages, BATCH, MSG_WAITFORONE, NULL);
        reader->from = 0;
        reader->to = got > 0 ? (size_t)got : 0;
        if (got <= 0) return nothing(reader, -1);
        if (reader->messages[0].msg_len == 0) { /* how a seqpacket link ends; no VM is sent an empty frame */
            reader->to = 0;
            return nothing(reader, 0);
        }
        return true;
    }
    memmove(reader->bytes, reader->bytes + reader->from, reader->to - reader->from);
    reader->to -= reader->from;
    reader->from = 0;
    ssize_t got = recv(reader->link->fd, reader->bytes + reader->to, 2 * BURST_BYTES - reader->to, 0);
    if (got <= 0) return nothing(reader, got);
    reader->to += (size_t)got;
    return true;
}

const uint8_t *reader_next(struct reader *reader, size_t *size) {
    if (reader->link->guest) return guest_next(reader->link->guest, size);
    if (!reader->link->stream) {
        if (reader->from == reader->to) return NULL;
        *size = reader->messages[reader->from].msg_len;
        return reader->bytes + reader->from++ * reader->slot;
    }
    size_t left = reader->to - reader->from;
    uint32_t length;
    if (left < LENGTH_BYTES) return NULL;
    memcpy(&length, reader->bytes + reader->from, LENGTH_BYTES);
    length = ntohl(length);
    if (length < ETHER_HEADER || length > LARGEST) die("the stream lost its framing");
    if (left < LENGTH_BYTES + length) return NULL;
    const uint8_t *frame = reader->bytes + reader->from + LENGTH_BYTES;
    reader->from += LENGTH_BYTES + length;
    *size = length;
    return frame;
}

void reader_end(struct reader *reader) {
    uint64_t deadline = now_ns() + UINT64_C(1000000000);
    size_t size;
    if (!reader->link->stream) return;
    for (;;) {
        while (reader_next(reader, &size)) continue;
        size_t left = reader->to - reader->from, wanted = LENGTH_BYTES;
        if (left == 0 || reader->link->ended || now_ns() > deadline) return;
        memmove(reader->bytes, reader->bytes + reader->from, left);
        reader->from = 0;
        reader->to = left;
        if (left >= LENGTH_BYTES) {
            uint32_t length;
            memcpy(&length, reader->bytes, LENGTH_BYTES);
            wanted += ntohl(length);
        }
        ssize_t got = recv(reader->link->fd, reader->bytes + left, wanted - left, 0);
        if (got > 0)
            reader->to += (size_t)got;
        else
            nothing(reader, got);
    }
}

enum verdict frame_check(const uint8_t *frame, size_t size, const struct burst *pattern, uint64_t *sequence) {
    const uint8_t *wanted = burst_frame(pattern, 0);
    uint64_t check;
    if (size < SMALLEST || memcmp(frame, wanted, SEQUENCE_AT))
        return size >= SEQUENCE_AT && !memcmp(frame + RUN_AT, &pattern->run, 4) ? FRAME_CORRUPT : FRAME_FOREIGN;
    memcpy(sequence, frame + SEQUENCE_AT, sizeof *sequence);
    memcpy(&check, frame + size - CHECK_BYTES, sizeof check);
    if (size != pattern->size || check != (*sequence + pattern->run) * ODD) return FRAME_CORRUPT;
    if (*sequence % 64) return FRAME_GOOD;
    const size_t from = SEQUENCE_AT + 8, to = size - CHECK_BYTES;
    return memcmp(frame + from, wanted + from, to - from) ? FRAME_CORRUPT : FRAME_GOOD;
}
