/* A cell: what a process gives up once it has what it needs.

   Theory of operation. A process that reads what a guest writes may one day run what a guest wants. Its cell is made
   of parts that each take something away for good, and of which several would be enough for most attacks, so that a
   kernel without one of them still has the others:

     part         takes away                                        by
     user         the user root                                     setresuid, if it is root
     root         every file name, sockets with a name included     chroot to a directory of nothing
     privileges   capabilities, also those of a program it executes  capset, no_new_privs
     undumpable   being traced, and being read through /proc        PR_SET_DUMPABLE
     landlock     files, TCP, others' signals, abstract sockets     landlock(7), as far as the kernel's ABI goes
     limits       memory, descriptors, processes, files' sizes      setrlimit
     seccomp      system calls but those that the process serves with seccomp(2)

   There are cells of several kinds, since processes need different things afterwards:

     worker       serves a port: no socket, no file, no connection
     gateway      carries guests' connections: it makes sockets of IP and connects them, and listens nowhere
     namespace    holds the gateway's network namespace: makes sockets of IP for the gateway, and asks its own kernel
                  over the netlink sockets that it has, for which it keeps CAP_NET_ADMIN of that namespace
     web          shows the switch in a browser: it goes to the switch's console by its name and starts captures, so it
                  keeps its user and its root; it reads programs and the runtime directory, and no other file

   Landlock holds for a thread and for threads that it starts, seccomp can be put on all threads there are. So
   cell_restrict is called while there is one thread, and cell_filter when there are all.

   A refused call fails with EPERM, since a C library that tries a new call must not cost a VM its link. In the thread
   that called cell_filter it is counted as well (its filter raises SIGSYS, whose handler counts and makes the call
   fail); in the others, which block signals, and for what the C library does with signals blocked, it only fails. The
   count is for a log line; a process that was taken over can hide it.

   Example: a spare of an ordinary user on Linux 6.12 enters its cell. cell_restrict makes a user namespace for the
   right to chroot, drops that right, and sets Landlock's ABI 6 with no rule; ZeroMQ's threads start and inherit it;
   cell_filter sets limits and the filter. connect(2) is then refused three times over: by seccomp, by Landlock for TCP
   and abstract names, and since no path leads anywhere.

   Called from the main thread, each once. Nothing is allocated that stays. */
#ifndef BULKHEAD_CELL_H
#define BULKHEAD_CELL_H

#include <stdint.h>

#include "system/cell_filter.h"

enum cell_part {
    CELL_USER,
    CELL_ROOT,
    CELL_PRIVILEGES,
    CELL_UNDUMPABLE,
    CELL_LANDLOCK,
    CELL_LIMITS,
    CELL_SECCOMP,
    CELL_PARTS
};

/* Names of the parts and of the kinds, by number. */
extern const char *const cell_names[CELL_PARTS];
extern const char *const cell_kinds[CELL_KINDS];

/* Enter all parts but the last two. `readable`: paths below which files may be read and executed, up to NULL; or NULL.
   Returns the parts in force as bits (1 << part). Sets *abi to Landlock's, 0: none. */
unsigned cell_restrict(enum cell_kind kind, const char *const *readable, int *abi);

/* Enter the last two. Returns them as bits. */
unsigned cell_filter(enum cell_kind kind);

/* Calls that were refused and counted, and the number of the last one (-1: none). */
uint64_t cell_refused(int *last);

#endif
