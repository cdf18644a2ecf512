/* Load for the way between a VM and its host: sockets of the kernel's TCP and UDP, one mode for each end.
 *
 *     load inet-serve PORT                                TCP at PORT echoes until its client closes, at PORT + 1 it closes
 *                                                         after one echo; UDP at PORT is counted, at PORT + 1 echoed
 *     load inet-connect ADDRESS PORT SECONDS MOST THREADS connect, send two bytes, have them back, close; again and again
 *     load inet-echo ADDRESS PORT SECONDS                 one byte there and back, on one connection
 *     load inet-send ADDRESS PORT BYTES RATE SECONDS      datagrams, RATE a second (0: as many as go)
 *
 * inet-serve ends by SIGTERM and then says how many datagrams it has had. An address is IPv4.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BACKLOG = 4096, MOST_THREADS = 64, SAMPLES = 1 << 20, QUESTION = 2, ANSWER_S = 5, DATAGRAM_BYTES = 65536,
       BUFFER_BYTES = 4 << 20, SEND_BATCH = 16 };

static struct sockaddr_in address_of(const char *host, size_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die("not an IPv4 address");
    return address;
}

static int bound(int kind, size_t port) {
    struct sockaddr_in address = address_of("0.0.0.0", port);
    int fd = socket(AF_INET, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1, bytes = BUFFER_BYTES;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (kind == SOCK_STREAM && listen(fd, BACKLOG) < 0) die("listen");
    return fd;
}

/* A descriptor and what it is, as epoll's data. */
enum role { ECHO_LISTENER, ONCE_LISTENER, SINK, DATAGRAM_ECHO, ECHO, ONCE };

static void watch(int epoll, int fd, enum role role) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)role << 32 | (uint32_t)fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static uint64_t sink(int fd) {
    static struct mmsghdr messages[64];
    static struct iovec part;
    static char bytes[DATAGRAM_BYTES];
    part = (struct iovec){bytes, sizeof bytes}; /* all into one place: they are only counted */
    for (size_t i = 0; i < 64; i++) messages[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    int count = recvmmsg(fd, messages, 64, MSG_DONTWAIT, NULL);
    return count > 0 ? (uint64_t)count : 0;
}

static void serve_one(int epoll, int fd, enum role role, uint64_t *datagrams) {
    char bytes[4096];
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    if (role == SINK) {
        *datagrams += sink(fd);
    } else if (role == DATAGRAM_ECHO) {
        ssize_t count = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&peer, &size);
        if (count >= 0) sendto(fd, bytes, (size_t)count, 0, (struct sockaddr *)&peer, size);
    } else if (role == ECHO_LISTENER || role == ONCE_LISTENER) {
        int one = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), on = 1;
        if (one < 0) return;
        setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(epoll, one, role == ECHO_LISTENER ? ECHO : ONCE);
    } else {
        ssize_t count = recv(fd, bytes, sizeof bytes, 0);
        if (count > 0) count = send(fd, bytes, (size_t)count, MSG_NOSIGNAL);
        if (count <= 0 || role == ONCE) close(fd);
    }
}

int run_inet_serve(int count, char **words) {
    if (count != 1) die("inet-serve PORT");
    size_t port = word_size(words[0]);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    uint64_t datagrams = 0;
    watch(epoll, bound(SOCK_STREAM, port), ECHO_LISTENER);
    watch(epoll, bound(SOCK_STREAM, port + 1), ONCE_LISTENER);
    watch(epoll, bound(SOCK_DGRAM, port), SINK);
    watch(epoll, bound(SOCK_DGRAM, port + 1), DATAGRAM_ECHO);
    printf("ready\n");
    fflush(stdout);
    while (!stopping) {
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, 1000);
        for (int i = 0; i < ready; i++)
            serve_one(epoll, (int)(uint32_t)events[i].data.u64, (enum role)(events[i].data.u64 >> 32), &datagrams);
    }
    printf("{\"datagrams\": %" PRIu64 "}\n", datagrams);
    return 0;
}

/* A client of connections: one thread. */
struct client {
    struct sockaddr_in to;
    uint64_t end;
    size_t most, done, failed;
    uint32_t *samples;
    pthread_t thread;
};

