/* Fork a process as a child of our parent, and end with that parent.

   Theory of operation. A template has imported everything and forks a worker whenever its parent, the supervisor, asks
   for one. The worker must be the supervisor's child, as if the supervisor had started it: the supervisor reaps it
   and gets its exit status, and the end of the template does not affect it. Linux makes such a child of
   clone(CLONE_PARENT); container runtimes use it for the same reason.

   fork(3) would also update the C library's number of the calling thread, which marks the owner of a lock. So we
   update it here, if the kernel tells its place (PR_GET_TID_ADDRESS). Otherwise the number of the template's thread
   stays, which no thread of the child has.

   Example: supervisor 100 has template 101. sibling_fork in 101 returns 102 there and 0 in 102, and getppid() in 102
   is 100.

   Called by a process with one thread, from the thread that will be the child's only one. Nothing is allocated. */
#ifndef BULKHEAD_SIBLING_H
#define BULKHEAD_SIBLING_H

/* As fork(2), but the new process is a child of our parent. Returns its number, 0 in itself, -1 with errno set. */
int sibling_fork(void);

/* Let the kernel kill this process when the thread that started it ends. Returns 0, or -1 with errno set. */
int end_with_parent(void);

#endif
