#include "base/seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* TDX is a matter of x86-64. On other machines there is no filter. */
#ifdef __x86_64__

/* Later than the oldest headers that we are built with. */
#ifndef __NR_fchmodat2
#define __NR_fchmodat2 452
#endif
#ifndef __NR_futex_wake
#define __NR_futex_wake 454
#define __NR_futex_wait 455
#define __NR_futex_requeue 456
#endif

static const int allowed[] = {
    /* the most frequent first: the list is gone through from its beginning */
    __NR_read, __NR_write, __NR_epoll_wait, __NR_epoll_pwait, __NR_epoll_pwait2,
    __NR_epoll_ctl, __NR_futex, __NR_close, __NR_clock_gettime,

    /* files */
    __NR_open, __NR_openat, __NR_openat2, __NR_close_range, __NR_readv, __NR_writev,
    __NR_pread64, __NR_pwrite64, __NR_preadv, __NR_pwritev, __NR_preadv2, __NR_pwritev2,
    __NR_lseek, __NR_stat, __NR_lstat, __NR_fstat, __NR_newfstatat, __NR_statx,
    __NR_statfs, __NR_fstatfs, __NR_access, __NR_faccessat, __NR_faccessat2,
    __NR_getdents, __NR_getdents64, __NR_readlink, __NR_readlinkat, __NR_rename,
    __NR_renameat, __NR_renameat2, __NR_unlink, __NR_unlinkat, __NR_mkdir, __NR_mkdirat,
    __NR_rmdir, __NR_link, __NR_linkat, __NR_symlink, __NR_symlinkat, __NR_chmod,
    __NR_fchmod, __NR_fchmodat, __NR_fchmodat2, __NR_chown, __NR_lchown, __NR_fchown,
    __NR_fchownat, __NR_utimes, __NR_utimensat, __NR_umask, __NR_truncate, __NR_ftruncate,
    __NR_fallocate, __NR_fadvise64, __NR_fsync, __NR_fdatasync, __NR_sync_file_range,
    __NR_flock, __NR_fcntl, __NR_dup, __NR_dup2, __NR_dup3, __NR_ioctl, __NR_getcwd,
    __NR_chdir, __NR_fchdir, __NR_sendfile, __NR_copy_file_range, __NR_inotify_init,
    __NR_inotify_init1, __NR_inotify_add_watch, __NR_inotify_rm_watch,

    /* what is waited for */
    __NR_poll, __NR_ppoll, __NR_select, __NR_pselect6, __NR_epoll_create,
    __NR_epoll_create1, __NR_eventfd, __NR_eventfd2, __NR_signalfd, __NR_signalfd4,
    __NR_timerfd_create, __NR_timerfd_settime, __NR_timerfd_gettime, __NR_pipe,
    __NR_pipe2,

    /* sockets; socket itself is below */
    __NR_socketpair, __NR_bind, __NR_listen, __NR_accept, __NR_accept4, __NR_connect,
    __NR_getsockname, __NR_getpeername, __NR_sendto, __NR_recvfrom, __NR_sendmsg,
    __NR_recvmsg, __NR_sendmmsg, __NR_recvmmsg, __NR_shutdown, __NR_setsockopt,
    __NR_getsockopt,

    /* memory */
    __NR_mmap, __NR_munmap, __NR_mremap, __NR_mprotect, __NR_brk, __NR_madvise,
    __NR_mlock, __NR_mlock2, __NR_munlock, __NR_mincore, __NR_msync, __NR_membarrier,

    /* ourselves, our threads and our children */
    __NR_exit, __NR_exit_group, __NR_getpid, __NR_getppid, __NR_gettid, __NR_getpgrp,
    __NR_getpgid, __NR_getsid, __NR_getuid, __NR_geteuid, __NR_getgid, __NR_getegid,
    __NR_getresuid, __NR_getresgid, __NR_getgroups, __NR_kill, __NR_tkill, __NR_tgkill,
    __NR_wait4, __NR_waitid, __NR_rt_sigaction, __NR_rt_sigprocmask, __NR_rt_sigreturn,
    __NR_rt_sigpending, __NR_rt_sigsuspend, __NR_rt_sigtimedwait, __NR_sigaltstack,
    __NR_restart_syscall, __NR_pause, __NR_futex_wake, __NR_futex_wait,
    __NR_futex_requeue, __NR_set_robust_list, __NR_get_robust_list, __NR_set_tid_address,
    __NR_rseq, __NR_sched_yield, __NR_sched_getaffinity, __NR_sched_getparam,
    __NR_sched_getscheduler, __NR_sched_get_priority_max, __NR_sched_get_priority_min,
    __NR_getpriority, __NR_getcpu, __NR_prctl, __NR_arch_prctl, __NR_prlimit64,
    __NR_getrusage, __NR_capget, __NR_sysinfo, __NR_uname, __NR_times, __NR_getrandom,

    /* time */
    __NR_time, __NR_gettimeofday, __NR_clock_getres, __NR_clock_nanosleep, __NR_nanosleep,
    __NR_alarm, __NR_setitimer, __NR_getitimer};

