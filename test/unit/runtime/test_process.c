#include "runtime/process.h"

#include "base/fs.h"
#include "runtime/spawn.h"
#include "support/child.h"
#include "support/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { LONG_GRACE_MS = 20000, SHORT_GRACE_MS = 20 };

static const char *const no_environment[] = {NULL};

/* One child, what it wrote, and what the test wants to do to it meanwhile. */
struct run {
    struct process process;
    struct ended ended;
    pid_t pid;
    unsigned lines;
    char last_line[PROCESS_STREAMS][1100];
    bool cancel_on_line;
};

static void on_line(void *owner, enum process_stream stream, const char *line)
{
    struct run *run = owner;

    assert_int_equal(run->ended.times, 0);
    run->lines++;
    snprintf(run->last_line[stream], sizeof run->last_line[stream], "%s", line);
    if (run->cancel_on_line)
        process_cancel(&run->process);
}

static bool has_line(void *owner)
{
    return ((struct run *)owner)->lines > 0;
}

static bool has_exited(void *owner)
{
    return process_pid(&((struct run *)owner)->process) == 0;
}

static void start_with(struct run *run, uv_loop_t *loop, struct process_options options)
{
    if (options.environment == NULL)
        options.environment = no_environment;
    if (options.max_output == 0)
        options.max_output = 4096;
    options.on_line = on_line;
    options.line_owner = run;
    process_start(&run->process, loop, &options, ended_done, &run->ended);
    assert_int_equal(run->ended.times, 0);
    run->pid = process_pid(&run->process);
}

static void start_shell(struct run *run, uv_loop_t *loop, const char *script,
                        struct process_options options)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};

    options.argv = argv;
    start_with(run, loop, options);
    assert_true(run->pid > 0);
    assert_int_equal(getsid(run->pid), run->pid);
}

static const struct process_options usual = {.term_grace_ms = LONG_GRACE_MS};

