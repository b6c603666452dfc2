#include "runtime/lookup.h"

#include "support/loop.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_numeric_address(void **state)
{
    struct lookup lookup;
    struct ended ended = {0};

    lookup_start(&lookup, *state, "127.0.0.1", ended_done, &ended);
    assert_int_equal(ended.times, 0);
    loop_run(*state);
    ended_assert_ok(&ended);
    assert_string_equal(lookup.addresses[0], "127.0.0.1");
}

static void test_localhost(void **state)
{
    struct lookup lookup;
    struct ended ended = {0};

    lookup_start(&lookup, *state, "localhost", ended_done, &ended);
    loop_run(*state);
    ended_assert_ok(&ended);
    assert_true(strcmp(lookup.addresses[0], "127.0.0.1") == 0 ||
                strcmp(lookup.addresses[0], "::1") == 0);
}

/* RFC 6761 reserves .invalid; glibc refuses the empty label without asking anybody. */
static void test_name_that_does_not_resolve(void **state)
{
    struct lookup lookup;
    struct ended ended = {0};

    lookup_start(&lookup, *state, "no..such.invalid", ended_done, &ended);
    assert_int_equal(ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&ended, ERR_NET, "no..such.invalid does not resolve: ");
}

static void test_name_that_is_too_long(void **state)
{
    struct lookup lookup;
    struct ended ended = {0};
    char host[300];

    memset(host, 'a', sizeof host);
    host[sizeof host - 1] = '\0';
    lookup_start(&lookup, *state, host, ended_done, &ended);
    assert_int_equal(ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&ended, ERR_NET, "does not resolve: name too long");
}

static void test_cancel_of_a_failed_start(void **state)
{
    struct lookup lookup;
    struct ended ended = {0};
    char host[300];

    memset(host, 'a', sizeof host);
    host[sizeof host - 1] = '\0';
    lookup_start(&lookup, *state, host, ended_done, &ended);
    lookup_cancel(&lookup);
    assert_int_equal(ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&ended, ERR_CANCELED, "canceled");
}

/* libuv's pool has four threads unless UV_THREADPOOL_SIZE says otherwise. */
enum { POOL = 4 };

static void block(uv_work_t *work)
{
    sem_wait(work->data);
}

static void on_unblocked(uv_work_t *work, int status)
{
    (void)work;
    (void)status;
}

static void test_cancel_before_the_resolver_has_it(void **state)
{
    struct lookup lookup;
    struct ended ended = {0};
    uv_work_t work[POOL];
    sem_t unblock;

    sem_init(&unblock, 0, 0);
    for (int i = 0; i < POOL; i++) {
        work[i].data = &unblock;
        assert_int_equal(uv_queue_work(*state, &work[i], block, on_unblocked), 0);
    }
    lookup_start(&lookup, *state, "localhost", ended_done, &ended);
    lookup_cancel(&lookup);
    lookup_cancel(&lookup);
    assert_int_equal(ended.times, 0);
    loop_run_until(*state, ended_once, &ended); /* although the pool is blocked */
    for (int i = 0; i < POOL; i++)
        sem_post(&unblock);
    loop_run(*state);
    ended_assert_failed(&ended, ERR_CANCELED, "look-up of localhost: canceled");
    sem_destroy(&unblock);
}

static void test_cancel_after_done(void **state)
{
    struct lookup lookup;
    struct ended ended = {0};

    lookup_start(&lookup, *state, "127.0.0.1", ended_done, &ended);
    loop_run(*state);
    lookup_cancel(&lookup);
    loop_run(*state);
    ended_assert_ok(&ended);
}

static void test_cancel_of_a_zeroed_one(void **state)
{
    struct lookup lookup = {.canceled = false};

    (void)state;
    lookup_cancel(&lookup);
}

struct again {
    struct lookup lookup;
    uv_loop_t *loop;
    int left;
};

static void on_again_done(void *owner, const struct err *err)
{
    struct again *again = owner;

    assert_null(err);
    if (again->left-- > 0)
        lookup_start(&again->lookup, again->loop, "127.0.0.1", on_again_done, again);
    else
        free(again);
}

static void test_done_may_restart_and_free(void **state)
{
    struct again *again = calloc(1, sizeof *again);

    assert_non_null(again);
    again->loop = *state;
    again->left = 3;
    lookup_start(&again->lookup, *state, "127.0.0.1", on_again_done, again);
    loop_run(*state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_numeric_address),
        loop_test(test_localhost),
        loop_test(test_name_that_does_not_resolve),
        loop_test(test_name_that_is_too_long),
        loop_test(test_cancel_of_a_failed_start),
        loop_test(test_cancel_before_the_resolver_has_it),
        loop_test(test_cancel_after_done),
        loop_test(test_cancel_of_a_zeroed_one),
        loop_test(test_done_may_restart_and_free),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
