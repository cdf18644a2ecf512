#include "system/vm.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "offload/coalesce.h"
#include "packet/frame.h"

_Static_assert(SLOT_BYTES > MAX_RECORD, "a slot shows whether a frame is one byte too long");

static enum vm_status meaning(int error)
{
    switch (error) {
    case EAGAIN:
#if EAGAIN != EWOULDBLOCK
    case EWOULDBLOCK:
#endif
    case EINTR:
        return VM_FULL;
    case ENOBUFS:
    case ENOMEM:
        return VM_NO_BUFFER;
    default:
        return VM_DOWN;
    }
}

static bool refuses_frame(const struct vm *vm, int error)
{
    return error == EMSGSIZE || error == EIO || (error == EINVAL && vm->kind == KIND_TAP);
}

enum vm_status vm_write_parts(const struct vm *vm, struct iovec *parts, unsigned count, struct vm_sent *sent)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    *sent = (struct vm_sent){0};
    ssize_t n = sendmsg(vm->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
        sent->error = errno;
        return meaning(errno);
    }
    sent->bytes = sent->payload = (uint64_t)n;
    return VM_OK;
}

static enum vm_status write_stream(const struct vm *vm, const struct span *spans, unsigned count, struct vm_sent *sent)
{
    struct iovec iov[MAX_SPANS];
    for (unsigned i = 0; i < count; i++)
        iov[i] = (struct iovec){.iov_base = (void *)(uintptr_t)spans[i].records, .iov_len = spans[i].bytes};
    return vm_write_parts(vm, iov, count, sent);
}

struct frames {
    struct iovec iov[MAX_SPANS];
    uint32_t header[MAX_SPANS]; /* bytes of it that are in front of the frame */
    unsigned count;
};

/* The frames of the spans, up to MAX_SPANS; false if a length does not fit. From here on lengths are ours. */
static bool list_frames(const struct span *spans, unsigned count, uint32_t longest, struct frames *frames)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++) {
        uint32_t at = 0, header = spans[i].vnet ? VNET_BYTES : 0;
        while (at < spans[i].bytes && n < MAX_SPANS) {
            uint32_t size;
            if (record_next(spans[i].records + at, spans[i].bytes - at, &size) != RECORD_WHOLE
                || size < MIN_RECORD + header || (header == 0 && size - LENGTH_BYTES > longest)) {
                frames->count = n;
                return false;
            }
            frames->iov[n] = (struct iovec){.iov_base = (void *)(uintptr_t)(spans[i].records + at + LENGTH_BYTES),
                                            .iov_len = size - LENGTH_BYTES};
            frames->header[n++] = header;
            at += size;
        }
    }
    frames->count = n;
    return true;
}

static unsigned plain_from(const struct frames *frames, unsigned from)
{
    unsigned to = from;
    while (to < frames->count && frames->header[to] == 0)
        to++;
    return to - from;
}

static int write_tap(const struct vm *vm, struct frames *frames, unsigned from)
{
    static const uint8_t nothing_to_do[VNET_BYTES];
    struct coalesced whole;
    unsigned n = coalesce(&whole, &frames->iov[from], plain_from(frames, from));
    if (n > 1)
        return writev(vm->fd, whole.parts, (int)n + 1) < 0 ? -1 : (int)n;
    struct iovec parts[] = {{.iov_base = (void *)(uintptr_t)nothing_to_do, .iov_len = VNET_BYTES - frames->header[from]},
                            frames->iov[from]};
    return writev(vm->fd, parts, 2) < 0 ? -1 : 1;
}

static int write_frames(const struct vm *vm, struct frames *frames, unsigned from)
{
    if (vm->kind == KIND_TAP)
        return write_tap(vm, frames, from);
    struct mmsghdr messages[MAX_SPANS];
    for (unsigned i = from; i < frames->count; i++)
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &frames->iov[i], .msg_iovlen = 1}};
    return sendmmsg(vm->fd, messages + from, frames->count - from, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static enum vm_status write_whole(const struct vm *vm, const struct span *spans, unsigned count, uint32_t longest,
                                  struct vm_sent *sent)
{
    struct frames frames;
    unsigned done = 0;
    bool sound = list_frames(spans, count, longest, &frames);
    while (done < frames.count && sent->refused == 0) {
        int n = write_frames(vm, &frames, done);
        if (n < 0 && !refuses_frame(vm, errno)) {
            sent->error = errno;
            return meaning(errno);
        }
        unsigned taken = n < 0 ? 1 : (unsigned)n;
        sent->refused += n < 0 ? 1 : 0;
        sent->frames += n < 0 ? 0 : taken;
        for (; taken > 0; taken--, done++) {
            sent->bytes += LENGTH_BYTES + frames.iov[done].iov_len;
            sent->payload += n < 0 ? 0 : frames.iov[done].iov_len - frames.header[done];
        }
    }
    return sound ? VM_OK : VM_GARBLED;
}

const char *vm_error_text(int error)
{
    return error == EBADFD ? "the TAP device was deleted; attach it again" : strerror(error);
}

enum vm_status vm_write(const struct vm *vm, const struct span *spans, unsigned count, uint32_t longest,
                        struct vm_sent *sent)
{
    *sent = (struct vm_sent){0};
    return vm_is_stream(vm) ? write_stream(vm, spans, count, sent) : write_whole(vm, spans, count, longest, sent);
}

long vm_read(const struct vm *vm, uint8_t *buffer, size_t size, enum vm_status *status, int *error)
{
    ssize_t n = vm->kind == KIND_TAP ? read(vm->fd, buffer, size) : recv(vm->fd, buffer, size, MSG_DONTWAIT);
    if (n < 0) {
        *error = errno;
        *status = meaning(errno);
    }
    return n;
}

int vm_read_datagrams(const struct vm *vm, uint8_t *slots, uint32_t at, struct slot_read *read, enum vm_status *status,
                      int *error)
{
    struct mmsghdr messages[SLOTS];
    struct iovec iov[SLOTS];
    for (unsigned i = 0; i < SLOTS; i++) {
        iov[i] = (struct iovec){.iov_base = slots + (size_t)i * SLOT_BYTES + at,
                                .iov_len = SLOT_BYTES - at};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
    }
    int n = recvmmsg(vm->fd, messages, SLOTS, MSG_DONTWAIT, NULL);
    if (n < 0) {
        *error = errno;
        *status = meaning(errno);
        return n;
    }
    for (int i = 0; i < n; i++)
        read[i] = (struct slot_read){.bytes = messages[i].msg_len,
                                     .truncated = (messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0};
    return n;
}

bool vm_hung_up(const struct vm *vm)
{
    struct pollfd p = {.fd = vm->fd, .events = POLLIN | POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
}
