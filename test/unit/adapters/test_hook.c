#include "adapters/hook.h"

#include "base/log.h"
#include "support/loop.h"
#include "support/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* One hook, which is /bin/sh with a script of the test, run as whoever runs the test. */
struct run {
    struct settings settings;
    struct hook_environment environment;
    struct hook hook;
    struct ended ended;
};

static void start(struct run *run, uv_loop_t *loop, const char *script,
                  const char *timeout)
{
    const struct hook_news news = {.event = HOOK_ISSUED, .config = &run->settings.config};
    struct err err = ERR_INIT;
    char file[512];

    snprintf(file, sizeof file,
             "hooks: {on_issued: [/bin/sh, -c, '%s'], user: root, timeout: %s}\n", script,
             timeout);
    settings_load_good(&run->settings, file, NULL);
    assert_int_equal(hook_environment(&news, &run->environment, &err), 0);
    hook_start(&run->hook, loop, &run->settings.config, HOOK_ISSUED, &run->environment,
               ended_done, &run->ended);
    assert_int_equal(run->ended.times, 0);
}

static void release(struct run *run)
{
    hook_environment_done(&run->environment);
    settings_done(&run->settings);
}

static unsigned lines_said;

static size_t count_line(char *line, size_t size, const struct log_record *record)
{
    lines_said++;
    return (size_t)snprintf(line, size, "%s", record->text);
}

static bool has_said(void *owner)
{
    (void)owner;
    return lines_said > 0;
}

static void test_exit_code_decides(void **state)
{
    struct run good = {.ended.times = 0};
    struct run bad = {.ended.times = 0};

    start(&good, *state, "test $CERT_MANAGER_EVENT = issued && test -z $USER", "20s");
    start(&bad, *state, "exit 7", "20s");
    loop_run(*state);
    ended_assert_ok(&good.ended);
    ended_assert_failed(&bad.ended, ERR_PEER, "run: /bin/sh ended with exit code 7");
    release(&good);
    release(&bad);
}

static void test_signal_is_a_failure(void **state)
{
    struct run run = {.ended.times = 0};

    start(&run, *state, "kill -KILL $$", "20s");
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_PEER, "/bin/sh was ended by signal 9");
    release(&run);
}

static void test_time_limit(void **state)
{
    struct run run = {.ended.times = 0};

    start(&run, *state, "sleep 1000", "1s");
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_TIMEOUT, "hooks.timeout: ");
    release(&run);
}

static void test_cancel(void **state)
{
    struct run run = {.ended.times = 0};

    lines_said = 0;
    log_set_form(count_line);
    start(&run, *state, "echo begun; sleep 1000", "1h");
    loop_run_until(*state, has_said, NULL);
    log_set_form(NULL);
    hook_cancel(&run.hook);
    hook_cancel(&run.hook);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "run");
    release(&run);
}

static void test_cancel_before_it_runs(void **state)
{
    struct run run = {.ended.times = 0};

    start(&run, *state, "exit 0", "20s");
    hook_cancel(&run.hook);
    loop_run(*state);
    ended_assert_failed(&run.ended, ERR_CANCELED, "");
    release(&run);
}

static void test_output_is_bounded(void **state)
{
    struct run run = {.ended.times = 0};

    lines_said = 0;
    log_set_form(count_line);
    start(&run, *state, "i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done",
          "20s");
    loop_run(*state);
    log_set_form(NULL);
    ended_assert_ok(&run.ended);
    assert_int_equal(lines_said, 101);
    release(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_exit_code_decides),
        loop_test(test_signal_is_a_failure),
        loop_test(test_time_limit),
        loop_test(test_cancel),
        loop_test(test_cancel_before_it_runs),
        loop_test(test_output_is_bounded),
    };
    log_open(STDERR_FILENO, LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