static void assert_reaped(const struct run *run)
{
    assert_int_equal(waitpid(run->pid, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(process_pid(&run->process), 0);
}

static void close_run(struct run *run)
{
    process_done(&run->process);
    process_done(&run->process); /* once more is no harm */
    process_cancel(&run->process);
}

static const char *output(const struct run *run)
{
    return buf_str(&run->process.output[PROCESS_STDOUT]);
}

/* Descendants that lose their parent become children of this process. */
static int group_setup(void **state)
{
    (void)state;
    return prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static int start_helper(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    return spawn_helper_start(&err);
}

static int end_helper(void **state)
{
    (void)state;
    spawn_helper_end();
    return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD ? 0 : -1;
}

/* The effective ones, of the first 32; what they were before. */
static uint32_t set_capabilities(uint32_t effective)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    uint32_t before;

    assert_int_equal(syscall(SYS_capget, &header, data), 0);
    before = data[0].effective;
    data[0].effective = effective;
    assert_int_equal(syscall(SYS_capset, &header, data), 0);
    return before;
}

static uint32_t take_capability(unsigned capability)
{
    uint32_t before = set_capabilities(0);

    set_capabilities(before & ~(UINT32_C(1) << capability));
    return before;
}

/* Waits for a descendant and says which signal has ended it. */
static int end_of_descendant(pid_t pid)
{
    assert_true(pid > 1);
    return child_end(pid);
}

/* ---- what the child gets ---- */

static void test_output_and_exit_status(void **state)
{
    struct run run = {.lines = 0};

    start_shell(&run, *state, "echo out; echo err >&2", usual);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_int_equal(run.process.exit_status, 0);
    assert_int_equal(run.process.term_signal, 0);
    assert_string_equal(output(&run), "out\n");
    assert_string_equal(buf_str(&run.process.output[PROCESS_STDERR]), "err\n");
    assert_false(run.process.output_cut[PROCESS_STDOUT]);
    assert_string_equal(run.last_line[PROCESS_STDOUT], "out");
    assert_string_equal(run.last_line[PROCESS_STDERR], "err");
    assert_reaped(&run);
    close_run(&run);
}

static void test_environment_is_exact(void **state)
{
    const char *const argv[] = {"/usr/bin/env", NULL};
    const char *const environment[] = {"ONE=1", "TWO=2 and more", NULL};
    struct run run = {.lines = 0};

    start_with(&run, *state,
               (struct process_options){.argv = argv, .environment = environment});
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_string_equal(output(&run), "ONE=1\nTWO=2 and more\n");
    close_run(&run);
}

static void test_no_environment(void **state)
{
    const char *const argv[] = {"/usr/bin/env", NULL};
    struct run run = {.lines = 0};

    start_with(&run, *state, (struct process_options){.argv = argv});
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_string_equal(output(&run), "");
    close_run(&run);
}

static void test_standard_input_is_empty(void **state)
{
    struct run run = {.lines = 0};

    start_shell(&run, *state, "readlink /proc/self/fd/0 && cat", usual);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_string_equal(output(&run), "/dev/null\n");
    close_run(&run);
}

static void test_output_opens_by_name(void **state)
{
    struct run run = {.lines = 0};

    start_shell(&run, *state, "echo out >/dev/stdout; echo err >/dev/stderr", usual);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_int_equal(run.process.exit_status, 0);
    assert_string_equal(output(&run), "out\n");
    close_run(&run);
}

static void test_folder(void **state)
{
    struct run run = {.lines = 0};
    struct process_options options = usual;

    options.folder = "/usr/lib";
    start_shell(&run, *state, "pwd", options);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_string_equal(output(&run), "/usr/lib\n");
    close_run(&run);
}

static void test_no_descriptor_leaks(void **state)
{
    struct run other = {.lines = 0};
    struct run run = {.lines = 0};
    int careless[2];
    int sockets[2];

    assert_int_equal(pipe(careless), 0); /* not close-on-exec, as a library may do */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    start_shell(&other, *state, "echo ready; exec sleep 1000", usual);
    loop_run_until(*state, has_line, &other);
    /* The descriptor with which the shell reads the folder is closed by then. */
    start_shell(&run, *state,
                "for f in /proc/self/fd/*; do [ -e $f ] && echo $f; done; exit 0", usual);
    loop_run_until(*state, ended_once, &run.ended);
    ended_assert_ok(&run.ended);
    assert_string_equal(output(&run),
                        "/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n");
    process_cancel(&other.process);
    loop_run(*state);
    for (int i = 0; i < 2; i++) {
        close(careless[i]);
        close(sockets[i]);
    }
    close_run(&run);
    close_run(&other);
}

static unsigned count_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            count++;
    return count;
}

static void test_we_keep_no_descriptor(void **state)
{
    const char *const missing[] = {"/nonexistent/program", NULL};
    struct run first = {.lines = 0};
    unsigned before;

    start_shell(&first, *state, "exit 0", usual);
    loop_run(*state);
    close_run(&first);
    before = count_descriptors();
    for (int i = 0; i < 5; i++) {
        struct run good = {.lines = 0};
        struct run bad = {.lines = 0};

        start_shell(&good, *state, "echo x", usual);
        start_with(&bad, *state, (struct process_options){.argv = missing});
        loop_run(*state);
        close_run(&good);
        close_run(&bad);
    }
    assert_int_equal(count_descriptors(), before);
}

static void test_signals_are_at_their_default(void **state)
{
    const char *const argv[] = {"/bin/grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status",
                                NULL};
    /* Signals 1 to 31; make leaves libc's own 32 and 33 ignored. */
    const unsigned long long classic = 0x7fffffff;
    unsigned long long mask;
    unsigned long long ignored;
    struct run run = {.lines = 0};
    sigset_t blocked;
    sigset_t before;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    start_with(&run, *state, (struct process_options){.argv = argv});
    sigprocmask(SIG_SETMASK, &before, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_int_equal(
        sscanf(output(&run), "SigBlk:\t%llx\nSigIgn:\t%llx\n", &mask, &ignored), 2);
    assert_int_equal(mask & classic, 0);
    assert_int_equal(ignored & classic, 0);
    close_run(&run);
}

static void test_session_and_group_of_its_own(void **state)
{
    struct run run = {.lines = 0};
    char wanted[64];

    start_shell(&run, *state, "read -r p c s pp g sid r </proc/self/stat; echo $g $sid",
                usual);
    snprintf(wanted, sizeof wanted, "%d %d\n", run.pid, run.pid);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_string_equal(output(&run), wanted);
    close_run(&run);
}

static void test_change_of_user(void **state)
{
    struct run run = {.lines = 0};
    struct process_options options = usual;

    if (getuid() != 0)
        skip();
    options.change_user = true;
    options.uid = 65533;
    options.gid = 65532;
    start_shell(&run, *state, "id -u; id -g; id -G; id -ru; id -rg", options);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_string_equal(output(&run), "65533\n65532\n65532\n65533\n65532\n");
    close_run(&run);
}

/* ---- how it can end ---- */

static void test_bad_exit_status_is_no_error(void **state)
{
    struct run run = {.lines = 0};

    start_shell(&run, *state, "exit 42", usual);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_int_equal(run.process.exit_status, 42);
    assert_int_equal(run.process.term_signal, 0);
    assert_reaped(&run);
    close_run(&run);
}

static void test_ended_by_a_signal(void **state)
{
    struct run run = {.lines = 0};

    start_shell(&run, *state, "kill -USR1 $$", usual);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_int_equal(run.process.exit_status, -1);
    assert_int_equal(run.process.term_signal, SIGUSR1);
    assert_reaped(&run);
    close_run(&run);
}

/* A library in this process that waits for children it knows nothing of. */
static void test_end_that_somebody_else_has_asked_for(void **state)
{
    struct run run = {.lines = 0};

    start_shell(&run, *state, "exit 0", usual);
    assert_int_equal(child_end(run.pid), 0);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_SYS,
                        "/bin/sh: how it ended cannot be learned: No child processes");
    assert_true(run.process.lost);
    assert_int_equal(run.process.exit_status, -1);
    assert_int_equal(run.process.term_signal, 0);
    close_run(&run);
}

static void assert_cannot_start(uv_loop_t *loop, struct process_options options,
                                int errnum, const char *part)
{
    struct run run = {.lines = 0};

    start_with(&run, loop, options);
    assert_int_equal(run.pid, 0);
    loop_run(loop);
    ended_assert_failed(&run.ended, ERR_SYS, part);
    assert_int_equal(run.ended.err.code, errnum);
    assert_int_equal(run.process.exit_status, -1);
    assert_int_equal(run.process.term_signal, 0);
    assert_string_equal(output(&run), "");
    /* No child is left but the helper. */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), spawn_helper_runs() ? 0 : -1);
    close_run(&run);
}

