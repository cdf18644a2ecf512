/* Lets an old User-Mode Linux run on a processor with large registers: a library to preload into it.

   User-Mode Linux before 6.13 takes the size of a process's extended registers for a constant, 2,696 bytes. On a
   processor with AMX there are 11 KB; PTRACE_GETREGSET gives a part of them, but PTRACE_SETREGSET refuses a part, and
   its first process dies with "fatal_sigsegv" from put_fp_registers. Here what is set is filled up with what the
   process has beyond, which User-Mode Linux never changes: it does not let its processes use AMX. */
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

static long (*real)(enum __ptrace_request, ...);

static long set_registers(pid_t pid, const struct iovec *given)
{
    static uint8_t whole[65536];
    struct iovec all = {.iov_base = whole, .iov_len = sizeof whole};
    if (real(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &all) == 0 && given->iov_len < all.iov_len) {
        memcpy(whole, given->iov_base, given->iov_len);
        return real(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &all);
    }
    return real(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, given);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "ptrace");
    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
        return set_registers(pid, data);
    return real(request, pid, address, data);
}
