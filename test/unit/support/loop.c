#include "support/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LIMIT_MS = 30000, TICK_MS = 10 };

/* Whoever makes calls fail has tests that wait in vain: LOOP_LIMIT_MS. */
unsigned loop_limit_ms(void)
{
    const char *limit = getenv("LOOP_LIMIT_MS");

    return limit == NULL ? LIMIT_MS : (unsigned)strtoul(limit, NULL, 10);
}

int loop_setup(void **state)
{
    uv_loop_t *loop = malloc(sizeof *loop);

    assert_non_null(loop);
    assert_int_equal(uv_loop_init(loop), 0);
    *state = loop;
    return 0;
}

int loop_teardown(void **state)
{
    uv_loop_t *loop = *state;
    int status = uv_loop_close(loop);

    if (status != 0)
        uv_print_all_handles(loop, stderr);
    assert_int_equal(status, 0);
    free(loop);
    return 0;
}

struct limit {
    uint64_t at_ms; /* on the loop's clock */
    bool over;
};

static void on_tick(uv_timer_t *timer)
{
    struct limit *limit = timer->data;

    limit->over = uv_now(timer->loop) >= limit->at_ms;
}

static bool never(void *owner)
{
    (void)owner;
    return false;
}

/*
 * False when the loop ended before the condition was met. The ticks are for what comes to hold in a round that
 * then waits for something else: the condition is asked between rounds.
 */
static bool run(uv_loop_t *loop, bool (*condition)(void *owner), void *owner)
{
    uv_timer_t *ticks = malloc(sizeof *ticks);
    struct limit limit = {.over = false};
    bool alive = true;
    bool met;

    assert_non_null(ticks);
    uv_update_time(loop);
    limit.at_ms = uv_now(loop) + loop_limit_ms();
    uv_timer_init(loop, ticks);
    uv_timer_start(ticks, on_tick, TICK_MS, TICK_MS);
    uv_unref((uv_handle_t *)ticks);
    ticks->data = &limit;
    while (!(met = condition(owner)) && alive && !limit.over)
        alive = uv_run(loop, UV_RUN_ONCE) != 0;
    uv_close((uv_handle_t *)ticks, (uv_close_cb)free);
    uv_run(loop, UV_RUN_NOWAIT);
    if (limit.over) {
        uv_print_active_handles(loop, stderr);
        fail_msg("the loop is still busy after %u ms", loop_limit_ms());
    }
    return met;
}

void loop_run(uv_loop_t *loop)
{
    run(loop, never, NULL);
}

void loop_run_until(uv_loop_t *loop, bool (*condition)(void *owner), void *owner)
{
    if (run(loop, condition, owner))
        return;
    /* The torture looks for this one: a call that is forgotten is a defect, whatever failed. */
    if (condition == ended_once)
        fail_msg("the loop has ended, and the call has not");
    fail_msg("the loop has ended before the condition was met");
}

void ended_done(void *owner, const struct err *err)
{
    struct ended *ended = owner;

    ended->times++;
    ended->failed = err != NULL;
    if (err != NULL)
        ended->err = *err;
}

bool ended_once(void *owner)
{
    const struct ended *ended = owner;

    return ended->times > 0;
}

void ended_assert_ok(const struct ended *ended)
{
    assert_int_equal(ended->times, 1);
    if (ended->failed)
        fail_msg("failed: %s: %s", err_kind_name(ended->err.kind), ended->err.message);
}

void ended_assert_failed(const struct ended *ended, enum err_kind kind, const char *part)
{
    assert_int_equal(ended->times, 1);
    assert_true(ended->failed);
    if (strstr(ended->err.message, part) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", part, ended->err.message);
    assert_string_equal(err_kind_name(ended->err.kind), err_kind_name(kind));
}
