/* Fork in ways that fork(2) cannot, and end with the parent.

   Theory of operation. A process that has imported everything forks others, which share its pages until they write.

   - A template forks a worker whenever its parent, the supervisor, asks for one. The worker must be the supervisor's
     child, as if the supervisor had started it: the supervisor reaps it and gets its exit status, and the end of the
     template does not affect it. Linux makes such a child of clone(CLONE_PARENT); container runtimes use it for the
     same reason.
   - The gateway forks a process into namespaces of its own. It is the first one of its PID namespace, so the kernel
     kills what it has started when it ends.

   fork(3) would also update the C library's number of the calling thread, which marks the owner of a lock. So we
   update it here, if the kernel tells its place (PR_GET_TID_ADDRESS). Otherwise the number of the parent's thread
   stays, which no thread of the child has.

   Example: supervisor 100 has template 101. fork_sibling in 101 returns 102 there and 0 in 102, and getppid() in 102
   is 100.

   Called by a process with one thread, from the thread that will be the child's only one. Nothing is allocated. */
#ifndef BULKHEAD_FORK_H
#define BULKHEAD_FORK_H

#include <stdbool.h>

/* As fork(2), but the new process is a child of our parent. Returns its number, 0 in itself, -1 with errno set. */
int fork_sibling(void);

/* As fork(2), but the new process is in a network and a PID namespace of its own, and with `user` in a user namespace
   that has no user yet. Returns its number, 0 in itself, -1 with errno set. */
int fork_into_namespaces(bool user);

/* Let the kernel kill this process when the thread that started it ends. Returns 0, or -1 with errno set. */
int end_with_parent(void);

#endif
