/*
 * loop: a libuv loop for one test, as a cmocka fixture: loop_setup makes it the test's
 * state, loop_teardown fails the test unless the loop closes, that is, unless no handle
 * is left.
 */
#ifndef TEST_SUPPORT_LOOP_H
#define TEST_SUPPORT_LOOP_H

#include "base/err.h"

#include <stdbool.h>
#include <uv.h>

int loop_setup(void **state);
int loop_teardown(void **state);

#define loop_test(function)                                                              \
    cmocka_unit_test_setup_teardown(function, loop_setup, loop_teardown)

/* For how long a test waits for anything: 30 s, or LOOP_LIMIT_MS. */
unsigned loop_limit_ms(void);

/* Until nothing is left to wait for; fails the test when that takes longer than 30 s. */
void loop_run(uv_loop_t *loop);

/*
 * Round by round until the condition holds; fails the test when the loop ends before,
 * or after 30 s.
 */
void loop_run_until(uv_loop_t *loop, bool (*condition)(void *owner), void *owner);

/* The end of one operation, as a done_fn sees it. Start with a zeroed one. */
struct ended {
    unsigned times;
    bool failed;
    struct err err;
};
void ended_done(void *ended, const struct err *err); /* a done_fn */
bool ended_once(void *ended);                        /* for loop_run_until */

/*
 * Exactly one end, with success, or with that kind and a message that has `part` in it.
 */
void ended_assert_ok(const struct ended *ended);
void ended_assert_failed(const struct ended *ended, enum err_kind kind, const char *part);

#endif
