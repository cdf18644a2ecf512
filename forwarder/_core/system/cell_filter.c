#include "system/cell_filter.h"

#include "system/cell_program.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#endif

#ifndef F_SETPIPE_SZ
#define F_SETPIPE_SZ 1031
#endif

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

static const int allowed[] = {
    /* frames, messages, bells */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_lseek, SYS_close, SYS_recvfrom, SYS_recvmsg,
    SYS_recvmmsg, SYS_sendmsg, SYS_sendmmsg, SYS_shutdown,
    /* the next supervisor comes to a socket that listens already; ZeroMQ asks it for its options */
    SYS_accept4, SYS_getsockname, SYS_getpeername,
    /* sleeping */
    SYS_ppoll, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_clock_nanosleep, SYS_nanosleep, SYS_sched_yield,
    SYS_restart_syscall,
#ifdef SYS_poll
    SYS_poll, SYS_epoll_wait,
#endif
    /* memory */
    SYS_munmap, SYS_mremap, SYS_brk,
    /* about oneself */
    SYS_fstat, SYS_newfstatat, SYS_dup, SYS_getpid, SYS_gettid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
    SYS_getrandom, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_sched_getaffinity, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack, SYS_exit, SYS_exit_group,
    /* the first steps of ZeroMQ's threads, which may still be to come when the filter is put on them */
    SYS_set_robust_list, SYS_rseq, SYS_sched_getparam, SYS_sched_getscheduler,
};

/* A worker has its epoll instance and its bells from the start, and its sockets as they are to be. The watches of all
   processes of a user are limited together, and each further instance could watch everything once more. */
static const int not_for_workers[] = {SYS_epoll_create1, SYS_eventfd2, SYS_getsockopt, SYS_setsockopt};

/* The gateway dials guests' connections, moves their bytes by pipes in the kernel, and writes leases to a file. It binds
   a socket only to find out whether an address is the host's own. It waits for its child, which ends with the namespace. */
static const int gateway_calls[] = {SYS_connect, SYS_bind,      SYS_sendto,    SYS_pipe2,
                                    SYS_splice,  SYS_pwrite64, SYS_ftruncate, SYS_wait4};

/* The commands of fcntl that concern a descriptor alone: F_SETOWN would make the kernel send signals for us. F_SETFL
   has a rule of its own. */
static const int descriptor_commands[] = {F_GETFD, F_SETFD, F_GETFL, F_DUPFD, F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS};
/* Not FIONBIO: its argument is out of a filter's sight. */
static const int device_commands[] = {FIOCLEX, FIONCLEX};
static const int gateway_fcntl[] = {F_GETFD, F_SETFD,         F_GETFL,     F_SETFL,
                                    F_DUPFD, F_DUPFD_CLOEXEC, F_GET_SEALS, F_SETPIPE_SZ};
static const int gateway_ioctl[] = {FIONBIO, FIOCLEX, FIONCLEX, SIOCOUTQ, SIOCATMARK};
static const int ip_families[] = {AF_INET, AF_INET6};
static const int ip_types[] = {SOCK_STREAM, SOCK_DGRAM};
static const int ip_protocols[] = {0, IPPROTO_ICMP, IPPROTO_ICMPV6};

static const int socket_facts[] = {SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ERROR, SO_PEERCRED};
/* What the C library and the core do with memory of their own. */
static const int advice[] = {MADV_DONTNEED, MADV_FREE, MADV_DONTDUMP, MADV_HUGEPAGE, MADV_NOHUGEPAGE};
static const int data_protections[] = {PROT_NONE, PROT_READ | PROT_WRITE};
/* Waiting and waking. Not the locks that hand priorities on: they are set by the number of another thread. */
static const int futex_operations[] = {FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP,
                                       FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET};

static const int own_name[] = {PR_SET_NAME};
static const int usual_policy[] = {SCHED_OTHER};

static const int processes[] = {
#ifdef SYS_fork
    SYS_fork, SYS_vfork,
#endif
    SYS_clone,
#ifdef SYS_clone3
    SYS_clone3,
#endif
};

/* The namespaces of clone(2): a user namespace has all capabilities inside. */
#define NAMESPACES                                                                                                     \
    (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)
