#include "domain/renewal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NOW INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */
#define DAY INT64_C(86400)
#define HOUR INT64_C(3600)

static const struct renewal_terms by_dates;

static int64_t due(int64_t not_before, int64_t not_after)
{
    struct renewal renewal = renewal_of(&by_dates, not_before, not_after);

    assert_int_equal(renewal.rule, RENEWAL_BY_LIFETIME);
    return renewal.at;
}

/* ---- by the lifetime ---- */

static void a_third_of_the_life_is_left_at_renewal(void **state)
{
    (void)state;
    assert_int_equal(due(NOW, NOW + 90 * DAY), NOW + 60 * DAY);
    assert_int_equal(due(NOW, NOW + 45 * DAY), NOW + 30 * DAY);
    assert_int_equal(due(NOW, NOW + 365 * DAY), NOW + 365 * DAY - 10512000);
    assert_int_equal(due(NOW, NOW + 10 * DAY), NOW + 10 * DAY - 288000);
    /* As CAs make them: the last second belongs to the life. */
    assert_int_equal(due(NOW, NOW + 90 * DAY - 1), NOW + 60 * DAY);
}

static void half_of_a_short_life_is_left_at_renewal(void **state)
{
    (void)state;
    assert_int_equal(due(NOW, NOW + 6 * DAY), NOW + 3 * DAY);
    assert_int_equal(due(NOW, NOW + 160 * HOUR), NOW + 80 * HOUR);
    assert_int_equal(due(NOW, NOW + 60), NOW + 30);
    assert_int_equal(due(NOW, NOW + 10 * DAY - 2), NOW + 5 * DAY - 1);
    assert_int_equal(due(NOW, NOW + 1), NOW + 1);
}

static void a_life_without_length_ends_at_its_end(void **state)
{
    (void)state;
    assert_int_equal(due(NOW, NOW), NOW);
    assert_int_equal(due(NOW + 90 * DAY, NOW), NOW);
}

/* ---- by the operator ---- */

static struct renewal with_setting(int64_t before_s, int64_t life)
{
    const struct renewal_terms terms = {.before_s = before_s};

    return renewal_of(&terms, NOW, NOW + life);
}

static void a_setting_counts_up_to_half_of_the_life(void **state)
{
    (void)state;
    assert_int_equal(with_setting(20 * DAY, 90 * DAY).at, NOW + 70 * DAY);
    assert_int_equal(with_setting(20 * DAY, 90 * DAY).rule, RENEWAL_BY_SETTING);
    assert_int_equal(with_setting(45 * DAY, 90 * DAY).at, NOW + 45 * DAY);
    assert_int_equal(with_setting(30 * DAY, 45 * DAY).at, NOW + 45 * DAY - 1944000);
    assert_int_equal(with_setting(30 * DAY, 6 * DAY).at, NOW + 3 * DAY);
    assert_int_equal(with_setting(30 * DAY, 0).at, NOW);
}

/* ---- by the CA ---- */

/* Of 90 days. */
static struct renewal with_window(int64_t start, int64_t end, uint32_t spread)
{
    const struct renewal_terms terms = {
        .window = {.start = start, .end = end},
        .spread = spread,
    };

    return renewal_of(&terms, NOW, NOW + 90 * DAY);
}

static void expect(struct renewal renewal, int64_t at, enum renewal_rule rule)
{
    assert_int_equal(renewal.at, at);
    assert_int_equal(renewal.rule, rule);
}

static void the_instant_is_spread_over_the_window_and_stays(void **state)
{
    const int64_t start = NOW + 20 * DAY;
    const int64_t end = NOW + 22 * DAY;

    (void)state;
    expect(with_window(start, end, 0), start, RENEWAL_BY_CA);
    expect(with_window(start, end, UINT32_C(1) << 31), start + DAY, RENEWAL_BY_CA);
    expect(with_window(start, end, UINT32_MAX), end - 1, RENEWAL_BY_CA);
    expect(with_window(start, start + 1, UINT32_MAX), start, RENEWAL_BY_CA);
    /* The same window, the same instant; one that has moved takes it along. */
    expect(with_window(start, end, 12345), with_window(start, end, 12345).at,
           RENEWAL_BY_CA);
    expect(with_window(start + DAY, end + DAY, 12345),
           with_window(start, end, 12345).at + DAY, RENEWAL_BY_CA);
}

