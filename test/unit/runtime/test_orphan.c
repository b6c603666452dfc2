#include "runtime/orphan.h"

#include "support/child.h"
#include "support/loop.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cmocka.h>

/*
 * The processes are children of this one after all, as nobody else would reap them; the module
 * does not know. Each leads a group.
 */
static const struct orphan_limits patient = {.timeout_ms = 60000, .term_grace_ms = 20000};

/* Runs the script, and returns when it has written a line. */
static struct process_name start_shell(const char *script)
{
    struct process_name name;
    struct err err = ERR_INIT;
    char line;
    int ends[2];
    pid_t pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setpgid(0, 0);
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &line, 1), 1);
    close(ends[0]);
    assert_int_equal(process_name_read(pid, &name, &err), 0);
    assert_int_equal(name.pid, pid);
    return name;
}

static void wait_until_dead(const struct process_name *name)
{
    uint64_t limit_ns = uv_hrtime() + (uint64_t)loop_limit_ms() * 1000000;

    while (process_name_lives(name) && uv_hrtime() < limit_ns)
        usleep(1000);
    assert_false(process_name_lives(name));
}

struct watched {
    struct orphan orphan;
    struct ended ended;
};

static void watch(struct watched *watched, uv_loop_t *loop,
                  const struct process_name *name, struct orphan_limits limits)
{
    *watched = (struct watched){.ended = {.times = 0}};
    orphan_start(&watched->orphan, loop, name, &limits, ended_done, &watched->ended);
    assert_int_equal(watched->ended.times, 0);
}

/* ---- names ---- */

