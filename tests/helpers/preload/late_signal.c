/* A signal at the worst moment: a library to preload into a worker.

   When the file that LATE_SIGNAL names exists, the core's next sleep is preceded by SIGTERM, after the interpreter has
   looked for signals for the last time. The file is gone then. */
#include <signal.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

long syscall(long number, ...)
{
    static long (*next)(long, ...);
    const char *name = getenv("LATE_SIGNAL");
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (next == NULL)
        next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_epoll_pwait2 && name != NULL && unlink(name) == 0)
        raise(SIGTERM);
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