static void a_window_in_the_past_means_now(void **state)
{
    (void)state;
    expect(with_window(NOW + DAY, NOW + DAY + HOUR, 0), NOW + DAY, RENEWAL_BY_CA);
    /* Even before the certificate was there, but then from its beginning on. */
    expect(with_window(NOW - DAY, NOW - HOUR, 77), NOW, RENEWAL_BY_CA);
    expect(with_window(0, 1, UINT32_MAX), NOW, RENEWAL_BY_CA);
    expect(with_window(INT64_MIN, INT64_MIN + 1, 1), NOW, RENEWAL_BY_CA);
}

static void nonsense_is_refused(void **state)
{
    const int64_t by_lifetime = NOW + 60 * DAY;

    (void)state;
    expect(with_window(0, 0, 1), by_lifetime, RENEWAL_BY_LIFETIME);
    expect(with_window(NOW + DAY, NOW + DAY, 1), by_lifetime, RENEWAL_BY_LIFETIME);
    expect(with_window(NOW + 2 * DAY, NOW + DAY, 1), by_lifetime, RENEWAL_BY_LIFETIME);
    expect(with_window(INT64_MAX, INT64_MIN, 1), by_lifetime, RENEWAL_BY_LIFETIME);
    /* There must be room for several tries. */
    expect(with_window(NOW + 135 * DAY / 2, NOW + 76 * DAY, 1), by_lifetime,
           RENEWAL_BY_LIFETIME);
    expect(with_window(NOW + 400 * DAY, INT64_MAX, 1), by_lifetime, RENEWAL_BY_LIFETIME);
    /* Any time at all is no suggestion. */
    expect(with_window(NOW, NOW + 90 * DAY, 1), by_lifetime, RENEWAL_BY_LIFETIME);
    expect(with_window(INT64_MIN, INT64_MAX, 1), by_lifetime, RENEWAL_BY_LIFETIME);
}

static void only_the_part_of_a_window_that_makes_sense_counts(void **state)
{
    const uint32_t half = UINT32_C(1) << 31;

    (void)state;
    expect(with_window(NOW + 131 * DAY / 2, INT64_MAX, half), NOW + 133 * DAY / 2,
           RENEWAL_BY_CA);
    expect(with_window(INT64_MIN, NOW + 2 * DAY, half), NOW + DAY, RENEWAL_BY_CA);
    expect(with_window(NOW - 1, NOW + 90 * DAY - 1, half), NOW + 135 * DAY / 4,
           RENEWAL_BY_CA);
    expect(with_window(NOW + 1, INT64_MAX, 0), NOW + 1, RENEWAL_BY_CA);
}

static void a_setting_bounds_the_window(void **state)
{
    struct renewal_terms terms = {
        .before_s = 40 * DAY,
        .window = {.start = NOW + 49 * DAY, .end = NOW + 61 * DAY},
        .spread = UINT32_MAX,
    };

    (void)state;
    expect(renewal_of(&terms, NOW, NOW + 90 * DAY), NOW + 50 * DAY - 1, RENEWAL_BY_CA);
    terms.window.start = NOW + 50 * DAY;
    expect(renewal_of(&terms, NOW, NOW + 90 * DAY), NOW + 50 * DAY, RENEWAL_BY_SETTING);
    terms.window = (struct renewal_window){NOW + 3 * DAY, NOW + 3 * DAY + 1};
    expect(renewal_of(&terms, NOW, NOW + 90 * DAY), NOW + 3 * DAY, RENEWAL_BY_CA);
}

/* ---- several machines with the same leaf ---- */

static void machines_with_the_same_leaf_spread_over_a_day_of_thirty(void **state)
{
    struct renewal_terms terms = {.shared = true};

    (void)state;
    expect(renewal_of(&terms, NOW, NOW + 90 * DAY), NOW + 60 * DAY, RENEWAL_BY_LIFETIME);
    terms.spread = UINT32_MAX;
    expect(renewal_of(&terms, NOW, NOW + 90 * DAY), NOW + 61 * DAY - 1,
           RENEWAL_BY_LIFETIME);
    expect(renewal_of(&terms, NOW, NOW + 6 * DAY), NOW + 3 * DAY + 8639,
           RENEWAL_BY_LIFETIME);
}

