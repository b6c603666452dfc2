/* Which CA is asked next, when there are several. */
#include "domain/fallback.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void the_next_is_asked_at_once_when_one_is_down(void **state)
{
    struct fallback f = {.count = 3};

    (void)state;
    assert_int_equal(fallback_next(&f, 100), 0);
    fallback_failed(&f, 0, true, 5100);
    assert_int_equal(fallback_next(&f, 100), 1);
    assert_true(fallback_due(&f, 100) <= 100);
    fallback_failed(&f, 1, true, 3200);
    assert_int_equal(fallback_next(&f, 200), 2);
    fallback_failed(&f, 2, true, 9300);
    /* Nobody is left: the one whose time comes first, which is not the main one. */
    assert_int_equal(fallback_next(&f, 300), 1);
    assert_int_equal(fallback_due(&f, 300), 3200);
    assert_int_equal(fallback_next(&f, 3200), 1);
    /* As soon as the main one may be asked it comes first. */
    assert_int_equal(fallback_next(&f, 5100), 0);
}

static void what_fails_everywhere_holds_all_back(void **state)
{
    struct fallback f = {.count = 3};

    (void)state;
    fallback_failed(&f, 2, true, 90000);
    fallback_failed(&f, 0, false, 60000);
    assert_int_equal(fallback_due(&f, 0), 60000);
    assert_int_equal(f.items[1].retry_at_ms, 60000);
    assert_int_equal(f.items[2].retry_at_ms, 90000); /* its own time is longer */
    assert_int_equal(f.items[0].failures, 1);
    assert_int_equal(f.items[1].failures, 0);
}

static void after_a_success_the_main_one_comes_first_in_its_time(void **state)
{
    struct fallback f = {.count = 2};

    (void)state;
    fallback_failed(&f, 0, true, 5000);
    fallback_failed(&f, 0, true, 8000);
    fallback_failed(&f, 1, true, 2000);
    fallback_succeeded(&f, 1);
    assert_int_equal(f.items[0].failures, 0);
    assert_int_equal(f.items[1].failures, 0);
    assert_int_equal(fallback_next(&f, 7999), 1); /* that the CA named, perhaps */
    assert_int_equal(fallback_next(&f, 8000), 0);
}

static void one_ca_alone_is_asked_again_in_its_time(void **state)
{
    struct fallback f = {.count = 1};

    (void)state;
    fallback_failed(&f, 0, true, 5000);
    assert_int_equal(fallback_next(&f, 0), 0);
    assert_int_equal(fallback_due(&f, 0), 5000);
}

static void another_ca_helps_when_this_one_is_down_or_refuses(void **state)
{
    static const struct {
        enum err_kind kind;
        bool asked_ca;
        bool helps;
    } examples[] = {
        {ERR_NET, true, true},       {ERR_TIMEOUT, true, true}, {ERR_PEER, true, true},
        {ERR_CONFIG, true, true},    {ERR_SYS, true, false},    {ERR_CRYPTO, true, false},
        {ERR_NET, false, false},     {ERR_PEER, false, false},  {ERR_SYS, false, false},
        {ERR_CANCELED, true, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++)
        assert_int_equal(fallback_helps(examples[i].kind, examples[i].asked_ca, NULL),
                         examples[i].helps);
}

static void another_ca_helps_by_what_certbot_came_to(void **state)
{
    static const struct {
        struct certbot_outcome outcome;
        bool helps;
    } examples[] = {
        {{.verdict = CERTBOT_CA_UNREACHABLE}, true},
        {{.verdict = CERTBOT_CA_REFUSED}, true},
        {{.verdict = CERTBOT_RATE_LIMITED}, true},
        {{.verdict = CERTBOT_ACCOUNT_GONE}, true},
        {{.verdict = CERTBOT_CHALLENGE_FAILED, .problem = "unauthorized"}, false},
        {{.verdict = CERTBOT_CHALLENGE_FAILED, .problem = "connection"}, false},
        {{.verdict = CERTBOT_CHALLENGE_FAILED, .problem = "dns"}, false},
        {{.verdict = CERTBOT_CHALLENGE_FAILED, .problem = "caa"}, true},
        {{.verdict = CERTBOT_ISSUED}, false},
        {{.verdict = CERTBOT_LOCKED}, false},
        {{.verdict = CERTBOT_KILLED}, false},
        {{.verdict = CERTBOT_LOCAL_FAILURE}, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++)
        assert_int_equal(fallback_helps(ERR_PEER, true, &examples[i].outcome),
                         examples[i].helps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_is_asked_at_once_when_one_is_down),
        cmocka_unit_test(what_fails_everywhere_holds_all_back),
        cmocka_unit_test(after_a_success_the_main_one_comes_first_in_its_time),
        cmocka_unit_test(one_ca_alone_is_asked_again_in_its_time),
        cmocka_unit_test(another_ca_helps_when_this_one_is_down_or_refuses),
        cmocka_unit_test(another_ca_helps_by_what_certbot_came_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