static void test_name_of_a_process(void **state)
{
    struct process_name self;
    struct process_name other;
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(process_name_read(getpid(), &self, &err), 0);
    assert_int_equal(self.pid, getpid());
    assert_true(self.started > 0);
    assert_true(process_name_lives(&self));
    assert_true(process_name_age_ms(&self) < 60000);
    other = self;
    other.started++;
    assert_false(process_name_lives(&other));
    other = self;
    other.pid = 0x7ffffffe;
    assert_false(process_name_lives(&other));
    assert_int_equal(process_name_read(0x7ffffffe, &other, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(err.code, ENOENT);
}

/* A program may call itself what it likes, also what looks like the fields behind the name. */
static void test_name_with_brackets_and_blanks(void **state)
{
    struct process_name before;
    struct process_name after;
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(process_name_read(getpid(), &before, &err), 0);
    assert_int_equal(prctl(PR_SET_NAME, ") Z 1 1 (x) 1"), 0);
    assert_int_equal(process_name_read(getpid(), &after, &err), 0);
    assert_true(process_name_lives(&before));
    assert_int_equal(prctl(PR_SET_NAME, "test_orphan"), 0);
    assert_int_equal(before.started, after.started);
}

static void test_numbers_that_are_no_single_process(void **state)
{
    (void)state;
    for (pid_t pid = -2; pid <= 1; pid++) {
        const struct process_name name = {.pid = pid, .started = 1};

        assert_false(process_name_lives(&name));
    }
}

static void test_one_that_was_not_reaped_is_gone(void **state)
{
    struct process_name name = start_shell("echo; exec sleep 1000");

    (void)state;
    assert_true(process_name_lives(&name));
    kill(name.pid, SIGKILL);
    wait_until_dead(&name);
    assert_int_equal(child_end(name.pid), SIGKILL);
}

/* ---- waiting ---- */

static void test_it_ends_by_itself(void **state)
{
    struct process_name name = start_shell("echo; exec sleep 0.2");
    struct watched watched;

    watch(&watched, *state, &name, patient);
    loop_run(*state);
    ended_assert_ok(&watched.ended);
    assert_int_equal(child_end(name.pid), 0);
    orphan_cancel(&watched.orphan);
}

static void test_it_has_ended_long_ago(void **state)
{
    struct process_name name = start_shell("echo");
    struct watched watched;

    assert_int_equal(child_end(name.pid), 0);
    watch(&watched, *state, &name, (struct orphan_limits){.timeout_ms = 0});
    loop_run(*state);
    ended_assert_ok(&watched.ended);
}

/* Its number was given away again: that process is none of our business. */
static void test_another_process_has_its_number(void **state)
{
    struct process_name name = start_shell("echo; exec sleep 1000");
    const struct process_name former = {.pid = name.pid, .started = name.started - 1};
    struct watched watched;

    watch(&watched, *state, &former, (struct orphan_limits){.timeout_ms = 0});
    loop_run(*state);
    ended_assert_ok(&watched.ended);
    watch(&watched, *state, &former, patient);
    orphan_cancel(&watched.orphan);
    loop_run(*state);
    ended_assert_failed(&watched.ended, ERR_CANCELED, "canceled");
    assert_true(process_name_lives(&name));
    kill(name.pid, SIGKILL);
    assert_int_equal(child_end(name.pid), SIGKILL);
}

/* ---- ending it ---- */

static void test_time_out(void **state)
{
    struct process_name name = start_shell("echo; exec sleep 1000");
    struct watched watched;

    watch(&watched, *state, &name,
          (struct orphan_limits){.timeout_ms = 300, .term_grace_ms = 20000});
    loop_run(*state);
    ended_assert_failed(&watched.ended, ERR_TIMEOUT, "not finished within 300 ms");
    assert_int_equal(child_end(name.pid), SIGTERM);
}

/* The time counts from its start, and not from the start of the watch. */
static void test_time_that_is_over_already(void **state)
{
    struct process_name name = start_shell("echo; exec sleep 1000");
    struct watched watched;

    while (process_name_age_ms(&name) < 300)
        usleep(1000);
    watch(&watched, *state, &name,
          (struct orphan_limits){.timeout_ms = 300, .term_grace_ms = 20000});
    assert_int_equal(watched.orphan.deadline_ms, uv_now(*state));
    loop_run(*state);
    ended_assert_failed(&watched.ended, ERR_TIMEOUT, "not finished within 300 ms");
    assert_int_equal(child_end(name.pid), SIGTERM);
}

static void test_one_that_ignores_sigterm(void **state)
{
    struct process_name name =
        start_shell("trap '' TERM; echo; while :; do sleep 0.01; done");
    struct watched watched;

    watch(&watched, *state, &name,
          (struct orphan_limits){.timeout_ms = 0, .term_grace_ms = 50});
    loop_run(*state);
    ended_assert_failed(&watched.ended, ERR_TIMEOUT, "not finished");
    assert_int_equal(child_end(name.pid), SIGKILL);
}

static void test_cancel(void **state)
{
    struct process_name name = start_shell("echo; exec sleep 1000");
    struct watched watched;

    watch(&watched, *state, &name, patient);
    orphan_cancel(&watched.orphan);
    orphan_cancel(&watched.orphan);
    assert_int_equal(watched.ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&watched.ended, ERR_CANCELED, "canceled");
    assert_int_equal(child_end(name.pid), SIGTERM);
    orphan_cancel(&watched.orphan);
}

/* What it started goes with it, also what does not hear SIGTERM. */
static void test_its_group_is_ended(void **state)
{
    struct process_name name =
        start_shell("sh -c 'trap \"\" TERM; echo; exec sleep 1000 >/dev/null' & wait");
    struct watched watched;

    watch(&watched, *state, &name,
          (struct orphan_limits){.timeout_ms = 0, .term_grace_ms = 20000});
    loop_run(*state);
    ended_assert_failed(&watched.ended, ERR_TIMEOUT, "not finished");
    assert_int_equal(child_end(name.pid), SIGTERM);
    assert_int_equal(child_end(-name.pid), SIGKILL); /* adopted by this process */
    assert_int_equal(kill(-name.pid, 0), -1);
}

/* One that leads no group shares another one's, maybe ours. */
static void test_the_group_of_others_is_left_alone(void **state)
{
    struct process_name name;
    struct watched watched;
    struct err err = ERR_INIT;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        pause();
        _exit(0);
    }
    assert_int_equal(process_name_read(pid, &name, &err), 0);
    watch(&watched, *state, &name,
          (struct orphan_limits){.timeout_ms = 0, .term_grace_ms = 20000});
    loop_run(*state);
    ended_assert_failed(&watched.ended, ERR_TIMEOUT, "not finished");
    assert_int_equal(child_end(pid), SIGTERM);
}

static int group_setup(void **state)
{
    (void)state;
    return prctl(PR_SET_CHILD_SUBREAPER, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_name_of_a_process),
        cmocka_unit_test(test_name_with_brackets_and_blanks),
        cmocka_unit_test(test_numbers_that_are_no_single_process),
        cmocka_unit_test(test_one_that_was_not_reaped_is_gone),
        loop_test(test_it_ends_by_itself),
        loop_test(test_it_has_ended_long_ago),
        loop_test(test_another_process_has_its_number),
        loop_test(test_time_out),
        loop_test(test_time_that_is_over_already),
        loop_test(test_one_that_ignores_sigterm),
        loop_test(test_cancel),
        loop_test(test_its_group_is_ended),
        loop_test(test_the_group_of_others_is_left_alone),
    };

    return cmocka_run_group_tests(tests, group_setup, NULL);
}
