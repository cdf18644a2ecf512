/* The load generator of the benchmarks: one program, a mode for each kind of load. See load.h.
 *
 *     load flow|echo|flood|sink|relay|pump|bound|hostile|inet-... ARGUMENTS...
 *
 * Sockets come as inherited descriptors. It ends by itself, on SIGTERM or SIGINT (and still says what it measured), and
 * with its parent.
 */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

volatile bool stopping;

void die(const char *what) {
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

size_t word_size(const char *word) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(word, &end, 10);
    if (errno || *end || end == word) die("not a number");
    return (size_t)value;
}

void word_mac(const char *word, uint8_t *mac) {
    if (sscanf(word, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6)
        die("not a MAC address");
}

static int by_value(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

void samples_print(uint32_t *samples, size_t count) {
    static const struct { const char *name; double part; } marks[] = {
        {"p50_ns", .5}, {"p99_ns", .99}, {"p999_ns", .999}, {"max_ns", 1}};
    if (!count) return;
    qsort(samples, count, sizeof *samples, by_value);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        printf(", \"%s\": %" PRIu32, marks[i].name, samples[(size_t)((double)(count - 1) * marks[i].part)]);
}

static void stop(int signal) {
    (void)signal;
    stopping = true;
}

int main(int count, char **words) {
    static const struct { const char *name; int (*run)(int, char **); } modes[] = {
        {"flow", run_flow}, {"echo", run_echo},   {"flood", run_flood},
        {"sink", run_sink}, {"relay", run_relay}, {"pump", run_pump},
        {"bound", run_bound}, {"hostile", run_hostile},
        {"inet-serve", run_inet_serve}, {"inet-connect", run_inet_connect},
        {"inet-echo", run_inet_echo},   {"inet-send", run_inet_send}};
    struct sigaction action = {.sa_handler = stop}; /* no SA_RESTART: a call that waits comes back */
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t i = 0; count > 1 && i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(words[1], modes[i].name)) return modes[i].run(count - 2, words + 2);
    errno = 0;
    die("flow, echo, flood, sink, relay, pump, bound, hostile or inet-serve, -connect, -echo, -send");
}
