/* Each in a process of its own: there is no way back. */
#include "base/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { CANNOT_CONFINE = 100, KILLED = 101 };

/* What the confined process returns: 0, or an errno. */
static int confined(int (*attempt)(void))
{
    int status = 0;
    pid_t pid;

    if (!seccomp_is_offered())
        skip();
    pid = fork();
    if (pid == 0) {
        struct err err = ERR_INIT;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || seccomp_confine(&err) < 0)
            _exit(CANNOT_CONFINE);
        _exit(attempt());
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : KILLED;
}

static int run_program(void)
{
    char *const argv[] = {(char[]){"true"}, NULL};

    execv("/bin/true", argv);
    return errno;
}

static int fork_process(void)
{
    return fork() < 0 ? errno : 0;
}

static int make_namespace(void)
{
    return unshare(CLONE_NEWNS) < 0 ? errno : 0;
}

static int trace_parent(void)
{
    return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) < 0 ? errno : 0;
}

static int load_program(void)
{
    return syscall(SYS_bpf, BPF_PROG_LOAD, NULL, 0) < 0 ? errno : 0;
}

static int become_nobody(void)
{
    return syscall(SYS_setuid, 65534) < 0 ? errno : 0;
}

static int send_raw_packets(void)
{
    return socket(AF_PACKET, SOCK_RAW, 0) < 0 ? errno : 0;
}

/* One that no kernel has, as one that comes would be for this list. */
static int call_the_unknown(void)
{
    enum { NEVER = 0x3fff };

    return syscall(NEVER) < 0 ? errno : 0;
}

static void what_a_daemon_does_not_need_fails(void **state)
{
    static const struct {
        int (*attempt)(void);
        int code;
    } attempts[] = {
        {run_program, EPERM},       {fork_process, EPERM},
        {make_namespace, ENOSYS},   {trace_parent, ENOSYS},
        {load_program, ENOSYS},     {become_nobody, ENOSYS},
        {call_the_unknown, ENOSYS}, {send_raw_packets, EAFNOSUPPORT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++)
        assert_int_equal(confined(attempts[i].attempt), attempts[i].code);
}

static void *run_thread(void *argument)
{
    *(int *)argument = fork_process();
    return NULL;
}

static int start_thread(void)
{
    pthread_t thread;
    int code = 0;

    if (pthread_create(&thread, NULL, run_thread, &code) != 0)
        return EAGAIN;
    pthread_join(thread, NULL);
    return code == EPERM ? 0 : 1; /* it is confined, too */
}

static int look_up_name(void)
{
    struct addrinfo *found = NULL;
    int code = getaddrinfo("localhost", "80", NULL, &found);

    if (code == 0)
        freeaddrinfo(found);
    return code == 0 ? 0 : 1;
}

static int use_memory_and_files(void)
{
    void *memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    char *block = malloc(1 << 20);
    int good = memory != MAP_FAILED && fd >= 0 && block != NULL && write(fd, "x", 1) == 1;

    free(block);
    return good ? 0 : 1;
}

static void what_a_daemon_needs_works(void **state)
{
    (void)state;
    assert_int_equal(confined(start_thread), 0);
    assert_int_equal(confined(look_up_name), 0);
    assert_int_equal(confined(use_memory_and_files), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_daemon_does_not_need_fails),
        cmocka_unit_test(what_a_daemon_needs_works),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
