#include "system/fork.h"

#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The C library's place for the number of the calling thread; NULL if the kernel does not tell it, or if a library
   other than glibc has it elsewhere. */
static int *place_of_thread_number(void)
{
    int *place = NULL;
#ifdef __GLIBC__
    if (prctl(PR_GET_TID_ADDRESS, &place, 0, 0, 0) < 0)
        return NULL;
#endif
    return place;
}

static int fork_with(int flags)
{
    int *place = place_of_thread_number();
    int pid = (int)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0 && place != NULL)
        *place = (int)syscall(SYS_set_tid_address, place);
    return pid;
}

int fork_sibling(void)
{
    return fork_with(CLONE_PARENT);
}

int fork_into_namespaces(bool user)
{
    return fork_with(CLONE_NEWNET | CLONE_NEWPID | (user ? CLONE_NEWUSER : 0));
}

int end_with_parent(void)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}