static void test_cannot_be_started(void **state)
{
    const char *const missing[] = {"/nonexistent/program", NULL};
    const char *const no_program[] = {"/etc/passwd", NULL};
    const char *const good[] = {"/bin/true", NULL};

    assert_cannot_start(*state, (struct process_options){.argv = missing}, ENOENT,
                        "cannot start /nonexistent/program: No such file");
    assert_cannot_start(*state, (struct process_options){.argv = no_program}, EACCES,
                        "cannot start /etc/passwd: Permission denied");
    assert_cannot_start(*state,
                        (struct process_options){.argv = good, .folder = "/nonexistent"},
                        ENOENT, "cannot start /bin/true in /nonexistent: ");
}

/* With no descriptor left, then one, then two …: each step of a start fails once. */
static void test_out_of_descriptors(void **state)
{
    const char *const argv[] = {"/bin/true", NULL};
    struct run first = {.lines = 0};
    struct rlimit before;
    struct rlimit low;
    int taken[64];
    unsigned failures = 0;
    int count = 0;

    start_shell(&first, *state, "exit 0", usual); /* libuv's own descriptors */
    loop_run(*state);
    close_run(&first);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = (struct rlimit){.rlim_cur = 64, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    while ((taken[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        count++;
    assert_true(count >= 10);
    for (int i = 0; i < 10; i++) {
        struct run run = {.lines = 0};

        start_with(&run, *state, (struct process_options){.argv = argv});
        loop_run(*state);
        if (run.ended.failed) {
            ended_assert_failed(&run.ended, ERR_SYS, "cannot start /bin/true: ");
            failures++;
        }
        close_run(&run);
        close(taken[--count]);
    }
    while (count > 0)
        close(taken[--count]);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_true(failures >= 4); /* two pipes of two ends */
    assert_true(failures < 10);
}

static void test_time_out(void **state)
{
    struct run run = {.lines = 0};
    struct process_options options = usual;

    options.timeout_ms = 20;
    start_shell(&run, *state, "exec sleep 1000", options);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_TIMEOUT, "/bin/sh: not finished within 20 ms");
    assert_int_equal(run.process.term_signal, SIGTERM);
    assert_reaped(&run);
    close_run(&run);
}

static void test_time_out_that_does_not_come(void **state)
{
    struct run run = {.lines = 0};
    struct process_options options = usual;

    options.timeout_ms = LONG_GRACE_MS;
    start_shell(&run, *state, "echo quick", options);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    close_run(&run);
}

static void test_time_out_of_one_that_ignores_sigterm(void **state)
{
    struct process_options options = {.term_grace_ms = SHORT_GRACE_MS, .timeout_ms = 50};
    bool was_ready = false;

    /* Again with more time if the child did not get as far as to ignore it. */
    for (; !was_ready; options.timeout_ms *= 2) {
        struct run run = {.lines = 0};

        start_shell(&run, *state, "trap '' TERM; echo ready; exec sleep 1000", options);
        loop_run(*state);
        ended_assert_failed(&run.ended, ERR_TIMEOUT, "not finished within");
        was_ready = run.lines > 0;
        if (was_ready)
            assert_int_equal(run.process.term_signal, SIGKILL);
        assert_reaped(&run);
        close_run(&run);
    }
}

/* As in a container without the capability KILL, and of a child that waits for a dead disk. */
static void test_one_that_cannot_be_ended_is_left_alone(void **state)
{
    struct run run = {.lines = 0};
    struct process_options options = {.term_grace_ms = SHORT_GRACE_MS, .timeout_ms = 50};
    uint32_t effective;

    if (getuid() != 0)
        skip();
    options.change_user = true;
    options.uid = options.gid = 65533;
    start_shell(&run, *state, "exec sleep 1000", options);
    effective = take_capability(CAP_KILL);
    loop_run(*state);
    set_capabilities(effective);
    ended_assert_failed(&run.ended, ERR_TIMEOUT,
                        "not finished within 50 ms, and process");
    assert_non_null(
        strstr(run.ended.err.message, "cannot be ended: Operation not permitted"));
    assert_true(run.process.left_alone);
    assert_int_equal(run.process.exit_status, -1);
    assert_int_equal(waitpid(run.pid, NULL, WNOHANG), 0);
    assert_int_equal(kill(run.pid, SIGKILL), 0);
    assert_int_equal(child_end(run.pid), SIGKILL);
    close_run(&run);
}

/* It is told once to end; that it exits well then does not undo the time-out. */
static void test_time_out_with_a_good_exit(void **state)
{
    struct process_options options = {.term_grace_ms = LONG_GRACE_MS, .timeout_ms = 50};
    bool was_ready = false;

    for (; !was_ready; options.timeout_ms *= 2) {
        struct run run = {.lines = 0};

        start_shell(&run, *state,
                    "trap 'echo bye; kill $!; exit 0' TERM; sleep 1000 & echo ready; "
                    "wait",
                    options);
        loop_run(*state);
        ended_assert_failed(&run.ended, ERR_TIMEOUT, "not finished within");
        was_ready = run.lines > 0;
        if (was_ready) {
            assert_int_equal(run.process.exit_status, 0);
            assert_string_equal(output(&run), "ready\nbye\n");
        }
        close_run(&run);
    }
}

/* ---- cancel ---- */

static void test_cancel_before_the_loop_runs(void **state)
{
    struct run run = {.lines = 0};

    start_shell(&run, *state, "exec sleep 1000", usual);
    process_cancel(&run.process);
    process_cancel(&run.process);
    assert_int_equal(run.ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "/bin/sh: canceled");
    assert_int_equal(run.process.term_signal, SIGTERM);
    assert_reaped(&run);
    close_run(&run);
}

static void test_cancel_of_a_failed_start(void **state)
{
    const char *const missing[] = {"/nonexistent/program", NULL};
    struct run run = {.lines = 0};

    start_with(&run, *state, (struct process_options){.argv = missing});
    process_cancel(&run.process);
    process_cancel(&run.process);
    assert_int_equal(run.ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "/nonexistent/program: canceled");
    close_run(&run);
}

static void test_cancel_of_one_that_ignores_sigterm(void **state)
{
    struct run run = {.cancel_on_line = true};
    struct process_options options = {.term_grace_ms = SHORT_GRACE_MS};

    start_shell(&run, *state, "trap '' TERM; echo ready; exec sleep 1000", options);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "canceled");
    assert_int_equal(run.process.term_signal, SIGKILL);
    assert_reaped(&run);
    close_run(&run);
}

static void test_cancel_of_a_stopped_one(void **state)
{
    struct run run = {.lines = 0};
    struct process_options options = {.term_grace_ms = 0};
    siginfo_t info;

    start_shell(&run, *state, "kill -STOP $$", options);
    assert_int_equal(waitid(P_PID, (id_t)run.pid, &info, WSTOPPED | WNOWAIT), 0);
    process_cancel(&run.process);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "canceled");
    assert_int_equal(run.process.term_signal, SIGKILL);
    assert_reaped(&run);
    close_run(&run);
}

/* A child that was told to end, and ended well, was canceled all the same. */
static void test_cancel_with_a_good_exit(void **state)
{
    struct run run = {.cancel_on_line = true};

    start_shell(&run, *state,
                "trap 'exit 0' TERM; echo ready; while :; do read x </dev/null; done",
                usual);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "canceled");
    assert_int_equal(run.process.exit_status, 0);
    close_run(&run);
}

