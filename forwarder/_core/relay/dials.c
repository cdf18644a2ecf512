#include "relay/dials.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

int dials_accept(int listener, bool with_own, struct dial_client *clients)
{
    int count = 0;
    for (uint32_t tries = 0; tries < DIAL_ACCEPTED; tries++) {
        struct dial_client *client = &clients[count];
        socklen_t bytes = sizeof client->peer;
        memset(client, 0, sizeof *client);
        client->fd = accept4(listener, &client->peer.any, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client->fd < 0 && errno == EAGAIN)
            break;
        if (client->fd < 0 && is_shortage(errno))
            return count > 0 ? count : -1;
        if (client->fd < 0)
            continue; /* the client has gone already (ECONNABORTED), or its network has */
        bytes = sizeof client->own;
        if (with_own && getsockname(client->fd, &client->own.any, &bytes) < 0)
            close(client->fd);
        else
            count++;
    }
    return count;
}

static socklen_t name_of(const struct dial_target *target, union dial_address *name)
{
    memset(name, 0, sizeof *name);
    if (target->address_bytes == 4) {
        name->four.sin_family = AF_INET;
        name->four.sin_port = htons(target->port);
        memcpy(&name->four.sin_addr, target->address, 4);
        return sizeof name->four;
    }
    name->six.sin6_family = AF_INET6;
    name->six.sin6_port = htons(target->port);
    memcpy(&name->six.sin6_addr, target->address, 16);
    return sizeof name->six;
}

int dials_connect(struct splices *splices, uint32_t number, int fd, const struct dial_target *target,
                  const struct dial_option *options, uint32_t count)
{
    struct splice *splice = splices_find(splices, number);
    union dial_address name;
    socklen_t bytes = name_of(target, &name);
    if (fd < 0)
        fd = socket(name.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    if (splice == NULL || splice->stage != SPLICE_BEGUN || splice->ends[1].fd >= 0) {
        close(fd);
        return EINVAL;
    }
    splice->ends[1].fd = fd;
    for (uint32_t i = 0; i < count; i++)
        setsockopt(fd, options[i].level, options[i].name, options[i].value, options[i].bytes);
    int status = connect(fd, &name.any, bytes);
    if (status < 0 && errno == EINPROGRESS && target->is_here) {
        status = connect(fd, &name.any, bytes);
        if (status < 0 && errno == EALREADY)
            errno = EINPROGRESS;
    }
    if (status < 0 && errno != EINPROGRESS)
        return errno;
    bool has_answered = status == 0 && splice->ends[0].fd < 0;
    if (has_answered)
        splice->stage = SPLICE_ANSWERED; /* it is watched when its near end comes */
    else if (splices_watch_end(splices, splice, 1) < 0)
        return errno;
    return has_answered ? 0 : EINPROGRESS;
}

int dials_join(struct splices *splices, uint32_t number, int near)
{
    struct splice *splice = splices_find(splices, number);
    if (splice == NULL || splice->stage != SPLICE_ANSWERED) {
        close(near);
        errno = EINVAL;
        return -1;
    }
    splice->ends[0].fd = near;
    splice->stage = SPLICE_JOINED;
    return splices_watch_end(splices, splice, 0) < 0 || splices_watch_end(splices, splice, 1) < 0 ? -1 : 0;
}
