#include "runtime/delay.h"

#include "support/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LONG_MS = 1000000 };

struct owner {
    struct delay delay;
    struct ended ended;
    bool in_call; /* the test is inside a function of the delay */
    unsigned again;
    bool cancel_in_done;
};

static void on_done(void *owner, const struct err *err)
{
    struct owner *o = owner;

    assert_false(o->in_call);
    assert_true(uv_is_closing((uv_handle_t *)&o->delay.timer.handle));
    ended_done(&o->ended, err);
    if (o->cancel_in_done)
        delay_cancel(&o->delay);
}

static void start(struct owner *o, uv_loop_t *loop, uint64_t delay_ms)
{
    o->in_call = true;
    delay_start(&o->delay, loop, delay_ms, on_done, o);
    o->in_call = false;
}

static void cancel(struct owner *o)
{
    o->in_call = true;
    delay_cancel(&o->delay);
    o->in_call = false;
}

static void test_ends_once_after_its_time(void **state)
{
    uv_loop_t *loop = *state;
    struct owner o = {.again = 0};
    uint64_t begin = uv_now(loop);

    start(&o, loop, 20);
    loop_run(loop);
    ended_assert_ok(&o.ended);
    assert_true(uv_now(loop) - begin >= 20);
}

static void test_no_time_ends_later_not_at_once(void **state)
{
    struct owner o = {.again = 0};

    start(&o, *state, 0);
    assert_int_equal(o.ended.times, 0);
    loop_run(*state);
    ended_assert_ok(&o.ended);
}

static void test_canceled_at_once(void **state)
{
    uv_loop_t *loop = *state;
    struct owner o = {.again = 0};
    uint64_t begin = uv_now(loop);

    start(&o, loop, LONG_MS);
    cancel(&o);
    assert_int_equal(o.ended.times, 0);
    loop_run(loop);
    ended_assert_failed(&o.ended, ERR_CANCELED, "canceled");
    assert_true(uv_now(loop) - begin < LONG_MS);
}

static void test_canceled_before_no_time_is_over(void **state)
{
    struct owner o = {.again = 0};

    start(&o, *state, 0);
    cancel(&o);
    loop_run(*state);
    ended_assert_failed(&o.ended, ERR_CANCELED, "canceled");
}

static void test_canceled_while_it_runs(void **state)
{
    struct owner o = {.again = 0};

    start(&o, *state, LONG_MS);
    uv_run(*state, UV_RUN_NOWAIT);
    cancel(&o);
    loop_run(*state);
    ended_assert_failed(&o.ended, ERR_CANCELED, "canceled");
}

static void test_canceled_again_and_again(void **state)
{
    struct owner o = {.again = 0};

    start(&o, *state, LONG_MS);
    for (int i = 0; i < 3; i++)
        cancel(&o);
    uv_run(*state, UV_RUN_NOWAIT);
    cancel(&o);
    loop_run(*state);
    cancel(&o);
    loop_run(*state);
    ended_assert_failed(&o.ended, ERR_CANCELED, "canceled");
}

/* Runs after the timers of a round and before its handles are closed. */
static void on_check(uv_check_t *check)
{
    struct owner *o = check->data;

    if (!uv_is_closing((uv_handle_t *)&o->delay.timer.handle))
        return;
    assert_int_equal(o->ended.times, 0);
    cancel(o);
    uv_close((uv_handle_t *)check, NULL);
}

/* Its time is over and its handle closes: to cancel it comes too late. */
static void test_canceled_while_it_ends(void **state)
{
    struct owner o = {.again = 0};
    uv_check_t check;

    uv_check_init(*state, &check);
    uv_check_start(&check, on_check);
    check.data = &o;
    start(&o, *state, 0);
    loop_run(*state);
    ended_assert_ok(&o.ended);
}

static void test_canceled_from_its_own_end(void **state)
{
    struct owner o = {.cancel_in_done = true};

    start(&o, *state, 0);
    loop_run(*state);
    ended_assert_ok(&o.ended);
}

static void restart(void *owner, const struct err *err)
{
    struct owner *o = owner;

    ended_done(&o->ended, err);
    if (o->again-- > 0)
        delay_start(&o->delay, o->delay.timer.handle.loop, 0, restart, o);
}

static void test_started_again_from_its_own_end(void **state)
{
    struct owner o = {.again = 3};

    delay_start(&o.delay, *state, 0, restart, &o);
    loop_run(*state);
    assert_int_equal(o.ended.times, 4);
    assert_false(o.ended.failed);
}

static void free_owner(void *owner, const struct err *err)
{
    (void)err;
    free(owner);
}

static void test_its_end_may_free_it(void **state)
{
    struct owner *waits = calloc(1, sizeof *waits);
    struct owner *canceled = calloc(1, sizeof *canceled);

    assert_non_null(waits);
    assert_non_null(canceled);
    delay_start(&waits->delay, *state, 1, free_owner, waits);
    delay_start(&canceled->delay, *state, LONG_MS, free_owner, canceled);
    delay_cancel(&canceled->delay);
    loop_run(*state);
}

static void test_delays_do_not_disturb_each_other(void **state)
{
    struct owner shorter = {.again = 0};
    struct owner longer = {.again = 0};

    start(&shorter, *state, 1);
    start(&longer, *state, LONG_MS);
    loop_run_until(*state, ended_once, &shorter.ended);
    ended_assert_ok(&shorter.ended);
    assert_int_equal(longer.ended.times, 0);
    cancel(&longer);
    loop_run(*state);
    ended_assert_ok(&shorter.ended);
    ended_assert_failed(&longer.ended, ERR_CANCELED, "canceled");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_ends_once_after_its_time),
        loop_test(test_no_time_ends_later_not_at_once),
        loop_test(test_canceled_at_once),
        loop_test(test_canceled_before_no_time_is_over),
        loop_test(test_canceled_while_it_runs),
        loop_test(test_canceled_again_and_again),
        loop_test(test_canceled_while_it_ends),
        loop_test(test_canceled_from_its_own_end),
        loop_test(test_started_again_from_its_own_end),
        loop_test(test_its_end_may_free_it),
        loop_test(test_delays_do_not_disturb_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