static const uint32_t families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};

enum {
    ALLOWED = sizeof allowed / sizeof allowed[0],
    FAMILIES = sizeof families / sizeof families[0],
    PROGRAM_MAX = 32 + 2 * ALLOWED + 2 * FAMILIES,
};

struct program {
    struct sock_filter steps[PROGRAM_MAX];
    unsigned short count;
};

static void add(struct program *program, uint16_t code, uint32_t k, uint8_t if_true,
                uint8_t if_false)
{
    program->steps[program->count++] =
        (struct sock_filter){.code = code, .jt = if_true, .jf = if_false, .k = k};
}

static void load(struct program *program, size_t offset)
{
    add(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void end_with(struct program *program, uint32_t verdict)
{
    add(program, BPF_RET | BPF_K, verdict, 0, 0);
}

/* What was loaded, compared: the next step holds if it is equal, else it is skipped. */
static void if_equal(struct program *program, uint32_t value)
{
    add(program, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
}

#define REFUSED(code) (SECCOMP_RET_ERRNO | (code))

/* The low half: all of an argument that is an int. */
static size_t argument(int number)
{
    return offsetof(struct seccomp_data, args) + (size_t)number * sizeof(uint64_t);
}

static void write_program(struct program *program)
{
    program->count = 0;
    load(program, offsetof(struct seccomp_data, arch));
    add(program, BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    end_with(program, REFUSED(ENOSYS));
    load(program, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < ALLOWED; i++) {
        if_equal(program, (uint32_t)allowed[i]);
        end_with(program, SECCOMP_RET_ALLOW);
    }
    if_equal(program, __NR_execve);
    end_with(program, REFUSED(EPERM));
    if_equal(program, __NR_execveat);
    end_with(program, REFUSED(EPERM));
    /* Threads, and no process. clone3, whose flags are not seen from here, is not there. */
    add(program, BPF_JMP | BPF_JEQ | BPF_K, __NR_clone, 0, 4);
    load(program, argument(0));
    add(program, BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1);
    end_with(program, SECCOMP_RET_ALLOW);
    end_with(program, REFUSED(EPERM));
    add(program, BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 1, 0);
    end_with(program, REFUSED(ENOSYS));
    load(program, argument(0));
    for (size_t i = 0; i < FAMILIES; i++) {
        if_equal(program, families[i]);
        end_with(program, SECCOMP_RET_ALLOW);
    }
    end_with(program, REFUSED(EAFNOSUPPORT));
}

bool seccomp_is_offered(void)
{
    uint32_t action = SECCOMP_RET_ERRNO;

    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

int seccomp_confine(struct err *err)
{
    struct program program;
    struct sock_fprog filter = {.filter = program.steps};

    write_program(&program);
    filter.len = program.count;
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG, &filter) != 0)
        return err_sys(err, errno, "seccomp");
    return 0;
}

#else

bool seccomp_is_offered(void)
{
    return false;
}

int seccomp_confine(struct err *err)
{
    return err_sys(err, ENOSYS, "seccomp");
}

#endif
