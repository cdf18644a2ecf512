#include "relay/direction.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SPLICE_FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK)

/* Empty the pipe into the sink as far as it goes: MOVED if it is empty, MORE if the sink is full. */
static enum outcome empty(struct direction *direction, struct splice_end *sink)
{
    struct pipe_ends *pipe = &direction->pipe;
    while (pipe->held > 0 || direction->is_marked) {
        ssize_t count;
        if (!sink->writable)
            return MORE;
        if (pipe->held > 0)
            count = splice(pipe->out, NULL, sink->fd, NULL, pipe->held, SPLICE_FLAGS);
        else
            count = send(sink->fd, &direction->marked, 1, MSG_NOSIGNAL | (sink->is_unix ? 0 : MSG_OOB));
        if (count < 0 && errno == EAGAIN) {
            sink->writable = false;
            return MORE;
        }
        if (count < 0)
            return SINK_FAILED;
        if (pipe->held > 0)
            pipe->held -= (uint32_t)count;
        else
            direction->is_marked = false;
    }
    return MOVED;
}

/* Take a byte of urgent data if the stream stands in front of one: MORE if it does. */
static enum outcome take_mark(struct direction *direction, struct splice_end *source)
{
    int at_mark = 0;
    if (ioctl(source->fd, SIOCATMARK, &at_mark) < 0)
        return SOURCE_FAILED;
    if (!at_mark)
        return MOVED;
    ssize_t count = recv(source->fd, &direction->marked, 1, MSG_DONTWAIT);
    if (count < 0)
        return errno == EAGAIN ? MOVED : SOURCE_FAILED; /* EAGAIN: the mark came before the byte */
    direction->is_marked = count == 1;
    source->urgent = false;
    return MORE;
}

/* Fill the empty pipe from the source as far as it goes. */
static enum outcome fill(struct direction *direction, struct pipe_pool *pool, struct splice_end *source)
{
    if (direction->pipe.out < 0 && pipe_pool_borrow(pool, &direction->pipe) < 0)
        return NO_PIPE;
    ssize_t count = splice(source->fd, NULL, direction->pipe.into, NULL, PIPE_BYTES, SPLICE_FLAGS);
    if (count > 0) {
        direction->pipe.held = (uint32_t)count;
        direction->is_bulk = count > DIRECTION_COPIED;
        source->window.bytes += (uint64_t)count;
    } else if (count < 0 && errno != EAGAIN) {
        return SOURCE_FAILED;
    } else {
        /* In front of urgent data splice(2) says EAGAIN or, if the stream has ended behind it, that this is the end. */
        bool may_be_marked = source->urgent || (count == 0 && !source->is_unix);
        enum outcome marked = may_be_marked ? take_mark(direction, source) : MOVED;
        if (marked == SOURCE_FAILED)
            return marked;
        if (marked == MOVED && count == 0)
            direction->half = DIRECTION_DRAINING;
        else if (marked == MOVED)
            source->readable = false;
    }
    return MOVED;
}

/* Keep bytes that the sink has not taken yet in a pipe. */
static enum outcome keep(struct direction *direction, struct pipe_pool *pool, const uint8_t *bytes, size_t count)
{
    if (pipe_pool_borrow(pool, &direction->pipe) < 0)
        return NO_PIPE;
    if (write(direction->pipe.into, bytes, count) != (ssize_t)count)
        return NO_PIPE; /* an empty pipe takes two pages at least */
    direction->pipe.held = (uint32_t)count;
    return MOVED;
}

/* Receive a short message and send it. */
static enum outcome copy(struct direction *direction, struct pipe_pool *pool, struct splice_end *source,
                         struct splice_end *sink)
{
    uint8_t bytes[DIRECTION_COPIED];
    ssize_t count = recv(source->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (count < 0 && errno != EAGAIN)
        return SOURCE_FAILED;
    direction->is_bulk = count == sizeof bytes;
    if (count < 0 || (count > 0 && !direction->is_bulk && !source->is_unix && !source->has_ended))
        source->readable = false;
    if (count == 0)
        direction->half = DIRECTION_DRAINING;
    if (count <= 0)
        return MOVED;
    source->window.bytes += (uint64_t)count;
    ssize_t sent = send(sink->fd, bytes, (size_t)count, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return SINK_FAILED;
    if (sent == count)
        return MOVED;
    sink->writable = sent >= 0;
    sent = sent < 0 ? 0 : sent;
    return keep(direction, pool, bytes + sent, (size_t)(count - sent));
}

static enum outcome end(struct direction *direction, const struct splice_end *source, const struct splice_end *sink,
                        bool is_last)
{
    direction->half = DIRECTION_ENDED;
    return !source->failed && !is_last && shutdown(sink->fd, SHUT_WR) < 0 ? SINK_FAILED : MOVED;
}

enum outcome direction_move(struct direction *direction, struct pipe_pool *pool, struct splice_end *source,
                            struct splice_end *sink, bool is_last)
{
    if (sink->failed || direction->half == DIRECTION_ENDED)
        return MOVED;
    for (uint32_t round = 0; round < DIRECTION_ROUNDS; round++) {
        enum outcome outcome = empty(direction, sink);
        if (outcome != MOVED)
            return outcome == MORE ? MOVED : outcome; /* the sink says when there is room again */
        if (direction->half == DIRECTION_DRAINING || !source->readable || !sink->writable)
            break;
        bool is_short = !direction->is_bulk && !source->urgent && direction->pipe.out < 0;
        outcome = is_short ? copy(direction, pool, source, sink) : fill(direction, pool, source);
        if (outcome != MOVED)
            return outcome;
    }
    if (direction->pipe.held > 0 || direction->is_marked)
        return MORE;
    pipe_pool_give_back(pool, &direction->pipe);
    if (direction->half == DIRECTION_DRAINING)
        return end(direction, source, sink, is_last);
    return source->readable && sink->writable ? MORE : MOVED;
}
