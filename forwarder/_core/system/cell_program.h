/* A seccomp program, written in classic BPF: something is loaded, then tested, and each test has its answer.

   Theory of operation. `program_begin` and `program_end` enclose what is for one value alone of what is loaded, most often
   for one system call. Inside, an argument may be loaded instead: each way through ends in an answer, so nothing behind
   sees it.

       load the call    is it fcntl?    load argument 1    is it F_GETFD?    allow
                                                           is it F_DUPFD?    allow
                                                           refuse
                        is it ioctl?    ...

   Called from cell_filter.c. */
#ifndef BULKHEAD_CELL_PROGRAM_H
#define BULKHEAD_CELL_PROGRAM_H

#include <linux/filter.h>
#include <stddef.h>

#define PROGRAM_MOST 512

struct program {
    struct sock_filter code[PROGRAM_MOST];
    unsigned short length;
    unsigned refuse; /* what a call gets that is in no table */
};

void program_add(struct program *p, unsigned code, unsigned value, unsigned char yes, unsigned char no);
void program_answer(struct program *p, unsigned what);
void program_load(struct program *p, size_t offset);

/* Refuse another architecture, and load the number of the call. */
void program_load_call(struct program *p);

/* The offset of the lower half of an argument. */
size_t program_low(unsigned argument);

/* Answer each of these values of what is loaded. */
void program_for_each(struct program *p, const int *values, unsigned count, unsigned what);

/* Begin what is for this value alone of what is loaded; `program_end` closes it. */
unsigned short program_begin(struct program *p, int value);
void program_end(struct program *p, unsigned short begun);

/* Refuse if any of these bits of what is loaded is set; or if none is; or if these bits have this value. */
void program_refuse_with(struct program *p, unsigned bits);
void program_refuse_without(struct program *p, unsigned bits);
void program_refuse_if(struct program *p, unsigned bits, unsigned value);

/* Go on if what is loaded is one of two values; or refuse. */
void program_either(struct program *p, const int values[2]);

/* Allow a call with one of these values as that argument, and refuse it with others. */
void program_with_argument(struct program *p, int call, unsigned argument, const int *values, unsigned count);

#endif
