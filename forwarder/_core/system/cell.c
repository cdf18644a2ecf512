#include "system/cell.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>


/* linux/landlock.h of the newest kernel that is known here. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
#define LANDLOCK_VERSION 1u /* LANDLOCK_CREATE_RULESET_VERSION */

#define RULE_PATH_BENEATH 1
#define RIGHT_EXECUTE 1u
#define RIGHT_WRITE_FILE 2u
#define RIGHT_READ_FILE 4u
#define RIGHT_READ_DIR 8u

struct path_beneath {
    uint64_t allowed;
    int32_t fd;
} __attribute__((packed));

struct ruleset {
    uint64_t fs, net, scoped;
};

/* The user nobody of every distribution: as passt does when it is started by root. */
#define NOBODY 65534u

/* Landlock's rights of TCP, which a gateway needs the second of. */
#define BIND_TCP 1u
#define CONNECT_TCP 2u

/* Frames that wait for the rings of all ports (256 MiB) and messages that wait for a supervisor (as many): twice. */
#define DATA_BYTES ((rlim_t)1 << 30)
/* Two doorbells and two rings on their way for each port there can be. */
#define DESCRIPTORS 4096u
/* Leases of the largest network are written anew before they take half of this. */
#define LEASES_BYTES ((rlim_t)64 << 20)

const char *const cell_names[CELL_PARTS] = {
    [CELL_USER] = "user",
    [CELL_ROOT] = "root",
    [CELL_PRIVILEGES] = "privileges",
    [CELL_UNDUMPABLE] = "undumpable",
    [CELL_LANDLOCK] = "landlock",
    [CELL_LIMITS] = "limits",
    [CELL_SECCOMP] = "seccomp",
};

const char *const cell_kinds[CELL_KINDS] = {
    [CELL_WORKER] = "worker",
    [CELL_GATEWAY] = "gateway",
    [CELL_NAMESPACE] = "namespace",
    [CELL_WEB] = "web",
};

static const struct {
    unsigned keeps; /* capabilities, as bits */
    unsigned net;   /* rights of TCP that Landlock takes */
    bool ends_with_parent;
    bool serves_user; /* goes to sockets by their names, and starts programs, as its user */
} kinds[CELL_KINDS] = {
    [CELL_WORKER] = {0, BIND_TCP | CONNECT_TCP, false, false},
    [CELL_GATEWAY] = {0, BIND_TCP, true, false},
    [CELL_NAMESPACE] = {1u << CAP_NET_ADMIN, BIND_TCP | CONNECT_TCP, true, false},
    [CELL_WEB] = {0, BIND_TCP | CONNECT_TCP, false, true},
};

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t count = write(fd, text, strlen(text));
    close(fd);
    return count < 0 ? -1 : 0;
}

/* The right to chroot, for a process without it: a user namespace in which it keeps its user. */
static int gain_chroot(void)
{
    char map[64];
    unsigned uid = geteuid(), gid = getegid();
    if (uid == 0)
        return 0;
    if (unshare(CLONE_NEWUSER) < 0)
        return -1;
    snprintf(map, sizeof map, "%u %u 1", uid, uid);
    if (write_file("/proc/self/uid_map", map) < 0)
        return -1;
    snprintf(map, sizeof map, "%u %u 1", gid, gid);
    return write_file("/proc/self/setgroups", "deny") < 0 || write_file("/proc/self/gid_map", map) < 0 ? -1 : 0;
}

/* This directory exists everywhere, and has nothing but the numbers of our own descriptors. */
static bool enter_empty_root(void)
{
    return gain_chroot() == 0 && chroot("/proc/self/fdinfo") == 0 && chdir("/") == 0;
}

/* Whether this user namespace has user 0 only, which is another user outside. */
static bool is_root_in_name_only(void)
{
    char map[64] = "";
    unsigned inside, outside, count;
    int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, map, sizeof map - 1);
    if (fd >= 0)
        close(fd);
    return length > 0 && sscanf(map, "%u %u %u", &inside, &outside, &count) == 3 && count == 1 && outside != 0;
}

static bool become_nobody(bool is_root)
{
    if (!is_root)
        return true;
    return setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0
           && setresuid(NOBODY, NOBODY, NOBODY) == 0;
}

static void drop_bounding_set(void)
{
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); /* refused where we have none to drop: then capset has none to keep */
}

static bool drop_privileges(unsigned but)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct kept[2] = {{.effective = but, .permitted = but}};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, kept) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* Landlock's version here; 0: there is none. */
static int landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION);
    return abi > 0 ? (int)abi : 0;
}