static void cancel_when_exited(uv_check_t *check)
{
    struct run *run = check->data;

    if (has_exited(run)) {
        process_cancel(&run->process);
        uv_close((uv_handle_t *)check, NULL);
    }
}

/* After its exit was seen and before its handles have closed. */
static void test_cancel_between_exit_and_done(void **state)
{
    struct run run = {.lines = 0};
    uv_check_t check;

    uv_check_init(*state, &check);
    check.data = &run;
    uv_check_start(&check, cancel_when_exited);
    start_shell(&run, *state, "exit 0", usual);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "canceled");
    assert_int_equal(run.process.exit_status, 0);
    assert_reaped(&run);
    close_run(&run);
}

static void test_cancel_while_a_descendant_holds_the_pipes(void **state)
{
    struct run run = {.lines = 0};

    start_shell(&run, *state, "sleep 1000 & echo $!", usual);
    loop_run_until(*state, has_exited, &run);
    process_cancel(&run.process);
    assert_int_equal(run.ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "canceled");
    assert_int_equal(run.process.exit_status, 0);
    assert_int_equal(end_of_descendant(atoi(output(&run))), SIGKILL);
    close_run(&run);
}

static void test_cancel_after_done_and_of_a_zeroed_one(void **state)
{
    struct run run = {.lines = 0};
    struct process zeroed = {.exit_status = 0};

    start_shell(&run, *state, "exit 0", usual);
    loop_run(*state);
    process_cancel(&run.process);
    process_cancel(&run.process);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    close_run(&run);
    process_cancel(&zeroed);
    assert_int_equal(process_pid(&zeroed), 0);
    process_done(&zeroed);
}

