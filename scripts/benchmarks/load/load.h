/* What the load generator's parts share: frames that can be checked, and links that carry bursts of them.
 *
 * A link is a socket given as a descriptor, of one of the kinds of VM sockets: "stream" (each frame after its
 * length in four bytes, big-endian), "seqpacket" or "dgram" (one message a frame). Descriptors are made blocking,
 * with a time limit on each call, so that the cheapest system call is also one that always comes back. "stream-1" is a
 * stream with one write a frame, as QEMU's is; "vhost" a guest with queues in its memory (guest.h).
 *
 * A frame carries, after its Ethernet header, the number of the run (so that one left over from another run is not
 * taken for ours), its sequence number, filler, and a check word at its very end (so that a frame that was cut,
 * merged with another or shifted is seen). Every 64th frame is compared byte for byte.
 */
#ifndef LOAD_H
#define LOAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    ETHER_HEADER = 14,
    RUN_AT = ETHER_HEADER,  /* four bytes */
    SEQUENCE_AT = RUN_AT + 4, /* eight bytes */
    CHECK_BYTES = 8,          /* at the end */
    SMALLEST = SEQUENCE_AT + 8 + CHECK_BYTES,
    LARGEST = 65550,
    LENGTH_BYTES = 4,
    BURST_BYTES = 256 << 10, /* one write or read of a stream */
    BATCH = 64,              /* messages in one system call */
    PATIENCE_MS = 20,        /* how long one system call waits */
    LOST_MS = 2000,          /* what has not come by then is lost: far longer than a busy host keeps a thread waiting */
};

/* Not a link's data but its condition. */
struct link {
    int fd;
    bool stream;
    bool single; /* one write a frame */
    struct guest *guest; /* of a link by vhost-user */
    bool cut;   /* sending stopped within a frame: this stream is of no more use */
    bool ended; /* the other side closed it */
};

struct link link_open(int fd, const char *kind);

/* Frames to be sent: `capacity` of them side by side, all alike until they are stamped. */
struct burst {
    size_t size, stride;
    unsigned capacity;
    uint32_t run;
    uint8_t *bytes;
    struct mmsghdr *messages;
    unsigned slots, next; /* of a guest: places for frames, and the one that comes first */
};

struct burst burst_make(const struct link *link, size_t size, uint32_t run, const uint8_t *dst, const uint8_t *src);
uint8_t *burst_frame(const struct burst *burst, unsigned index);
void frame_stamp(uint8_t *frame, size_t size, uint32_t run, uint64_t sequence);

/* Send the first `count` frames. Returns how many went before `deadline` (ns) or before a signal to stop. */
unsigned burst_send(struct link *link, struct burst *burst, unsigned count, uint64_t deadline);

/* Frames received. */
struct reader {
    struct link *link;
    uint8_t *bytes;
    size_t slot;      /* bytes for each message */
    size_t from, to;  /* stream: what is not consumed yet; messages: index of the next one, number of them */
    struct mmsghdr *messages;
};

struct reader reader_make(struct link *link, size_t largest);

/* Wait at most PATIENCE_MS for frames. False: none came (or the link ended). */
bool reader_fill(struct reader *reader);

/* The next frame of what was filled in; NULL: no whole one is left. */
const uint8_t *reader_next(struct reader *reader, size_t *size);

/* Read the rest of a frame that has begun, so that the next reader of this stream starts at a frame. */
void reader_end(struct reader *reader);

enum verdict { FRAME_GOOD, FRAME_CORRUPT, FRAME_FOREIGN };

/* Is this frame what `pattern` (any frame of that burst) says it should be? */
enum verdict frame_check(const uint8_t *frame, size_t size, const struct burst *pattern, uint64_t *sequence);

/* Round trips that are measured while a flow runs: see probe.c. Off unless started. */
struct probe {
    bool on;
    struct link asking;              /* the thread's own */
    struct reader reader;            /* too */
    uint32_t *samples;               /* too, in ns */
    size_t known;                    /* too */
    struct burst request;            /* the sender's; constant but for the stamp */
    uint64_t lost;                   /* the sender's */
    struct burst answer;             /* the receiver's */
    struct burst reply;              /* constant: what an answer looks like */
    pthread_t thread;
    _Atomic uint64_t asked, sent_at; /* written by the sender */
    _Atomic uint64_t answered, due;  /* by the thread */
    _Atomic bool over;
};

void probe_start(struct probe *probe, const struct link *asking, const struct link *answering, uint32_t run,
                 const uint8_t *src, const uint8_t *dst);

/* The sender: ask if it is time. */
void probe_ask(struct probe *probe, struct link *link);

/* The receiver: answer if this is a request. False: it is not. */
bool probe_answer(struct probe *probe, struct link *link, const uint8_t *frame, size_t size);

/* After everything has arrived: print what was measured as a member of a JSON object. */
void probe_end(struct probe *probe);

/* Print percentiles of times in ns as members of a JSON object, none if there are no samples; sorts them. */
void samples_print(uint32_t *samples, size_t count);

uint64_t now_ns(void);
extern volatile bool stopping; /* a signal asked us to end */
void die(const char *what) __attribute__((noreturn));

/* The modes. Each takes its own arguments, prints one JSON object and returns the exit status. */
int run_flow(int count, char **words);
int run_echo(int count, char **words);
int run_flood(int count, char **words);
int run_sink(int count, char **words);
int run_relay(int count, char **words);
int run_pump(int count, char **words);
int run_bound(int count, char **words);
int run_hostile(int count, char **words);
int run_inet_serve(int count, char **words);
int run_inet_connect(int count, char **words);
int run_inet_echo(int count, char **words);
int run_inet_send(int count, char **words);

size_t word_size(const char *word);
void word_mac(const char *word, uint8_t *mac);

#endif
