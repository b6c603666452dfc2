#include "runtime/timer.h"

#include "support/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

struct owner {
    struct timer timer;
    unsigned fired;
    unsigned closed;
    unsigned again; /* how often to set the timer from its own callback */
    bool in_call;   /* the test is inside a function of the timer */
};

static void on_fired(void *owner)
{
    struct owner *o = owner;

    assert_false(o->in_call);
    o->fired++;
    if (o->again > 0) {
        o->again--;
        timer_set(&o->timer, 0);
    }
}

static void on_closed(void *owner)
{
    struct owner *o = owner;

    assert_false(o->in_call);
    o->closed++;
}

static void close_timer(struct owner *o)
{
    o->in_call = true;
    timer_close(&o->timer, on_closed);
    o->in_call = false;
}

static void test_fires_once(void **state)
{
    uv_loop_t *loop = *state;
    struct owner o = {.fired = 0};
    uint64_t start = uv_now(loop);

    timer_init(&o.timer, loop, on_fired, &o);
    timer_set(&o.timer, 20);
    loop_run(loop);
    assert_int_equal(o.fired, 1);
    assert_true(uv_now(loop) - start >= 20);
    close_timer(&o);
    loop_run(loop);
    assert_int_equal(o.closed, 1);
    assert_int_equal(o.fired, 1);
}

static void test_zero_fires_later_not_at_once(void **state)
{
    struct owner o = {.in_call = true};

    timer_init(&o.timer, *state, on_fired, &o);
    timer_set(&o.timer, 0);
    o.in_call = false;
    assert_int_equal(o.fired, 0);
    loop_run(*state);
    assert_int_equal(o.fired, 1);
    close_timer(&o);
    loop_run(*state);
}

static void test_set_again_replaces(void **state)
{
    struct owner o = {.fired = 0};

    timer_init(&o.timer, *state, on_fired, &o);
    timer_set(&o.timer, 1000000);
    timer_set(&o.timer, 1);
    loop_run(*state);
    assert_int_equal(o.fired, 1);
    timer_set(&o.timer, 1); /* and after it has fired */
    loop_run(*state);
    assert_int_equal(o.fired, 2);
    close_timer(&o);
    loop_run(*state);
}

static void test_stopped_does_not_fire(void **state)
{
    struct owner o = {.fired = 0};

    timer_init(&o.timer, *state, on_fired, &o);
    timer_stop(&o.timer); /* before it was ever set */
    timer_set(&o.timer, 1);
    timer_stop(&o.timer);
    timer_stop(&o.timer);
    loop_run(*state);
    assert_int_equal(o.fired, 0);
    close_timer(&o);
    loop_run(*state);
}

static void test_is_set_until_it_fires_or_is_stopped(void **state)
{
    struct owner o = {.fired = 0};

    timer_init(&o.timer, *state, on_fired, &o);
    assert_false(timer_is_set(&o.timer));
    timer_set(&o.timer, 1);
    assert_true(timer_is_set(&o.timer));
    loop_run(*state);
    assert_false(timer_is_set(&o.timer));
    timer_set(&o.timer, 1000000);
    timer_stop(&o.timer);
    assert_false(timer_is_set(&o.timer));
    close_timer(&o);
    loop_run(*state);
}

static void test_closed_does_not_fire(void **state)
{
    struct owner o = {.fired = 0};

    timer_init(&o.timer, *state, on_fired, &o);
    timer_set(&o.timer, 0);
    close_timer(&o);
    loop_run(*state);
    assert_int_equal(o.fired, 0);
    assert_int_equal(o.closed, 1);
}

static void test_closed_may_be_null(void **state)
{
    struct owner o = {.fired = 0};

    timer_init(&o.timer, *state, on_fired, &o);
    timer_close(&o.timer, NULL);
    loop_run(*state);
    assert_int_equal(o.closed, 0);
}

static void test_closed_may_free_the_owner(void **state)
{
    struct owner *o = calloc(1, sizeof *o);

    assert_non_null(o);
    timer_init(&o->timer, *state, on_fired, o);
    timer_close(&o->timer, free);
    loop_run(*state);
}

static void on_round(uv_idle_t *idle)
{
    unsigned *rounds = idle->data;

    if (++*rounds == 3)
        uv_close((uv_handle_t *)idle, NULL);
}

static bool three_rounds(void *owner)
{
    const unsigned *rounds = owner;

    return *rounds >= 3;
}

/* Fails by its time limit when a timer of 0 fires in the round in which it was set. */
static void test_zero_leaves_others_their_turn(void **state)
{
    struct owner o = {.again = UINT32_MAX};
    uv_idle_t idle;
    unsigned rounds = 0;

    uv_idle_init(*state, &idle);
    idle.data = &rounds;
    uv_idle_start(&idle, on_round);
    timer_init(&o.timer, *state, on_fired, &o);
    timer_set(&o.timer, 0);
    loop_run_until(*state, three_rounds, &rounds);
    close_timer(&o);
    loop_run(*state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_fires_once),
        loop_test(test_zero_fires_later_not_at_once),
        loop_test(test_set_again_replaces),
        loop_test(test_stopped_does_not_fire),
        loop_test(test_is_set_until_it_fires_or_is_stopped),
        loop_test(test_closed_does_not_fire),
        loop_test(test_closed_may_be_null),
        loop_test(test_closed_may_free_the_owner),
        loop_test(test_zero_leaves_others_their_turn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