/* ---- descendants ---- */

static void test_descendant_that_keeps_the_pipe_open(void **state)
{
    struct run run = {.lines = 0};

    start_shell(&run, *state, "sleep 1000 & echo $!; exit 7", usual);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_int_equal(run.process.exit_status, 7);
    assert_int_equal(end_of_descendant(atoi(output(&run))), SIGKILL);
    assert_reaped(&run);
    close_run(&run);
}

static void test_descendant_in_another_session(void **state)
{
    struct run run = {.lines = 0};
    pid_t pid;

    start_shell(&run, *state,
                "trap 'exit 0' USR1; "
                "setsid sh -c \"echo \\$\\$; kill -USR1 $$; exec sleep 1000\" & "
                "while :; do read x </dev/null; done",
                usual);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    pid = atoi(output(&run));
    assert_true(pid > 1);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0); /* beyond our reach, but no hang */
    kill(pid, SIGKILL);
    assert_int_equal(end_of_descendant(pid), SIGKILL);
    close_run(&run);
}

/* One that has let go of the pipes is none of our business. */
static void test_descendant_without_our_pipes_lives_on(void **state)
{
    struct run run = {.lines = 0};
    pid_t pid;

    start_shell(&run, *state, "sleep 1000 >/dev/null 2>&1 & echo $!", usual);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    pid = atoi(output(&run));
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    kill(pid, SIGKILL);
    assert_int_equal(end_of_descendant(pid), SIGKILL);
    close_run(&run);
}

static void test_cancel_ends_the_whole_group(void **state)
{
    struct run run = {.cancel_on_line = true};

    start_shell(&run, *state, "sleep 1000 & echo $!; wait", usual);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "canceled");
    assert_int_equal(run.process.term_signal, SIGTERM);
    /* Gone well before the grace time was over, and reaped where that is up to us. */
    assert_int_equal(kill(-run.pid, 0), -1);
    assert_int_equal(waitpid(atoi(output(&run)), NULL, WNOHANG), -1);
    close_run(&run);
}

/* The grace time is that of the group, not only of its leader. */
static void test_descendant_has_its_grace_time(void **state)
{
    struct run run = {.cancel_on_line = true};
    char path[] = "/tmp/test_process.XXXXXX";
    char script[512];
    struct buf found;
    struct err err = ERR_INIT;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
    /* It is ready only after its leader is gone and reaped. */
    snprintf(script, sizeof script,
             "(trap 'while kill -0 '$$'; do :; done; echo finished >%s; exit 0' TERM; "
             "echo ready; exec >/dev/null 2>&1; while :; do read x </dev/null; done) & "
             "wait",
             path);
    start_shell(&run, *state, script, usual);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "canceled");
    assert_int_equal(run.process.term_signal, SIGTERM);
    assert_int_equal(fs_read(path, 100, &found, &err), 0);
    assert_string_equal(buf_str(&found), "finished\n");
    buf_done(&found);
    unlink(path);
    close_run(&run);
}

static void test_silent_descendant_that_ignores_sigterm(void **state)
{
    struct run run = {.cancel_on_line = true};

    start_shell(&run, *state,
                "(trap '' TERM; exec sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1') & "
                "wait",
                (struct process_options){.term_grace_ms = SHORT_GRACE_MS});
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "canceled");
    assert_int_equal(end_of_descendant(atoi(output(&run))), SIGKILL);
    close_run(&run);
}

/* ---- output ---- */

static void test_much_output_is_bounded_and_read_to_the_end(void **state)
{
    struct run run = {.lines = 0};

    start_shell(&run, *state, "yes 0123456789abcde | head -c 10485760; echo done >&2",
                usual);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_int_equal(run.process.exit_status, 0);
    assert_int_equal(run.process.output[PROCESS_STDOUT].len, 4096);
    assert_true(run.process.output_cut[PROCESS_STDOUT]);
    assert_false(run.process.output_cut[PROCESS_STDERR]);
    assert_memory_equal(output(&run), "0123456789abcde\n", 16);
    assert_int_equal(run.lines, 10485760 / 16 + 1);
    assert_string_equal(run.last_line[PROCESS_STDERR], "done");
    close_run(&run);
}