/* Connect, ask, read the answer; a connected socket, or -1. */
static int asked(const struct sockaddr_in *to, uint32_t *ns) {
    char bytes[QUESTION] = "hi";
    struct timeval patience = {.tv_sec = ANSWER_S};
    uint64_t begin = now_ns();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (const struct sockaddr *)to, sizeof *to) == 0 && send(fd, bytes, QUESTION, MSG_NOSIGNAL) == QUESTION
        && recv(fd, bytes, QUESTION, MSG_WAITALL) == QUESTION) {
        *ns = (uint32_t)(now_ns() - begin);
        return fd;
    }
    close(fd);
    return -1;
}

static void *connect_again(void *argument) {
    struct client *self = argument;
    while (!stopping && now_ns() < self->end && self->done < self->most) {
        int fd = asked(&self->to, &self->samples[self->done % SAMPLES]);
        if (fd < 0) {
            self->failed++;
            continue;
        }
        self->done++;
        close(fd);
    }
    return NULL;
}

int run_inet_connect(int count, char **words) {
    if (count != 5) die("inet-connect ADDRESS PORT SECONDS MOST THREADS");
    size_t threads = word_size(words[4]), most = word_size(words[3]), done = 0, failed = 0, known = 0;
    if (threads < 1 || threads > MOST_THREADS) die("1 to 64 threads");
    static struct client clients[MOST_THREADS];
    uint64_t begin = now_ns();
    for (size_t i = 0; i < threads; i++) {
        clients[i] = (struct client){.to = address_of(words[0], word_size(words[1])),
                                     .end = begin + (uint64_t)(strtod(words[2], NULL) * 1e9),
                                     .most = most / threads,
                                     .samples = calloc(SAMPLES, sizeof(uint32_t))};
        if (pthread_create(&clients[i].thread, NULL, connect_again, &clients[i])) die("pthread_create");
    }
    for (size_t i = 0; i < threads; i++) {
        pthread_join(clients[i].thread, NULL);
        done += clients[i].done;
        failed += clients[i].failed;
    }
    double seconds = (double)(now_ns() - begin) / 1e9;
    uint32_t *samples = calloc(done + 1, sizeof *samples);
    for (size_t i = 0; i < threads; i++)
        for (size_t j = 0; j < clients[i].done && j < SAMPLES; j++) samples[known++] = clients[i].samples[j];
    printf("{\"done\": %zu, \"failed\": %zu, \"seconds\": %.6f", done, failed, seconds);
    samples_print(samples, known);
    printf("}\n");
    return 0;
}

int run_inet_echo(int count, char **words) {
    if (count != 3) die("inet-echo ADDRESS PORT SECONDS");
    struct sockaddr_in to = address_of(words[0], word_size(words[1]));
    uint64_t end = now_ns() + (uint64_t)(strtod(words[2], NULL) * 1e9);
    uint32_t *samples = calloc(SAMPLES, sizeof *samples);
    size_t known = 0;
    int on = 1, fd = asked(&to, samples);
    if (fd < 0) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (!stopping && now_ns() < end && known < SAMPLES) {
        char byte = 'x';
        uint64_t begin = now_ns();
        if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1) die("echo");
        samples[known++] = (uint32_t)(now_ns() - begin);
    }
    printf("{\"done\": %zu", known);
    samples_print(samples, known);
    printf("}\n");
    return 0;
}

int run_inet_send(int count, char **words) {
    if (count != 5) die("inet-send ADDRESS PORT BYTES RATE SECONDS");
    struct sockaddr_in to = address_of(words[0], word_size(words[1]));
    static char bytes[DATAGRAM_BYTES];
    struct iovec part = {bytes, word_size(words[2])};
    double rate = strtod(words[3], NULL);
    struct mmsghdr messages[SEND_BATCH];
    for (size_t i = 0; i < SEND_BATCH; i++) messages[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect");
    uint64_t begin = now_ns(), end = begin + (uint64_t)(strtod(words[4], NULL) * 1e9), now, sent = 0;
    while (!stopping && (now = now_ns()) < end) {
        uint64_t due = rate > 0 ? (uint64_t)((double)(now - begin) / 1e9 * rate) : UINT64_MAX;
        if (sent >= due) {
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
            continue;
        }
        uint64_t room = due - sent < SEND_BATCH ? due - sent : SEND_BATCH;
        int went = sendmmsg(fd, messages, (unsigned)room, 0);
        if (went > 0) sent += (uint64_t)went;
    }
    printf("{\"sent\": %" PRIu64 ", \"seconds\": %.6f}\n", sent, (double)(now_ns() - begin) / 1e9);
    return 0;
}
