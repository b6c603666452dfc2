#include "runtime/lookup.h"

#include "support/loop.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- a resolver with an answer of its own ---- */

/*
 * Stands before that of the C library: "many.test" has the addresses 10.0.0.<n> in descending order
 * and at the end one of IPv6, as many as `many` says; every other name is the library's business.
 */
static unsigned many;

struct answer {
    struct addrinfo info;
    struct sockaddr_storage place;
};

static struct addrinfo *make_answer(unsigned number, struct addrinfo *next)
{
    struct answer *answer = calloc(1, sizeof *answer);
    struct sockaddr_in *v4;
    struct sockaddr_in6 *v6;

    if (answer == NULL)
        abort();
    v4 = (struct sockaddr_in *)&answer->place;
    v6 = (struct sockaddr_in6 *)&answer->place;
    if (next == NULL) {
        v6->sin6_family = AF_INET6;
        v6->sin6_addr = (struct in6_addr){.s6_addr = {0xfd, [15] = 2}};
    } else {
        v4->sin_family = AF_INET;
        v4->sin_addr.s_addr = htonl(0x0a000000 + number);
    }
    answer->info.ai_addr = (struct sockaddr *)&answer->place;
    answer->info.ai_next = next;
    return &answer->info;
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    int (*library)(const char *, const char *, const struct addrinfo *,
                   struct addrinfo **);
    void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");

    *ret = NULL;
    if (strcmp(host, "many.test") == 0) {
        for (unsigned i = 0; i < many; i++)
            *ret = make_answer(i, *ret);
        return 0;
    }
    memcpy(&library, &symbol, sizeof library);
    return library(host, service, hints, ret);
}

void freeaddrinfo(struct addrinfo *info)
{
    void (*library)(struct addrinfo *);
    void *symbol = dlsym(RTLD_NEXT, "freeaddrinfo");

    if (many == 0) {
        memcpy(&library, &symbol, sizeof library);
        library(info);
        return;
    }
    while (info != NULL) {
        struct addrinfo *next = info->ai_next;

        free(info);
        info = next;
    }
}

/* ---- what is found ---- */

static void test_numeric_address(void **state)
{
    struct lookup lookup;
    struct ended ended = {0};

    lookup_start(&lookup, *state, "127.0.0.1", ended_done, &ended);
    assert_int_equal(ended.times, 0);
    loop_run(*state);
    ended_assert_ok(&ended);
    assert_int_equal(lookup.count, 1);
    assert_string_equal(lookup.addresses[0], "127.0.0.1");
}

static void find_many(struct lookup *lookup, uv_loop_t *loop, unsigned count)
{
    struct ended ended = {0};

    many = count;
    lookup_start(lookup, loop, "many.test", ended_done, &ended);
    loop_run(loop);
    many = 0;
    ended_assert_ok(&ended);
}

static void test_several_addresses(void **state)
{
    struct lookup lookup;

    find_many(&lookup, *state, 4);
    assert_int_equal(lookup.count, 4);
    assert_string_equal(lookup.addresses[0], "10.0.0.3");
    assert_string_equal(lookup.addresses[1], "10.0.0.2");
    assert_string_equal(lookup.addresses[2], "10.0.0.1");
    assert_string_equal(lookup.addresses[3], "fd00::2");
}

static void test_more_addresses_than_are_kept(void **state)
{
    struct lookup lookup;

    find_many(&lookup, *state, LOOKUP_ADDRESSES_MAX + 1);
    assert_int_equal(lookup.count, LOOKUP_ADDRESSES_MAX);
    assert_string_equal(lookup.addresses[0], "10.0.0.64");
    assert_string_equal(lookup.addresses[LOOKUP_ADDRESSES_MAX - 1], "10.0.0.1");
}

/* The next one does not see them any more. */
static void test_addresses_of_before_are_gone(void **state)
{
    struct lookup lookup;
    struct ended ended = {0};

    find_many(&lookup, *state, 4);
    lookup_start(&lookup, *state, "no..such.invalid", ended_done, &ended);
    assert_int_equal(lookup.count, 0);
    loop_run(*state);
    ended_assert_failed(&ended, ERR_NET, "does not resolve");
    assert_int_equal(lookup.count, 0);
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
        loop_test(test_several_addresses),
        loop_test(test_more_addresses_than_are_kept),
        loop_test(test_addresses_of_before_are_gone),
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