static void test_output_of_exactly_the_maximum(void **state)
{
    struct run run = {.lines = 0};
    struct process_options options = usual;

    options.max_output = 4;
    start_shell(&run, *state, "printf abcd; printf abcde >&2", options);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_string_equal(output(&run), "abcd");
    assert_string_equal(buf_str(&run.process.output[PROCESS_STDERR]), "abcd");
    assert_false(run.process.output_cut[PROCESS_STDOUT]);
    assert_true(run.process.output_cut[PROCESS_STDERR]);
    close_run(&run);
}

static void test_endless_output_of_one_that_is_canceled(void **state)
{
    struct run run = {.cancel_on_line = true};

    start_shell(&run, *state, "trap '' TERM; exec yes",
                (struct process_options){.term_grace_ms = SHORT_GRACE_MS});
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "canceled");
    assert_int_equal(run.process.term_signal, SIGKILL);
    close_run(&run);
}

static void test_without_line_callback(void **state)
{
    const char *const argv[] = {"/bin/sh", "-c", "echo one; printf two", NULL};
    const struct process_options options = {
        .argv = argv, .environment = no_environment, .max_output = 100};
    struct run run = {.lines = 0};

    process_start(&run.process, *state, &options, ended_done, &run.ended);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_string_equal(output(&run), "one\ntwo");
    close_run(&run);
}

struct lines {
    char joined[256];
    size_t longest;
};

static void collect_line(void *owner, enum process_stream stream, const char *line)
{
    struct lines *lines = owner;
    size_t used = strlen(lines->joined);

    assert_int_equal(stream, PROCESS_STDOUT);
    assert_null(strchr(line, '\n'));
    if (strlen(line) > lines->longest)
        lines->longest = strlen(line);
    if (strlen(line) < 20)
        snprintf(lines->joined + used, sizeof lines->joined - used, "<%s>", line);
}

static void test_lines(void **state)
{
    const char *const argv[] = {"/bin/sh", "-c",
                                "printf 'one\\n\\ntwo\\r\\n'; "
                                "printf '%01500d\\n' 7; printf '%01000d\\n' 7; "
                                "printf 'a\\000b\\n'; printf 'spl'; printf 'it\\nlast'",
                                NULL};
    struct lines lines = {.longest = 0};
    struct process process;
    struct ended ended = {0};
    const struct process_options options = {.argv = argv,
                                            .environment = no_environment,
                                            .max_output = 10000,
                                            .on_line = collect_line,
                                            .line_owner = &lines};

    process_start(&process, *state, &options, ended_done, &ended);
    loop_run(*state);
    ended_assert_ok(&ended);
    assert_string_equal(lines.joined, "<one><><two><a?b><split><last>");
    assert_int_equal(lines.longest, 1000);
    process_done(&process);
}

/* ---- output to files ---- */

/* Where a test keeps files; made by file_setup. */
static char folder[] = "/tmp/test_process.XXXXXX";
static char out_path[64], err_path[64], ran_path[64];

static int file_setup(void **state)
{
    memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(out_path, sizeof out_path, "%s/out", folder);
    snprintf(err_path, sizeof err_path, "%s/err", folder);
    snprintf(ran_path, sizeof ran_path, "%s/ran", folder);
    return loop_setup(state);
}

static int file_teardown(void **state)
{
    struct err err = ERR_INIT;

    return fs_remove_tree(folder, &err) < 0 ? -1 : loop_teardown(state);
}

#define file_test(function)                                                              \
    cmocka_unit_test_setup_teardown(function, file_setup, file_teardown)

static struct process_options to_files(void)
{
    return (struct process_options){.term_grace_ms = LONG_GRACE_MS,
                                    .output_files = {out_path, err_path}};
}

static void assert_file(const char *path, const char *text)
{
    struct err err = ERR_INIT;
    BUF_SCOPED found = {0};

    assert_int_equal(fs_read(path, 4096, &found, &err), 0);
    assert_string_equal(buf_str(&found), text);
}

