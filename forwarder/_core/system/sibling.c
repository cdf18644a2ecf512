#include "system/sibling.h"

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

int sibling_fork(void)
{
    int *place = place_of_thread_number();
    int pid = (int)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0 && place != NULL)
        *place = (int)syscall(SYS_set_tid_address, place);
    return pid;
}

int end_with_parent(void)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}