/* Give back the right to read and execute what is below a path; /dev/null may be written, too. */
static void allow_reading(int ruleset, const char *path)
{
    struct stat status;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &status) == 0) {
        struct path_beneath rule = {.allowed = RIGHT_EXECUTE | RIGHT_READ_FILE, .fd = fd};
        rule.allowed |= S_ISDIR(status.st_mode) ? RIGHT_READ_DIR : 0;
        rule.allowed |= S_ISCHR(status.st_mode) ? RIGHT_WRITE_FILE : 0;
        syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0);
    }
    close(fd);
}

/* Every right that this ABI knows is taken; only reading below these paths is given back. */
static bool enter_landlock(enum cell_kind kind, int abi, const char *const *readable)
{
    struct ruleset all = {.fs = 0x1fff};
    if (abi >= 2)
        all.fs |= 1u << 13; /* REFER */
    if (abi >= 3)
        all.fs |= 1u << 14; /* TRUNCATE */
    if (abi >= 5)
        all.fs |= 1u << 15; /* IOCTL_DEV */
    if (abi >= 4)
        all.net = kinds[kind].net;
    if (abi >= 6)
        all.scoped = 3; /* ABSTRACT_UNIX_SOCKET, SIGNAL */
    int fd = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);
    if (fd < 0)
        return false;
    for (; readable != NULL && *readable != NULL; readable++)
        allow_reading(fd, *readable);
    bool entered = syscall(SYS_landlock_restrict_self, fd, 0) == 0;
    close(fd);
    return entered;
}

unsigned cell_restrict(enum cell_kind kind, const char *const *readable, int *abi)
{
    unsigned parts = 0, keeps = kinds[kind].keeps;
    bool is_root = geteuid() == 0 && !is_root_in_name_only();
    *abi = landlock_abi();
    if (!kinds[kind].serves_user)
        parts |= (unsigned)enter_empty_root() << CELL_ROOT;
    drop_bounding_set();
    prctl(PR_SET_KEEPCAPS, keeps != 0, 0, 0, 0);
    if (!kinds[kind].serves_user)
        parts |= (unsigned)become_nobody(is_root) << CELL_USER;
    parts |= (unsigned)drop_privileges(keeps) << CELL_PRIVILEGES;
    if (kinds[kind].ends_with_parent)
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* a change of user clears it */
    parts |= (unsigned)(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0) << CELL_UNDUMPABLE;
    if (*abi > 0 && !enter_landlock(kind, *abi, readable))
        *abi = 0;
    return parts | (unsigned)(*abi > 0) << CELL_LANDLOCK;
}

/* A gateway has as many descriptors as its process may have: it shares them out. */
static bool set_limits(enum cell_kind kind)
{
    const bool is_gateway = kind == CELL_GATEWAY;
    const struct {
        int resource;
        rlim_t most;
    } limits[] = {
        {RLIMIT_CORE, 0},
        {RLIMIT_FSIZE, is_gateway ? LEASES_BYTES : 0},
        {RLIMIT_NPROC, 0},
        {RLIMIT_MEMLOCK, 0},
        {RLIMIT_MSGQUEUE, 0},
        {RLIMIT_NOFILE, is_gateway ? RLIM_INFINITY : DESCRIPTORS},
        {RLIMIT_DATA, DATA_BYTES},
    };
    bool all = true;
    for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit now, want = {limits[i].most, limits[i].most};
        if (getrlimit(limits[i].resource, &now) == 0 && now.rlim_max < want.rlim_max)
            want.rlim_cur = want.rlim_max = now.rlim_max;
        all = setrlimit(limits[i].resource, &want) == 0 && all;
    }
    return all;
}

static atomic_uint_fast64_t refused;
static atomic_int last_refused = -1;

static void on_refused(int number, siginfo_t *info, void *context)
{
    (void)number;
    ucontext_t *at = context;
    atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
    atomic_store_explicit(&last_refused, info->si_syscall, memory_order_relaxed);
#if defined(__x86_64__)
    at->uc_mcontext.gregs[REG_RAX] = -EPERM;
#elif defined(__aarch64__)
    at->uc_mcontext.regs[0] = (unsigned long long)-EPERM;
#endif
}

unsigned cell_filter(enum cell_kind kind)
{
    if (kinds[kind].serves_user)
        return (unsigned)(cell_filter_calls(kind, 0) == 0) << CELL_SECCOMP;
    struct sigaction action = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER};
    unsigned parts = (unsigned)set_limits(kind) << CELL_LIMITS;
    bool filtered = cell_filter_calls(kind, 0) == 0;
    if (filtered && sigaction(SIGSYS, &action, NULL) == 0)
        cell_filter_calls(kind, 1); /* where it is not to be had, calls are refused and not counted */
    return parts | (unsigned)filtered << CELL_SECCOMP;
}

uint64_t cell_refused(int *last)
{
    *last = atomic_load_explicit(&last_refused, memory_order_relaxed);
    return atomic_load_explicit(&refused, memory_order_relaxed);
}