static void test_output_files(void **state)
{
    struct run run = {.lines = 0};
    struct stat status;

    start_shell(&run, *state, "echo out; echo err >&2; exit 3", to_files());
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_int_equal(run.process.exit_status, 3);
    assert_file(out_path, "out\n");
    assert_file(err_path, "err\n");
    assert_int_equal(stat(out_path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_string_equal(output(&run), "");
    assert_int_equal(run.lines, 0);
    assert_reaped(&run);
    close_run(&run);
}

static void test_output_file_that_is_there(void **state)
{
    const char *const argv[] = {"/bin/true", NULL};
    struct process_options options = to_files();

    options.argv = argv;
    assert_int_equal(symlink(ran_path, err_path), 0);
    assert_cannot_start(*state, options, EEXIST, "cannot start /bin/true: ");
    assert_false(fs_exists(ran_path));
}

static void test_descendants_do_not_outlive_a_child_with_files(void **state)
{
    struct run run = {.lines = 0};
    struct err err = ERR_INIT;
    BUF_SCOPED found = {0};

    start_shell(&run, *state, "sleep 1000 >/dev/null 2>&1 & echo $!", to_files());
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_int_equal(fs_read(out_path, 100, &found, &err), 0);
    assert_int_equal(end_of_descendant(atoi(buf_str(&found))), SIGKILL);
    close_run(&run);
}

static void test_time_out_of_a_child_with_files(void **state)
{
    struct run run = {.lines = 0};
    struct process_options options = to_files();

    options.timeout_ms = 20;
    start_shell(&run, *state, "exec sleep 1000", options);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_TIMEOUT, "not finished within 20 ms");
    assert_int_equal(run.process.term_signal, SIGTERM);
    close_run(&run);
}

/* ---- held children ---- */

static void start_held(struct run *run, uv_loop_t *loop, const char *script)
{
    struct process_options options = to_files();

    options.held = true;
    start_shell(run, loop, script, options);
}

static void test_held_child_begins_when_it_is_released(void **state)
{
    struct run run = {.lines = 0};
    struct stat status;
    char script[256];

    snprintf(script, sizeof script, "echo $$ >%s; readlink /proc/self/fd/0", ran_path);
    start_held(&run, *state, script);
    for (int i = 0; i < 50; i++) {
        uv_run(*state, UV_RUN_NOWAIT);
        assert_int_equal(usleep(1000), 0);
    }
    assert_false(fs_exists(ran_path));
    assert_int_equal(run.ended.times, 0);
    process_release(&run.process);
    process_release(&run.process);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_int_equal(run.process.exit_status, 0);
    snprintf(script, sizeof script, "%d\n", run.pid); /* the number it had while held */
    assert_file(ran_path, script);
    assert_file(out_path, "/dev/null\n");
    assert_int_equal(stat(err_path, &status), 0);
    assert_int_equal(status.st_size, 0);
    process_release(&run.process);
    close_run(&run);
}

static void test_environment_and_arguments_of_a_held_child(void **state)
{
    const char *const argv[] = {"/usr/bin/env", "THREE=$HOME \"'*", NULL};
    const char *const environment[] = {"ONE=1", "TWO=2 and more", NULL};
    struct process_options options = to_files();
    struct run run = {.lines = 0};

    options.argv = argv;
    options.environment = environment;
    options.folder = "/usr/lib";
    options.held = true;
    start_with(&run, *state, options);
    process_release(&run.process);
    loop_run(*state);
    ended_assert_ok(&run.ended);
    assert_file(out_path, "ONE=1\nTWO=2 and more\nTHREE=$HOME \"'*\n");
    assert_file(err_path, "");
    close_run(&run);
}

static void test_held_child_that_is_canceled_does_nothing(void **state)
{
    struct run run = {.lines = 0};
    char script[256];

    snprintf(script, sizeof script, "echo >%s", ran_path);
    start_held(&run, *state, script);
    process_cancel(&run.process);
    process_release(&run.process);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "/bin/sh: canceled");
    assert_false(fs_exists(ran_path));
    assert_reaped(&run);
    close_run(&run);
}

static void test_held_program_that_is_missing(void **state)
{
    const char *const argv[] = {"/nonexistent/program", NULL};
    struct process_options options = to_files();

    options.argv = argv;
    options.held = true;
    assert_cannot_start(*state, options, ENOENT,
                        "cannot start /nonexistent/program: No such file");
}

/* ---- our own death ---- */

