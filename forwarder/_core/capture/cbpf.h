/* Classic BPF: the filter language of captures.

   Theory of operation. A filter is a program of at most CBPF_MOST instructions for a machine with an accumulator, an
   index register and 16 words of memory; it looks at one frame and returns how many of its bytes are wanted, 0 for
   none (McCanne and Jacobson, "The BSD Packet Filter", 1993; Documentation/networking/filter.rst of the kernel).
   libpcap compiles expressions to it. Jumps lead forward only, so a program ends within its own length.

   A program comes from an operator. cbpf_check looks at each instruction once; a program that has passed may be run on
   any bytes: a load from outside of the frame, and a division by a zero in X, end it with 0.

   Example: "arp" is {28, 0, 0, 12} (load 16 bits at 12), {15, 0, 1, 0x806} (skip one unless equal), {6, 0, 0, 65535}
   (take all), {6, 0, 0, 0} (take nothing).

   Nothing here keeps state, so any thread may call it. */
#ifndef BULKHEAD_CBPF_H
#define BULKHEAD_CBPF_H

#include "common.h"

/* The kernel's BPF_MAXINSNS: what its own sockets take. */
#define CBPF_MOST 4096u

/* struct sock_filter, struct bpf_insn. */
struct cbpf_insn {
    uint16_t code;
    uint8_t jt, jf;
    uint32_t k;
};

/* May the program be run? */
bool cbpf_check(const struct cbpf_insn *program, uint32_t count);

/* Bytes of the frame that are wanted; the program has been checked. */
uint32_t cbpf_run(const struct cbpf_insn *program, const uint8_t *frame, uint32_t bytes);

#endif
