#include "system/cell_program.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stdint.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

void program_add(struct program *p, unsigned code, unsigned value, unsigned char yes, unsigned char no)
{
    p->code[p->length++] = (struct sock_filter){(unsigned short)code, yes, no, value};
}

void program_answer(struct program *p, unsigned what)
{
    program_add(p, BPF_RET | BPF_K, what, 0, 0);
}

void program_load(struct program *p, size_t offset)
{
    program_add(p, BPF_LD | BPF_W | BPF_ABS, (unsigned)offset, 0, 0);
}

/* Both architectures are little-endian: the lower half of an argument comes first. */
size_t program_low(unsigned argument)
{
    return offsetof(struct seccomp_data, args) + argument * sizeof(uint64_t);
}

void program_for_each(struct program *p, const int *values, unsigned count, unsigned what)
{
    for (unsigned i = 0; i < count; i++) {
        program_add(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)values[i], 0, 1);
        program_answer(p, what);
    }
}

unsigned short program_begin(struct program *p, int value)
{
    program_add(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)value, 0, 0);
    return p->length;
}

void program_end(struct program *p, unsigned short begun)
{
    p->code[begun - 1].jf = (unsigned char)(p->length - begun);
}

void program_refuse_with(struct program *p, unsigned bits)
{
    program_add(p, BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1);
    program_answer(p, p->refuse);
}

void program_refuse_without(struct program *p, unsigned bits)
{
    program_add(p, BPF_JMP | BPF_JSET | BPF_K, bits, 1, 0);
    program_answer(p, p->refuse);
}

void program_refuse_if(struct program *p, unsigned bits, unsigned value)
{
    program_add(p, BPF_ALU | BPF_AND | BPF_K, bits, 0, 0);
    program_add(p, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    program_answer(p, p->refuse);
}

void program_either(struct program *p, const int values[2])
{
    program_add(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)values[0], 2, 0);
    program_add(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)values[1], 1, 0);
    program_answer(p, p->refuse);
}

void program_with_argument(struct program *p, int call, unsigned argument, const int *values, unsigned count)
{
    unsigned short at = program_begin(p, call);
    program_load(p, program_low(argument));
    program_for_each(p, values, count, SECCOMP_RET_ALLOW);
    program_answer(p, p->refuse);
    program_end(p, at);
}

void program_load_call(struct program *p)
{
    program_load(p, offsetof(struct seccomp_data, arch));
    program_add(p, BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    program_answer(p, SECCOMP_RET_ERRNO | EPERM);
    program_load(p, offsetof(struct seccomp_data, nr));
}