/* ---- clocks ---- */

static void a_clock_may_be_a_few_minutes_behind(void **state)
{
    (void)state;
    assert_false(renewal_is_before_life(NOW, NOW));
    assert_false(renewal_is_before_life(NOW, NOW - 300));
    assert_true(renewal_is_before_life(NOW, NOW - 301));
    assert_true(renewal_is_before_life(NOW, 0));
}

/* ---- after an issue ---- */

static void the_ca_rests_a_quarter_of_the_life_but_at_most_an_hour(void **state)
{
    (void)state;
    assert_int_equal(renewal_rest_ms(NOW, NOW + 90 * DAY), 3600 * 1000);
    assert_int_equal(renewal_rest_ms(NOW, NOW + 60), 15 * 1000);
    assert_int_equal(renewal_rest_ms(NOW, NOW + 3), 1000);
    assert_int_equal(renewal_rest_ms(NOW, NOW), 1000);
    assert_int_equal(renewal_rest_ms(NOW, NOW - DAY), 1000);
}

/* ---- questions ---- */

static int64_t ask_after(unsigned failures, bool lasting, int64_t retry_after_s)
{
    const struct renewal_asked asked = {failures, lasting, retry_after_s};

    return renewal_ask_after_s(&asked, 0);
}

static void the_ca_says_when_it_is_asked_again_but_twice_a_day_it_is(void **state)
{
    const struct renewal_asked usual = {.retry_after_s = 6 * HOUR};
    const struct renewal_asked long_after = {.retry_after_s = 30 * DAY};

    (void)state;
    assert_int_equal(ask_after(0, false, 0), 6 * HOUR);
    assert_int_equal(ask_after(0, false, 4 * HOUR), 4 * HOUR);
    assert_int_equal(ask_after(0, false, 1), 60);
    assert_int_equal(ask_after(0, false, 12 * HOUR + 1), 12 * HOUR);
    assert_int_equal(ask_after(0, false, INT64_MAX), 12 * HOUR);
    /* Never before the time that it said. */
    assert_int_equal(renewal_ask_after_s(&usual, UINT32_MAX), 6 * HOUR + 2159);
    assert_int_equal(renewal_ask_after_s(&long_after, UINT32_MAX), 12 * HOUR);
}

static void a_failure_is_tried_again_soon_unless_it_lasts(void **state)
{
    static const int64_t waits[] = {60,   120,  240,   480,      960,     1920,
                                    3840, 7680, 15360, 6 * HOUR, 6 * HOUR};

    (void)state;
    for (unsigned i = 0; i < sizeof waits / sizeof waits[0]; i++)
        assert_int_equal(ask_after(i + 1, false, 0), waits[i]);
    assert_int_equal(ask_after(UINT32_MAX, false, 0), 6 * HOUR);
    assert_int_equal(ask_after(1, true, 0), 6 * HOUR);
    assert_int_equal(ask_after(1, true, 600), 600);
    assert_int_equal(ask_after(9, false, 600), 600);
}

static void a_time_to_ask_that_is_too_far_away_is_none(void **state)
{
    (void)state;
    assert_true(renewal_may_ask(0, NOW));
    assert_true(renewal_may_ask(NOW, NOW));
    assert_false(renewal_may_ask(NOW + 1, NOW));
    assert_false(renewal_may_ask(NOW + 12 * HOUR, NOW));
    assert_true(renewal_may_ask(NOW + 12 * HOUR + 1, NOW));
    /* The clock was ahead by years when it was set. */
    assert_true(renewal_may_ask(NOW + 3650 * DAY, NOW));
}

/* ---- whatever life, window and clock ---- */

/* xorshift64*: the same numbers in every run. */
static uint64_t number(void)
{
    static uint64_t bits = UINT64_C(0x9e3779b97f4a7c15);

    bits ^= bits >> 12;
    bits ^= bits << 25;
    bits ^= bits >> 27;
    return bits * UINT64_C(0x2545f4914f6cdd1d);
}

