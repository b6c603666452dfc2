#include "runtime/spawn.h"

#include "support/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const no_environment[] = {NULL};

static int group_setup(void **state)
{
    (void)state;
    return prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static void start_helper(void)
{
    struct err err = ERR_INIT;

    assert_int_equal(spawn_helper_start(&err), 0);
    assert_true(spawn_helper_runs());
}

/* What the shell has written, and how it ended. */
static int run_shell(const char *script, char *ret, size_t size)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    struct spawn_plan plan = {.argv = argv, .environment = no_environment};
    int status = 0;
    int ends[2];
    ssize_t got;
    size_t used = 0;
    pid_t pid;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    plan.fds[0] = -1;
    plan.fds[1] = ends[1];
    plan.fds[2] = ends[1];
    assert_int_equal(spawn(&plan, &pid), 0);
    close(ends[1]);
    while ((got = read(ends[0], ret + used, size - 1 - used)) > 0)
        used += (size_t)got;
    ret[used] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

/* The one child that is left. */
static pid_t helper_pid(void)
{
    char text[256];
    FILE *children = fopen("/proc/thread-self/children", "re");
    int pid = 0;

    assert_non_null(children);
    assert_non_null(fgets(text, sizeof text, children));
    fclose(children);
    assert_int_equal(sscanf(text, "%d", &pid), 1);
    return pid;
}

static void file_of(pid_t pid, const char *name, char *ret, size_t size)
{
    char path[64];
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    file = fopen(path, "re");
    assert_non_null(file);
    memset(ret, 0, size);
    assert_true(fread(ret, 1, size - 1, file) > 0);
    fclose(file);
}

static void its_children_are_ours(void **state)
{
    char text[64];
    char wanted[64];

    (void)state;
    start_helper();
    assert_int_equal(run_shell("echo $PPID; exit 7", text, sizeof text), 7);
    snprintf(wanted, sizeof wanted, "%d\n", getpid());
    assert_string_equal(text, wanted);
    spawn_helper_end();
}

/* What we forbid ourselves afterwards is none of theirs. */
static void its_children_do_not_inherit_what_came_later(void **state)
{
    static const char script[] = "grep NoNewPrivs /proc/self/status";
    char text[64];
    int status = 0;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        start_helper();
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            _exit(2);
        run_shell(script, text, sizeof text);
        _exit(strcmp(text, "NoNewPrivs:\t0\n") == 0 ? 0 : 1);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 0);
    while (waitpid(-1, NULL, 0) > 0) /* the helper of that one */
        continue;
}

static void it_has_a_name_of_its_own_and_nothing_of_ours(void **state)
{
    enum { HIGH = 50 };
    int held = fcntl(STDERR_FILENO, F_DUPFD, HIGH); /* not close-on-exec */
    char text[4096];
    char path[64];
    pid_t pid;

    (void)state;
    start_helper();
    pid = helper_pid();
    file_of(pid, "cmdline", text, sizeof text);
    assert_string_equal(text, "cert-manager: starts programs");
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, held);
    assert_int_equal(access(path, F_OK), -1);
    for (int fd = 0; fd < SPAWN_FDS; fd++) {
        char target[64] = "";

        snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
        assert_true(readlink(path, target, sizeof target - 1) > 0);
        assert_string_equal(target, "/dev/null");
    }
    close(held);
    spawn_helper_end();
}

static void it_ends_with_us(void **state)
{
    pid_t us = fork();
    int status = 0;
    pid_t pid;

    (void)state;
    if (us == 0) {
        start_helper();
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(us, &status, 0), us);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    pid = waitpid(-1, &status, 0); /* it is ours now */
    assert_true(pid > 0);
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void signals_to_the_group_leave_it_alone(void **state)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGQUIT};
    char text[64];

    (void)state;
    start_helper();
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        kill(helper_pid(), signals[i]);
    assert_int_equal(run_shell("echo here", text, sizeof text), 0);
    assert_string_equal(text, "here\n");
    spawn_helper_end();
}

static void note_gone(void *owner)
{
    *(bool *)owner = true;
}

static bool is_noted(void *owner)
{
    return *(bool *)owner;
}

static void its_death_is_told_and_is_an_error(void **state)
{
    const char *const argv[] = {"/bin/true", NULL};
    const struct spawn_plan plan = {
        .argv = argv, .environment = no_environment, .fds = {-1, -1, -1}};
    struct spawn_watch watch;
    bool gone = false;
    pid_t pid = 1;

    start_helper();
    spawn_watch_start(&watch, *state, note_gone, &gone);
    kill(helper_pid(), SIGKILL);
    loop_run_until(*state, is_noted, &gone);
    assert_int_not_equal(spawn(&plan, &pid), 0);
    assert_int_equal(pid, 0);
    spawn_watch_close(&watch);
    loop_run(*state);
    spawn_helper_end();
    assert_false(spawn_helper_runs());
    assert_int_equal(spawn(&plan, &pid), 0); /* without one */
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void a_request_that_is_too_large_is_refused(void **state)
{
    enum { HUGE_BYTES = 200 * 1000 };
    char *huge = calloc(1, HUGE_BYTES);
    const char *const argv[] = {"/bin/true", huge, NULL};
    const struct spawn_plan plan = {
        .argv = argv, .environment = no_environment, .fds = {-1, -1, -1}};
    char text[64];
    pid_t pid;

    (void)state;
    assert_non_null(huge);
    memset(huge, 'x', HUGE_BYTES - 1);
    start_helper();
    assert_int_equal(spawn(&plan, &pid), E2BIG);
    assert_int_equal(run_shell("echo still", text, sizeof text), 0);
    assert_string_equal(text, "still\n");
    spawn_helper_end();
    free(huge);
}

static void a_program_that_cannot_begin_leaves_no_child(void **state)
{
    const char *const argv[] = {"/nonexistent/program", NULL};
    const struct spawn_plan plan = {
        .argv = argv, .environment = no_environment, .fds = {-1, -1, -1}};
    pid_t pid = 1;

    (void)state;
    start_helper();
    assert_int_equal(spawn(&plan, &pid), ENOENT);
    assert_int_equal(pid, 0);
    spawn_helper_end();
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_children_are_ours),
        cmocka_unit_test(its_children_do_not_inherit_what_came_later),
        cmocka_unit_test(it_has_a_name_of_its_own_and_nothing_of_ours),
        cmocka_unit_test(it_ends_with_us),
        cmocka_unit_test(signals_to_the_group_leave_it_alone),
        loop_test(its_death_is_told_and_is_an_error),
        cmocka_unit_test(a_request_that_is_too_large_is_refused),
        cmocka_unit_test(a_program_that_cannot_begin_leaves_no_child),
    };

    return cmocka_run_group_tests(tests, group_setup, NULL);
}
