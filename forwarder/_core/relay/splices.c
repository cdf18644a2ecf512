#include "relay/splices.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ALL_EVENTS (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET)
#define OF_THE_CALLER (1ull << 63)
#define GENERATION_SHIFT 32
#define GENERATIONS (1u << 31)

int splices_open(struct splices *splices)
{
    memset(splices, 0, sizeof *splices);
    splices->epoll = epoll_create1(EPOLL_CLOEXEC);
    return splices->epoll < 0 ? -1 : 0;
}

void splices_close(struct splices *splices)
{
    for (uint32_t i = 0; i < splices->count; i++) {
        splices_end(splices, i, true);
        free(splices->all[i]);
    }
    pipe_pool_close(&splices->pool);
    free(splices->all);
    close(splices->epoll);
    memset(splices, 0, sizeof *splices);
    splices->epoll = -1;
}

int splices_watch(struct splices *splices, int fd, uint32_t bit)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = OF_THE_CALLER | bit};
    return epoll_ctl(splices->epoll, EPOLL_CTL_ADD, fd, &event);
}

int splices_watch_end(struct splices *splices, struct splice *splice, uint32_t index)
{
    uint64_t which = (uint64_t)splice->generation << GENERATION_SHIFT | splice->number << 1 | index;
    struct epoll_event event = {.events = ALL_EVENTS, .data.u64 = which};
    struct splice_end *end = &splice->ends[index];
    if (end->is_watched)
        return 0;
    end->is_watched = epoll_ctl(splices->epoll, EPOLL_CTL_ADD, end->fd, &event) == 0;
    return end->is_watched ? 0 : -1;
}

static struct splice *make(struct splices *splices)
{
    struct splice *made = splices->free;
    if (made != NULL) {
        splices->free = made->next;
        return made;
    }
    if (splices->count == splices->room) {
        uint32_t room = splices->room ? 2 * splices->room : 64;
        struct splice **all = realloc(splices->all, room * sizeof *all);
        if (all == NULL)
            return NULL;
        splices->all = all;
        splices->room = room;
    }
    made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->number = splices->count;
        splices->all[splices->count++] = made;
    }
    return made;
}

struct splice *splices_find(const struct splices *splices, uint32_t number)
{
    struct splice *splice = number < splices->count ? splices->all[number] : NULL;
    return splice == NULL || splice->stage == SPLICE_FREE ? NULL : splice;
}

struct splice *splices_of_event(struct splices *splices, uint64_t which, uint32_t *index)
{
    if ((which & OF_THE_CALLER) != 0) {
        splices->watched |= 1u << (which & (SPLICE_WATCHED - 1));
        return NULL;
    }
    struct splice *splice = splices_find(splices, (uint32_t)which >> 1);
    *index = which & 1;
    return splice != NULL && splice->generation == which >> GENERATION_SHIFT ? splice : NULL;
}

int64_t splices_begin(struct splices *splices, int near, bool is_unix)
{
    struct splice *splice = make(splices);
    if (splice == NULL) {
        if (near >= 0)
            close(near);
        errno = ENOMEM;
        return -1;
    }
    uint32_t number = splice->number, generation = (splice->generation + 1) % GENERATIONS;
    *splice = (struct splice){.number = number, .generation = generation, .stage = SPLICE_BEGUN, .guest = near >= 0};
    splice->ends[0] = (struct splice_end){.fd = near, .is_unix = is_unix};
    splice->ends[1] = (struct splice_end){.fd = -1};
    for (uint32_t i = 0; i < 2; i++)
        splice->directions[i].pipe = (struct pipe_ends){-1, -1, 0};
    if (near >= 0 && splices_watch_end(splices, splice, 0) < 0) {
        int error = errno;
        splices_end(splices, number, true);
        errno = error;
        return -1;
    }
    return number;
}

/* --- connections that have something to move, the longest waiting first --- */

void splices_add_soon(struct splices *splices, struct splice *splice)
{
    if (splice->is_soon)
        return;
    splice->is_soon = true;
    splice->next = NULL;
    if (splices->soon == NULL)
        splices->soon = splice;
    else
        splices->soon_last->next = splice;
    splices->soon_last = splice;
}

void splices_remove_soon(struct splices *splices, struct splice *splice)
{
    struct splice **at = &splices->soon, *before = NULL;
    while (*at != splice) {
        before = *at;
        at = &before->next;
    }
    *at = splice->next;
    if (splices->soon_last == splice)
        splices->soon_last = before;
    splice->is_soon = false;
}

static void close_end(struct splice_end *end, bool is_reset)
{
    const struct linger how = {is_reset, 0}; /* without it, a killed process's kernel would reset, too */
    if (end->fd < 0)
        return;
    if (!end->is_unix)
        setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &how, sizeof how);
    close(end->fd);
    end->fd = -1;
}

void splices_end(struct splices *splices, uint32_t number, bool is_reset)
{
    struct splice *splice = splices_find(splices, number);
    if (splice == NULL)
        return;
    splice->stage = SPLICE_FREE;
    if (splice->is_soon)
        splices_remove_soon(splices, splice);
    for (uint32_t i = 0; i < 2; i++) {
        close_end(&splice->ends[i], is_reset);
        pipe_pool_give_back(&splices->pool, &splice->directions[i].pipe);
    }
    splice->next = splices->resting;
    splices->resting = splice;
}

void splices_wake_resting(struct splices *splices)
{
    while (splices->resting != NULL) {
        struct splice *splice = splices->resting;
        splices->resting = splice->next;
        splice->next = splices->free;
        splices->free = splice;
    }
}