/* x86-64 takes other numbers for the same calls (x32): they begin here. */
#define OTHER_NUMBERS 0x40000000u

/* What reaches into other processes, or is for those that run a machine. */
static const int refused_to_web[] = {
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_kcmp, SYS_perf_event_open, SYS_bpf,
    SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_keyctl, SYS_add_key,
    SYS_request_key, SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_swapon, SYS_swapoff,
    SYS_reboot, SYS_kexec_load, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_quotactl, SYS_acct,
    SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_sethostname, SYS_setdomainname, SYS_syslog,
    SYS_open_by_handle_at, SYS_name_to_handle_at,
};

#define COUNT(table) (sizeof table / sizeof *table)

/* No memory that can be executed, and none that escapes RLIMIT_DATA: shared without a descriptor, growing like a stack,
   of the machine's huge pages, or only read (which costs page tables). */
static void memory(struct program *p)
{
    unsigned short at = program_begin(p, SYS_mmap);
    program_load(p, program_low(2));
    program_refuse_with(p, PROT_EXEC);
    program_load(p, program_low(3));
    program_refuse_with(p, MAP_GROWSDOWN | MAP_HUGETLB);
    program_refuse_if(p, MAP_SHARED | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS);
    program_load(p, program_low(3));
    program_add(p, BPF_JMP | BPF_JSET | BPF_K, MAP_ANONYMOUS, 0, 4);
    program_load(p, program_low(2));
    program_refuse_if(p, PROT_READ | PROT_WRITE, PROT_READ);
    program_answer(p, SECCOMP_RET_ALLOW);
    program_end(p, at);
    at = program_begin(p, SYS_mprotect);
    program_load(p, program_low(2));
    program_for_each(p, data_protections, COUNT(data_protections), SECCOMP_RET_ALLOW);
    program_answer(p, p->refuse);
    program_end(p, at);
}

/* Other processes have duplicates of some descriptors, which share their flags. A bell that blocks would hang those
   that ring it, so nothing is made to block. */
static void descriptor_flags(struct program *p)
{
    unsigned short at = program_begin(p, SYS_fcntl);
    program_load(p, program_low(1));
    unsigned short set_flags = program_begin(p, F_SETFL);
    program_load(p, program_low(2));
    program_refuse_without(p, O_NONBLOCK);
    program_refuse_with(p, O_ASYNC);
    program_answer(p, SECCOMP_RET_ALLOW);
    program_end(p, set_flags);
    program_for_each(p, descriptor_commands, COUNT(descriptor_commands), SECCOMP_RET_ALLOW);
    program_answer(p, p->refuse);
    program_end(p, at);
}

static void wait_and_wake(struct program *p)
{
    unsigned short at = program_begin(p, SYS_futex);
    program_load(p, program_low(1));
    program_add(p, BPF_ALU | BPF_AND | BPF_K, (unsigned)FUTEX_CMD_MASK, 0, 0);
    program_for_each(p, futex_operations, COUNT(futex_operations), SECCOMP_RET_ALLOW);
    program_answer(p, p->refuse);
    program_end(p, at);
}

/* What a socket is, and nothing of its protocol. */
static void ask_sockets(struct program *p)
{
    unsigned short at = program_begin(p, SYS_getsockopt);
    program_load(p, program_low(1));
    program_add(p, BPF_JMP | BPF_JEQ | BPF_K, SOL_SOCKET, 1, 0);
    program_answer(p, p->refuse);
    program_load(p, program_low(2));
    program_for_each(p, socket_facts, COUNT(socket_facts), SECCOMP_RET_ALLOW);
    program_answer(p, p->refuse);
    program_end(p, at);
}

/* Sockets of TCP, UDP and pings alone. */
static void make_socket(struct program *p)
{
    unsigned short at = program_begin(p, SYS_socket);
    program_load(p, program_low(0));
    program_either(p, ip_families);
    program_load(p, program_low(1));
    program_add(p, BPF_ALU | BPF_AND | BPF_K, (unsigned)~(SOCK_CLOEXEC | SOCK_NONBLOCK), 0, 0);
    program_either(p, ip_types);
    program_load(p, program_low(2));
    program_for_each(p, ip_protocols, COUNT(ip_protocols), SECCOMP_RET_ALLOW);
    program_answer(p, p->refuse);
    program_end(p, at);
}

