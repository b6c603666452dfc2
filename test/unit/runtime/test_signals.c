#include "runtime/signals.h"

#include "support/loop.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

static const int numbers[] = {SIGHUP, SIGUSR1, 0};

struct owner {
    struct signals signals;
    unsigned came;
    int last;
    bool closes; /* with the first */
};

static void on_came(void *owner, int number)
{
    struct owner *o = owner;

    o->came++;
    o->last = number;
    if (o->closes)
        signals_close(&o->signals);
}

static bool has_come(void *owner)
{
    return ((struct owner *)owner)->came > 0;
}

static void start(struct owner *o, uv_loop_t *loop)
{
    struct err err = ERR_INIT;

    assert_int_equal(signals_start(&o->signals, loop, numbers, on_came, o, &err), 0);
}

static void test_each_is_told_by_its_number(void **state)
{
    struct owner o = {0};

    start(&o, *state);
    kill(getpid(), SIGUSR1);
    loop_run_until(*state, has_come, &o);
    assert_int_equal(o.last, SIGUSR1);
    o.came = 0;
    kill(getpid(), SIGHUP);
    loop_run_until(*state, has_come, &o);
    assert_int_equal(o.last, SIGHUP);
    signals_close(&o.signals);
    loop_run(*state);
}

/* What comes between two loops would end the process, or be lost. */
static void test_one_that_comes_when_nobody_listens_waits(void **state)
{
    struct owner first = {.closes = true};
    struct owner second = {0};

    start(&first, *state);
    kill(getpid(), SIGHUP);
    kill(getpid(), SIGUSR1);
    loop_run(*state);
    assert_int_equal(first.came, 1);
    kill(getpid(), first.last == SIGHUP ? SIGHUP : SIGUSR1);
    start(&second, *state);
    loop_run_until(*state, has_come, &second);
    while (second.came < 2)
        uv_run(*state, UV_RUN_ONCE);
    signals_close(&second.signals);
    loop_run(*state);
    assert_int_equal(second.came, 2);
}

static void test_many_of_one_number_are_one(void **state)
{
    struct owner o = {0};

    start(&o, *state);
    for (int i = 0; i < 100; i++)
        kill(getpid(), SIGHUP);
    loop_run_until(*state, has_come, &o);
    uv_run(*state, UV_RUN_NOWAIT);
    assert_int_equal(o.came, 1);
    signals_close(&o.signals);
    loop_run(*state);
}

static void on_exit_of_child(uv_process_t *child, int64_t status, int signal_number)
{
    (void)status;
    *(int *)child->data = signal_number;
    uv_close((uv_handle_t *)child, NULL);
}

static void test_children_are_not_deaf(void **state)
{
    struct owner o = {0};
    char *arguments[] = {(char[]){"sleep"}, (char[]){"30"}, NULL};
    uv_process_options_t options = {
        .file = "sleep", .args = arguments, .exit_cb = on_exit_of_child};
    uv_process_t child;
    int ended_by = 0;

    start(&o, *state);
    child.data = &ended_by;
    assert_int_equal(uv_spawn(*state, &child, &options), 0);
    kill(child.pid, SIGHUP);
    signals_close(&o.signals);
    loop_run(*state);
    assert_int_equal(ended_by, SIGHUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_each_is_told_by_its_number),
        loop_test(test_one_that_comes_when_nobody_listens_waits),
        loop_test(test_many_of_one_number_are_one),
        loop_test(test_children_are_not_deaf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
