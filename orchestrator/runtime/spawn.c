#include "runtime/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_BEGUN = 127 };

/* libc does not change the lists, it only misses the const. */
static char **without_const(const char *const *list)
{
    char **same;

    memcpy(&same, &list, sizeof same);
    return same;
}

/* ---- in the child: only what is safe in the copy of a process that has threads ---- */

/* First out of the way of each other, then into place. */
static bool take_fds(const int *wanted)
{
    int fds[SPAWN_FDS];

    for (int i = 0; i < SPAWN_FDS; i++) {
        fds[i] = wanted[i] < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : wanted[i];
        if (fds[i] >= 0 && fds[i] < SPAWN_FDS)
            fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, SPAWN_FDS);
        if (fds[i] < 0)
            return false;
    }
    for (int i = 0; i < SPAWN_FDS; i++) {
        if (dup2(fds[i], i) < 0)
            return false;
    }
    /* Ours are close-on-exec already; this is for what a library may have opened. */
    (void)syscall(SYS_close_range, SPAWN_FDS, ~0U, CLOSE_RANGE_CLOEXEC);
    return true;
}

/* Not by libc's functions: those tell the threads, which did not come along. */
static bool become(const struct spawn_plan *plan)
{
    return syscall(SYS_setgroups, 0, NULL) == 0 &&
           syscall(SYS_setresgid, plan->gid, plan->gid, plan->gid) == 0 &&
           syscall(SYS_setresuid, plan->uid, plan->uid, plan->uid) == 0;
}

static void reset_signals(void)
{
    struct sigaction usual = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        (void)sigaction(number, &usual, NULL); /* some cannot be changed */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Returns when it has failed. */
static void begin(const struct spawn_plan *plan)
{
    setsid();
    if (!take_fds(plan->fds) || (plan->folder != NULL && chdir(plan->folder) < 0) ||
        (plan->change_user && !become(plan)))
        return;
    reset_signals();
    execvpe(plan->argv[0], without_const(plan->argv), without_const(plan->environment));
}

/* ---- in the parent ---- */

/* What the child has to say before it begins: nothing, or an errno. */
static int wait_for_exec(int fd)
{
    int code = 0;
    ssize_t got;

    do
        got = read(fd, &code, sizeof code);
    while (got < 0 && errno == EINTR);
    return got == sizeof code ? code : 0;
}

int spawn_here(const struct spawn_plan *plan, int flags, pid_t *ret_pid)
{
    sigset_t all;
    sigset_t before;
    int ends[2];
    int code;
    long pid;

    *ret_pid = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return errno;
    /* No handler of ours may run in the child. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* Not fork(3): it has no flags. All other arguments are zero, in whatever order they are. */
    pid = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
    code = pid < 0 ? errno : 0;
    if (pid == 0) {
        begin(plan);
        code = errno;
        (void)!write(ends[1], &code, sizeof code);
        _exit(NOT_BEGUN);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    if (pid > 0) {
        *ret_pid = (pid_t)pid;
        code = wait_for_exec(ends[0]);
    }
    close(ends[0]);
    return code;
}
