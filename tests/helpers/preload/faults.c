/* Faults below the core's system calls: a library to preload into a process that runs the core.

   Only calls made from the core's own shared object are touched (dladdr of the return address), so ZeroMQ, the
   interpreter and the test itself see the real kernel. What happens is drawn from one seeded generator:

     FAULTS="seed,again,nobufs,short,delay,once"

   `again`, `nobufs`, `short`, `delay`: per cent of calls that fail with EAGAIN or ENOBUFS, take or give only a
   part, or are preceded by up to 200 us of sleep. `once`: the errno of the first call that writes (0: none). */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

static struct {
    unsigned long long state;
    int again, nobufs, shorten, delay, once;
    int ready;
} faults;

static unsigned draw(unsigned below)
{
    faults.state ^= faults.state << 13;
    faults.state ^= faults.state >> 7;
    faults.state ^= faults.state << 17;
    return (unsigned)(faults.state >> 16) % below;
}

static int chance(int percent)
{
    return (int)draw(100) < percent;
}

static void configure(void)
{
    const char *text = getenv("FAULTS");
    faults.ready = 1;
    if (text != NULL)
        sscanf(text, "%llu,%d,%d,%d,%d,%d", &faults.state, &faults.again, &faults.nobufs, &faults.shorten,
               &faults.delay, &faults.once);
    faults.state = faults.state * 2654435761u + 1;
}

static int from_core(const void *caller)
{
    Dl_info info;
    if (!faults.ready)
        configure();
    return dladdr(caller, &info) != 0 && info.dli_fname != NULL && strstr(info.dli_fname, "_core.") != NULL;
}

static int fails(int writes)
{
    if (chance(faults.delay)) {
        struct timespec pause = {.tv_nsec = (long)draw(200000)};
        nanosleep(&pause, NULL);
    }
    errno = 0;
    if (writes && faults.once != 0) {
        errno = faults.once;
        faults.once = 0;
    } else if (chance(faults.again)) {
        errno = EAGAIN;
    } else if (writes && chance(faults.nobufs)) {
        errno = ENOBUFS;
    }
    return errno != 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec iov[64];
    struct msghdr part = *message;
    if (!from_core(__builtin_return_address(0)))
        return REAL(sendmsg)(fd, message, flags);
    if (fails(1))
        return -1;
    if (chance(faults.shorten) && message->msg_iovlen <= 64) {
        size_t total = 0, left;
        memcpy(iov, message->msg_iov, message->msg_iovlen * sizeof *iov);
        for (size_t i = 0; i < message->msg_iovlen; i++)
            total += iov[i].iov_len;
        left = 1 + draw((unsigned)total);
        part.msg_iov = iov;
        for (part.msg_iovlen = 0; left > 0; part.msg_iovlen++) {
            struct iovec *piece = &iov[part.msg_iovlen];
            piece->iov_len = piece->iov_len < left ? piece->iov_len : left;
            left -= piece->iov_len;
        }
    }
    return REAL(sendmsg)(fd, &part, flags);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    if (from_core(__builtin_return_address(0))) {
        if (fails(1))
            return -1;
        if (chance(faults.shorten))
            count = 1 + draw(count);
    }
    return REAL(sendmmsg)(fd, messages, count, flags);
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    if (from_core(__builtin_return_address(0))) {
        if (fails(0))
            return -1;
        if (chance(faults.shorten))
            size = 1 + draw((unsigned)size);
    }
    return REAL(recv)(fd, buffer, size, flags);
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    if (from_core(__builtin_return_address(0))) {
        if (fails(0))
            return -1;
        if (chance(faults.shorten))
            count = 1 + draw(count);
    }
    return REAL(recvmmsg)(fd, messages, count, flags, timeout);
}
