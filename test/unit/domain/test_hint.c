/* What a person can do about each failure. */
#include "domain/hint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_is_one_line(const char *text)
{
    assert_non_null(text);
    assert_null(strchr(text, '\n'));
    assert_true(strlen(text) < 300);
}

static void every_failure_has_a_hint(void **state)
{
    (void)state;
    for (int activity = 0; activity < PLAN_ACTIVITIES; activity++) {
        for (int kind = ERR_CONFIG; kind < ERR_CANCELED; kind++) {
            const char *hint = hint_of((enum plan_activity)activity, (enum err_kind)kind);

            assert_is_one_line(hint);
            assert_string_not_equal(hint, "");
        }
    }
    for (int verdict = CERTBOT_CHALLENGE_FAILED; verdict <= CERTBOT_LOCAL_FAILURE;
         verdict++) {
        assert_is_one_line(hint_of_order((enum certbot_verdict)verdict));
        assert_string_not_equal(hint_of_order((enum certbot_verdict)verdict), "");
    }
}

static void nothing_is_to_be_done_where_nothing_failed(void **state)
{
    (void)state;
    assert_string_equal(hint_of(PLAN_ISSUING, ERR_NONE), "");
    assert_string_equal(hint_of(PLAN_ISSUING, ERR_CANCELED), "");
    assert_string_equal(hint_of_order(CERTBOT_ISSUED), "");
}

static void what_is_known_of_an_activity_goes_before_its_kind(void **state)
{
    (void)state;
    assert_non_null(strstr(hint_of(PLAN_KEYS, ERR_NET), "socket"));
    assert_string_not_equal(hint_of(PLAN_KEYS, ERR_NET), hint_of(PLAN_ISSUING, ERR_NET));
    assert_non_null(strstr(hint_of_order(CERTBOT_CHALLENGE_FAILED), "port 80"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failure_has_a_hint),
        cmocka_unit_test(nothing_is_to_be_done_where_nothing_failed),
        cmocka_unit_test(what_is_known_of_an_activity_goes_before_its_kind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