/* Only to the peer that the socket is connected to. */
static void send_to(struct program *p)
{
    unsigned short at = program_begin(p, SYS_sendto);
    for (unsigned half = 0; half < 2; half++) {
        program_load(p, program_low(4) + half * sizeof(uint32_t));
        program_add(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
        program_answer(p, p->refuse);
    }
    program_answer(p, SECCOMP_RET_ALLOW);
    program_end(p, at);
}

/* A further filter may be added, for the thread that asks: each takes something away. */
static void add_filter(struct program *p)
{
    unsigned short at = program_begin(p, SYS_seccomp);
    const int arguments[] = {SECCOMP_SET_MODE_FILTER, 0};
    for (unsigned i = 0; i < COUNT(arguments); i++) {
        program_load(p, program_low(i));
        program_add(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)arguments[i], 1, 0);
        program_answer(p, p->refuse);
    }
    program_answer(p, SECCOMP_RET_ALLOW);
    program_end(p, at);
}

static void write_refusals(struct program *p)
{
    program_load_call(p);
    program_add(p, BPF_JMP | BPF_JGE | BPF_K, OTHER_NUMBERS, 0, 1);
    program_answer(p, SECCOMP_RET_ERRNO | EPERM);
    program_for_each(p, refused_to_web, COUNT(refused_to_web), SECCOMP_RET_ERRNO | EPERM);
#ifdef SYS_clone3
    program_add(p, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
    program_answer(p, SECCOMP_RET_ERRNO | ENOSYS); /* its flags are out of sight; the C library uses clone then */
#endif
    unsigned short at = program_begin(p, SYS_clone);
    program_load(p, program_low(0));
    program_refuse_with(p, NAMESPACES);
    program_end(p, at);
    program_answer(p, SECCOMP_RET_ALLOW);
}

static void write_program(struct program *p, enum cell_kind kind)
{
    const int myself = getpid(); /* raise and abort */
    program_load_call(p);
    program_for_each(p, allowed, COUNT(allowed), SECCOMP_RET_ALLOW);
    program_for_each(p, processes, COUNT(processes), SECCOMP_RET_ERRNO | EPERM);
    if (kind == CELL_GATEWAY) {
        program_for_each(p, gateway_calls, COUNT(gateway_calls), SECCOMP_RET_ALLOW);
        program_with_argument(p, SYS_fcntl, 1, gateway_fcntl, COUNT(gateway_fcntl));
        program_with_argument(p, SYS_ioctl, 1, gateway_ioctl, COUNT(gateway_ioctl));
    } else {
        descriptor_flags(p);
        program_with_argument(p, SYS_ioctl, 1, device_commands, COUNT(device_commands));
    }
    if (kind == CELL_WORKER) {
        ask_sockets(p);
    } else {
        program_for_each(p, not_for_workers, COUNT(not_for_workers), SECCOMP_RET_ALLOW);
        make_socket(p);
    }
    memory(p);
    program_with_argument(p, SYS_madvise, 2, advice, COUNT(advice));
    wait_and_wake(p);
    program_with_argument(p, SYS_prctl, 0, own_name, COUNT(own_name));
    program_with_argument(p, SYS_sched_setscheduler, 1, usual_policy, COUNT(usual_policy));
    program_with_argument(p, SYS_tgkill, 0, &myself, 1);
    send_to(p);
    if (p->refuse != SECCOMP_RET_TRAP)
        add_filter(p);
    program_answer(p, p->refuse);
}

int cell_filter_calls(enum cell_kind kind, int trap)
{
    struct program p = {.refuse = trap ? SECCOMP_RET_TRAP : SECCOMP_RET_ERRNO | EPERM};
    if (kind == CELL_WEB)
        write_refusals(&p);
    else
        write_program(&p, kind);
    struct sock_fprog program = {.len = p.length, .filter = p.code};
    unsigned flags = trap ? 0 : SECCOMP_FILTER_FLAG_TSYNC;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}
