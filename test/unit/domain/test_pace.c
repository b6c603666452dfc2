#include "domain/pace.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum {
    FIRST = 1000,
    LONGEST = 60 * 1000,
    MINUTE = 60 * 1000,
    DAY = 24 * 60 * MINUTE,
    /* What spreads nothing, and what spreads most: the share is `random` modulo 201. */
    LEAST = 0,
    MIDDLE = 100,
    MOST = 200,
};

static void waits_double_up_to_the_longest(void **state)
{
    static const uint64_t expected[] = {1000,  1000,  2000,  4000,  8000,
                                        16000, 32000, 60000, 60000, 60000};

    (void)state;
    for (unsigned i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_int_equal(pace_doubling(FIRST, LONGEST, i, MIDDLE), expected[i]);
}

static void doubling_spreads_by_a_tenth_in_both_directions(void **state)
{
    (void)state;
    assert_int_equal(pace_doubling(FIRST, LONGEST, 1, LEAST), 900);
    assert_int_equal(pace_doubling(FIRST, LONGEST, 1, MOST), 1100);
    assert_int_equal(pace_doubling(FIRST, LONGEST, 100, LEAST), 54000);
    assert_int_equal(pace_doubling(FIRST, LONGEST, 100, MOST), 66000);
    assert_int_equal(pace_doubling(FIRST, LONGEST, 1, MOST + 1), 900);
}

static void doubling_stays_within_its_bounds(void **state)
{
    (void)state;
    for (unsigned failures = 0; failures < 100; failures++) {
        for (uint32_t random = 0; random < 500; random++) {
            uint64_t wait = pace_doubling(FIRST, LONGEST, failures, random);

            assert_in_range(wait, FIRST * 9 / 10, LONGEST * 11 / 10);
        }
        assert_in_range(pace_doubling(FIRST, LONGEST, failures, UINT32_MAX),
                        FIRST * 9 / 10, LONGEST * 11 / 10);
    }
}

static void huge_numbers_do_not_overflow(void **state)
{
    const uint64_t most = UINT64_MAX / 2;

    (void)state;
    assert_int_equal(pace_doubling(FIRST, LONGEST, UINT_MAX, MIDDLE), LONGEST);
    assert_int_equal(pace_doubling(FIRST, most, UINT_MAX, MIDDLE), most);
    assert_int_equal(pace_doubling(3, most, 64, MIDDLE), most);
    assert_int_equal(pace_doubling(most, most, 2, MIDDLE), most);
    for (unsigned failures = 2; failures < 200; failures++)
        assert_true(pace_doubling(FIRST, most, failures, MIDDLE) >=
                    pace_doubling(FIRST, most, failures - 1, MIDDLE));
}

static void limits_may_be_the_wrong_way_round(void **state)
{
    (void)state;
    assert_int_equal(pace_doubling(LONGEST, FIRST, 1, MIDDLE), FIRST);
    assert_int_equal(pace_doubling(LONGEST, FIRST, 50, MIDDLE), FIRST);
    assert_int_equal(pace_doubling(0, LONGEST, UINT_MAX, MIDDLE), 0);
    assert_int_equal(pace_doubling(FIRST, 0, 5, MIDDLE), 0);
}

static void no_millisecond_is_lost_to_rounding(void **state)
{
    (void)state;
    assert_int_equal(pace_doubling(1, 1, 1, MIDDLE), 1);
    assert_int_equal(pace_doubling(1234567, 1234567, 1, MIDDLE), 1234567);
    assert_int_equal(pace_doubling(1999, 1999, 1, MOST), 2198);
}

static void challenges_are_spaced_as_the_ca_advises(void **state)
{
    static const uint64_t expected[] = {MINUTE, MINUTE, 10 * MINUTE, 100 * MINUTE,
                                        DAY,    DAY,    DAY};

    (void)state;
    for (unsigned i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_int_equal(pace_challenge(i, 0), expected[i]);
    assert_int_equal(pace_challenge(UINT_MAX, 0), DAY);
}

/* Earlier than advised would cost one of the attempts that the CA counts. */
static void challenges_are_only_ever_delayed(void **state)
{
    (void)state;
    for (unsigned failures = 1; failures < 10; failures++) {
        uint64_t advised = pace_challenge(failures, 0);

        for (uint32_t random = 0; random < 500; random++)
            assert_in_range(pace_challenge(failures, random), advised,
                            advised + advised / 10);
        assert_int_equal(pace_challenge(failures, 100), advised + advised / 10);
        assert_int_equal(pace_challenge(failures, 101), advised);
        assert_in_range(pace_challenge(failures, UINT32_MAX), advised,
                        advised + advised / 10);
    }
}

/* ---- after a try that came to nothing ---- */

enum { DAY_S = 24 * 3600 };
static const struct pace_limits limits = {
    .min_ms = 30 * 1000, .max_ms = 60 * MINUTE, .counts_challenges = true};
static const struct pace_limits uncounted = {.min_ms = 30 * 1000, .max_ms = 60 * MINUTE};
#define NOW INT64_C(1795459748)

/* With 100 the doubling is not spread, and nothing is added to the others but 100 ms. */
static uint64_t wait_after(enum ledger_outcome outcome, unsigned in_a_row)
{
    const struct pace_failure failure = {.outcome = outcome, .in_a_row = in_a_row};

    return pace_order(&failure, &limits, NOW, 100);
}

static uint64_t wait_until(int64_t retry_at, unsigned in_a_row)
{
    const struct pace_failure failure = {
        .outcome = LEDGER_RATE_LIMITED, .in_a_row = in_a_row, .retry_at = retry_at};

    return pace_order(&failure, &limits, NOW, 100);
}

static void a_ca_that_is_not_reached_is_asked_again_soon(void **state)
{
    (void)state;
    assert_int_equal(wait_after(LEDGER_UNREACHED, 1), 5000);
    assert_int_equal(wait_after(LEDGER_UNREACHED, 20), 10 * MINUTE);
}

static void a_rate_limit_holds_until_the_time_that_the_ca_names(void **state)
{
    (void)state;
    assert_int_equal(wait_until(NOW + 7200, 1), 7200 * 1000 + 100);
    /* not for ever */
    assert_int_equal(wait_until(NOW + INT64_C(1000) * DAY_S, 1),
                     INT64_C(7) * DAY_S * 1000 + 100);
    assert_int_equal(wait_until(NOW - 1, 1), limits.min_ms); /* our clock is ahead */
    assert_int_equal(wait_until(NOW - 1, 3), 4 * limits.min_ms);
    assert_int_equal(wait_until(0, 3), 4 * limits.min_ms);
}

static void what_may_be_a_failed_challenge_is_counted_by_some_cas(void **state)
{
    static const enum ledger_outcome outcomes[] = {LEDGER_CHALLENGE_FAILED,
                                                   LEDGER_CAA_FORBIDS, LEDGER_DOUBTFUL};

    (void)state;
    for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++) {
        const struct pace_failure failure = {.outcome = outcomes[i], .in_a_row = 2};

        assert_int_equal(pace_order(&failure, &limits, NOW, 0), 10 * MINUTE);
        assert_int_equal(pace_order(&failure, &uncounted, NOW, 100),
                         2 * uncounted.min_ms);
    }
}

static void a_refusal_is_waited_for_longer_each_time(void **state)
{
    (void)state;
    assert_int_equal(wait_after(LEDGER_REFUSED, 1), limits.min_ms);
    assert_int_equal(wait_after(LEDGER_REFUSED, 20), limits.max_ms);
}

static void what_only_a_person_can_mend_waits_longest(void **state)
{
    (void)state;
    assert_int_equal(wait_after(LEDGER_CONFIGURATION, 1), limits.max_ms);
    assert_int_equal(wait_after(LEDGER_ISSUED, 1), limits.max_ms); /* and is of no use */
}

static void one_lost_order_costs_no_time_but_a_row_of_them_does(void **state)
{
    (void)state;
    assert_int_equal(pace_lost_order(1, &limits, 0), 0);
    assert_int_equal(pace_lost_order(2, &limits, 0), MINUTE);
    assert_int_equal(pace_lost_order(9, &limits, 0), DAY);
    assert_int_equal(pace_lost_order(1, &uncounted, 100), 0);
    assert_int_equal(pace_lost_order(3, &uncounted, 100), 2 * uncounted.min_ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_double_up_to_the_longest),
        cmocka_unit_test(doubling_spreads_by_a_tenth_in_both_directions),
        cmocka_unit_test(doubling_stays_within_its_bounds),
        cmocka_unit_test(huge_numbers_do_not_overflow),
        cmocka_unit_test(limits_may_be_the_wrong_way_round),
        cmocka_unit_test(no_millisecond_is_lost_to_rounding),
        cmocka_unit_test(challenges_are_spaced_as_the_ca_advises),
        cmocka_unit_test(challenges_are_only_ever_delayed),
        cmocka_unit_test(a_ca_that_is_not_reached_is_asked_again_soon),
        cmocka_unit_test(a_rate_limit_holds_until_the_time_that_the_ca_names),
        cmocka_unit_test(what_may_be_a_failed_challenge_is_counted_by_some_cas),
        cmocka_unit_test(a_refusal_is_waited_for_longer_each_time),
        cmocka_unit_test(what_only_a_person_can_mend_waits_longest),
        cmocka_unit_test(one_lost_order_costs_no_time_but_a_row_of_them_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
