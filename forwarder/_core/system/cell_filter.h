/* The filter of system calls of a cell: what a process in it may ask of the kernel.

   Theory of operation. A program for the kernel's classic BPF (seccomp(2)): compare the architecture and the number
   with each row of a table. Some calls are allowed for some arguments only: memory that cannot be executed, commands
   of fcntl that concern a descriptor alone, signals to oneself. Calls that make a process fail without being counted,
   since the C library blocks signals around them. A row that has no number on this architecture is left out. Each kind
   of cell has the common rows and some of its own. A page executes programs, which may call what they like, except what
   reaches into other processes or changes the machine: its table is one of refusals.

   Example: connect(2) is in no row of a worker's. The program reaches its end, which answers EPERM, or SIGSYS where calls
   are counted.

   Called from cell.c, by the main thread, twice. */
#ifndef BULKHEAD_CELL_FILTER_H
#define BULKHEAD_CELL_FILTER_H

enum cell_kind { CELL_WORKER, CELL_GATEWAY, CELL_NAMESPACE, CELL_WEB, CELL_KINDS };

/* Put the filter of that kind in force. `trap`: refuse by SIGSYS, for the calling thread; or by EPERM, for all threads.
   0, or -1 and errno. */
int cell_filter_calls(enum cell_kind kind, int trap);

#endif