/* Another process starts the script, maybe releases it, and is killed; the script's number. */
static pid_t orphan_of(const char *script, bool release)
{
    int ends[2];
    pid_t parent;
    pid_t child = 0;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    parent = fork();
    assert_true(parent >= 0);
    if (parent == 0) {
        struct run run = {.lines = 0};
        uv_loop_t loop;

        uv_loop_init(&loop);
        start_held(&run, &loop, script);
        if (release)
            process_release(&run.process);
        child = run.pid;
        if (write(ends[1], &child, sizeof child) == sizeof child)
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    assert_int_equal(end_of_descendant(parent), SIGKILL);
    assert_int_equal(read(ends[0], &child, sizeof child), sizeof child);
    close(ends[0]);
    close(ends[1]);
    return child;
}

static void test_child_with_files_outlives_us(void **state)
{
    char script[256];
    pid_t pid;

    (void)state;
    snprintf(script, sizeof script,
             "echo 1; while [ ! -e %s ]; do :; done; echo 2; echo 3 >&2", ran_path);
    pid = orphan_of(script, true);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    close(open(ran_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    assert_int_equal(end_of_descendant(pid), 0);
    assert_file(out_path, "1\n2\n");
    assert_file(err_path, "3\n");
}

static void test_held_child_ends_with_us(void **state)
{
    char script[256];

    (void)state;
    snprintf(script, sizeof script, "echo >%s", ran_path);
    assert_int_equal(end_of_descendant(orphan_of(script, false)), 0);
    assert_false(fs_exists(ran_path));
}

/* ---- done ---- */

struct again {
    struct process process;
    uv_loop_t *loop;
    int left;
};

static void on_again_done(void *owner, const struct err *err);

static void start_again(struct again *again)
{
    const char *const argv[] = {"/bin/true", NULL};
    const char *const missing[] = {"/nonexistent/program", NULL};
    const struct process_options options = {.argv = again->left % 2 ? argv : missing,
                                            .environment = no_environment,
                                            .max_output = 10};

    process_start(&again->process, again->loop, &options, on_again_done, again);
}

static void on_again_done(void *owner, const struct err *err)
{
    struct again *again = owner;

    process_done(&again->process);
    if (again->left-- > 0)
        start_again(again);
    else
        free(again);
    if (err != NULL) /* it outlives the operation */
        assert_non_null(strstr(err->message, "/nonexistent/program"));
}

static void test_done_may_restart_and_free(void **state)
{
    struct again *again = calloc(1, sizeof *again);

    assert_non_null(again);
    again->loop = *state;
    again->left = 4;
    start_again(again);
    loop_run(*state);
}

static void test_many_at_once(void **state)
{
    struct run runs[20] = {{.lines = 0}};

    for (int i = 0; i < 20; i++) {
        char script[64];

        snprintf(script, sizeof script, "echo %d; exit %d", i, i);
        start_shell(&runs[i], *state, script, usual);
    }
    loop_run(*state);
    for (int i = 0; i < 20; i++) {
        ended_assert_ok(&runs[i].ended);
        assert_int_equal(runs[i].process.exit_status, i);
        assert_int_equal(atoi(output(&runs[i])), i);
        assert_reaped(&runs[i]);
        close_run(&runs[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_output_and_exit_status),
        loop_test(test_environment_is_exact),
        loop_test(test_no_environment),
        loop_test(test_standard_input_is_empty),
        loop_test(test_output_opens_by_name),
        loop_test(test_folder),
        loop_test(test_no_descriptor_leaks),
        loop_test(test_we_keep_no_descriptor),
        loop_test(test_signals_are_at_their_default),
        loop_test(test_session_and_group_of_its_own),
        loop_test(test_change_of_user),
        loop_test(test_bad_exit_status_is_no_error),
        loop_test(test_ended_by_a_signal),
        loop_test(test_end_that_somebody_else_has_asked_for),
        loop_test(test_cannot_be_started),
        loop_test(test_out_of_descriptors),
        loop_test(test_time_out),
        loop_test(test_time_out_that_does_not_come),
        loop_test(test_time_out_of_one_that_ignores_sigterm),
        loop_test(test_one_that_cannot_be_ended_is_left_alone),
        loop_test(test_time_out_with_a_good_exit),
        loop_test(test_cancel_before_the_loop_runs),
        loop_test(test_cancel_of_a_failed_start),
        loop_test(test_cancel_of_one_that_ignores_sigterm),
        loop_test(test_cancel_of_a_stopped_one),
        loop_test(test_cancel_with_a_good_exit),
        loop_test(test_cancel_between_exit_and_done),
        loop_test(test_cancel_while_a_descendant_holds_the_pipes),
        loop_test(test_cancel_after_done_and_of_a_zeroed_one),
        loop_test(test_descendant_that_keeps_the_pipe_open),
        loop_test(test_descendant_in_another_session),
        loop_test(test_descendant_without_our_pipes_lives_on),
        loop_test(test_cancel_ends_the_whole_group),
        loop_test(test_descendant_has_its_grace_time),
        loop_test(test_silent_descendant_that_ignores_sigterm),
        loop_test(test_much_output_is_bounded_and_read_to_the_end),
        loop_test(test_output_of_exactly_the_maximum),
        loop_test(test_endless_output_of_one_that_is_canceled),
        loop_test(test_without_line_callback),
        loop_test(test_lines),
        file_test(test_output_files),
        file_test(test_output_file_that_is_there),
        file_test(test_descendants_do_not_outlive_a_child_with_files),
        file_test(test_time_out_of_a_child_with_files),
        file_test(test_held_child_begins_when_it_is_released),
        file_test(test_environment_and_arguments_of_a_held_child),
        file_test(test_held_child_that_is_canceled_does_nothing),
        file_test(test_held_program_that_is_missing),
        file_test(test_child_with_files_outlives_us),
        file_test(test_held_child_ends_with_us),
        loop_test(test_done_may_restart_and_free),
        loop_test(test_many_at_once),
    };

    /* Whoever starts the children must make no difference. */
    int failed = cmocka_run_group_tests(tests, group_setup, NULL);

    return failed +
           cmocka_run_group_tests_name("with a helper", tests, start_helper, end_helper);
}