static int64_t number_below(int64_t limit)
{
    return (int64_t)(number() % (uint64_t)limit);
}

static int64_t random_life(void)
{
    static const int64_t longest[] = {90, 20 * HOUR, 7 * DAY, 20 * DAY, 4000 * DAY};

    return 1 + number_below(longest[number() % (sizeof longest / sizeof longest[0])]);
}

/* Around the life, as a sane CA has it; or anywhere, in any order, up to the ends of the range. */
static struct renewal_window random_window(int64_t not_before, int64_t life)
{
    struct renewal_window window = {0};

    switch (number() % 4) {
    case 0:
        break;
    case 1:
        window.start = not_before + number_below(life);
        window.end = window.start + 1 + number_below(life);
        break;
    case 2:
        window.start = not_before + number_below(6 * life) - 3 * life;
        window.end = not_before + number_below(6 * life) - 3 * life;
        break;
    default:
        window.start = (int64_t)number();
        window.end = (int64_t)number();
        break;
    }
    return window;
}

static struct renewal_terms random_terms(int64_t not_before, int64_t life)
{
    return (struct renewal_terms){
        .before_s = number() % 3 == 0 ? 1 + number_below(45 * DAY) : 0,
        .window = random_window(not_before, life),
        .spread = (uint32_t)number(),
        .shared = number() % 3 == 0,
    };
}

static void the_instant_is_always_inside_the_life_with_room_behind_it(void **state)
{
    (void)state;
    for (int i = 0; i < 300000; i++) {
        int64_t not_before = number_below(INT64_C(253402300800));
        int64_t life = random_life();
        int64_t not_after = not_before + life;
        struct renewal_terms terms = random_terms(not_before, life);
        struct renewal renewal = renewal_of(&terms, not_before, not_after);
        int64_t left = not_after - renewal.at;

        assert_in_range(renewal.at, not_before, not_after);
        if (terms.before_s > 0) {
            int64_t wanted = terms.before_s < life / 2 ? terms.before_s : life / 2;

            assert_true(left >= wanted - wanted / 30);
        } else {
            assert_true(left >= (life < 10 * DAY ? life / 8 * 3 : life / 4));
        }
        if (renewal.rule != RENEWAL_BY_CA)
            assert_true(left <= life - life / 2);
        else
            assert_true(renewal.at >= terms.window.start);
        /* Nothing but the terms counts, so a restart moves nothing. */
        assert_int_equal(renewal_of(&terms, not_before, not_after).at, renewal.at);
    }
}

static void the_dates_alone_leave_a_third_or_a_half(void **state)
{
    (void)state;
    for (int i = 0; i < 100000; i++) {
        int64_t not_before = number_below(INT64_C(253402300800));
        int64_t life = random_life();
        int64_t left = not_before + life - due(not_before, not_before + life);

        assert_int_equal(left, life < 10 * DAY ? life / 2 : life / 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_third_of_the_life_is_left_at_renewal),
        cmocka_unit_test(half_of_a_short_life_is_left_at_renewal),
        cmocka_unit_test(a_life_without_length_ends_at_its_end),
        cmocka_unit_test(a_setting_counts_up_to_half_of_the_life),
        cmocka_unit_test(the_instant_is_spread_over_the_window_and_stays),
        cmocka_unit_test(a_window_in_the_past_means_now),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(only_the_part_of_a_window_that_makes_sense_counts),
        cmocka_unit_test(a_setting_bounds_the_window),
        cmocka_unit_test(machines_with_the_same_leaf_spread_over_a_day_of_thirty),
        cmocka_unit_test(a_clock_may_be_a_few_minutes_behind),
        cmocka_unit_test(the_ca_rests_a_quarter_of_the_life_but_at_most_an_hour),
        cmocka_unit_test(the_ca_says_when_it_is_asked_again_but_twice_a_day_it_is),
        cmocka_unit_test(a_failure_is_tried_again_soon_unless_it_lasts),
        cmocka_unit_test(a_time_to_ask_that_is_too_far_away_is_none),
        cmocka_unit_test(the_instant_is_always_inside_the_life_with_room_behind_it),
        cmocka_unit_test(the_dates_alone_leave_a_third_or_a_half),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
