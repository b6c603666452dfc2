/*
 * The plan over many certificates of a machine with bad luck: it sleeps, its clock is wrong for a
 * while, its CA is down or changes its mind about renewal. In true time nothing may expire as long as
 * troubles fit into the room that the policy leaves, and nothing may be ordered before its time.
 */
#include "domain/pace.h"
#include "domain/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define BEGINNING INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */
#define DAY INT64_C(86400)
#define HOUR INT64_C(3600)

enum { CLOCK_TOLERANCE_S = 300, REFUSED_MS = 3600 * 1000, LONG_DOWN_S = 600 };

struct machine {
    int64_t true_s;
    int64_t ahead_s; /* its clock, of true time */
    uint64_t uptime_ms;
    struct plan_facts facts;
    unsigned failures;
    unsigned renewals;
    unsigned questions;

    /* Troubles of this life, in true time. */
    int64_t down_from;
    int64_t down_until;
    int64_t wrong_from;
    int64_t wrong_until;
    int64_t sleep_left;
};

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
    return limit > 0 ? (int64_t)(number() % (uint64_t)limit) : 0;
}

static int64_t clock_of(const struct machine *m)
{
    return m->true_s + m->ahead_s;
}

/* The least that is left when a leaf is due, see test_renewal.c. */
static int64_t room_of(int64_t life)
{
    return life < 10 * DAY ? life / 8 * 3 : life / 4;
}

static void draw_troubles(struct machine *m, int64_t life)
{
    int64_t room = room_of(life);

    /* They begin at any time, and mostly when it matters: when the leaf is due. */
    m->down_from = m->true_s + life / 4 + number_below(life);
    m->down_until = m->down_from + number_below(room / 4);
    m->wrong_from = m->true_s + number_below(life);
    m->wrong_until = m->wrong_from + number_below(room / 8);
    m->sleep_left = room / 8;
}

static void take_leaf(struct machine *m, int64_t not_before, int64_t life)
{
    m->facts.served = true;
    m->facts.not_before = not_before;
    m->facts.not_after = not_before + life;
    m->facts.asks = number() % 4 != 0;
    m->facts.ask_at = 0;
    m->facts.renewal = (struct renewal_terms){
        .before_s = number() % 4 == 0 ? life / 4 + number_below(45 * DAY) : 0,
        .spread = (uint32_t)number(),
        .shared = number() % 4 == 0,
    };
    m->facts.retry_at_ms[PLAN_ASKING] = 0;
    m->facts.retry_at_ms[PLAN_ISSUING] =
        m->uptime_ms + renewal_rest_ms(not_before, not_before + life);
    m->failures = 0;
}

static bool is_down(const struct machine *m)
{
    return m->true_s >= m->down_from && m->true_s < m->down_until;
}

static void order(struct machine *m)
{
    static const int64_t lives[] = {DAY, 160 * HOUR, 45 * DAY, 90 * DAY, 398 * DAY};
    int64_t life = lives[number() % (sizeof lives / sizeof lives[0])];
    int64_t not_before = m->true_s - (number() % 2 == 0 ? HOUR : 0);
    uint32_t random = (uint32_t)number();

    if (m->facts.served) {
        const struct plan_facts *facts = &m->facts;

        assert_true(clock_of(m) >=
                    renewal_of(&facts->renewal, facts->not_before, facts->not_after).at);
        assert_true(clock_of(m) >= facts->not_before - CLOCK_TOLERANCE_S);
    }
    if (is_down(m)) {
        m->facts.retry_at_ms[PLAN_ISSUING] =
            m->uptime_ms + pace_doubling(5000, LONG_DOWN_S * 1000, ++m->failures, random);
        return;
    }
    /* What the CA gives must be valid by our clock, or it is thrown away. */
    if (not_before > clock_of(m) + CLOCK_TOLERANCE_S ||
        not_before + life <= clock_of(m)) {
        m->facts.retry_at_ms[PLAN_ISSUING] = m->uptime_ms + REFUSED_MS;
        return;
    }
    take_leaf(m, not_before, life);
    draw_troubles(m, life);
    m->renewals++;
}

/* Mostly as CAs have it, at times in a hurry, at times nonsense. */
static struct renewal_window window_of(const struct plan_facts *facts, int64_t now)
{
    int64_t life = facts->not_after - facts->not_before;
    int64_t ideal = facts->not_before + (life < 10 * DAY ? life / 2 : life * 2 / 3);

    switch (number() % 16) {
    case 0:
        return (struct renewal_window){now - HOUR, now - HOUR / 2};
    case 1:
        return (struct renewal_window){(int64_t)number(), (int64_t)number()};
    case 2:
        return (struct renewal_window){facts->not_after - 60, facts->not_after + DAY};
    default:
        return (struct renewal_window){ideal - life / 90, ideal + life / 90};
    }
}

static void ask(struct machine *m)
{
    struct renewal_asked asked = {.retry_after_s = number_below(DAY)};

    assert_true(m->facts.served && m->facts.asks);
    if (is_down(m))
        asked = (struct renewal_asked){.failures = 1 + (unsigned)number_below(20)};
    else
        m->facts.renewal.window = window_of(&m->facts, clock_of(m));
    m->facts.ask_at = clock_of(m) + renewal_ask_after_s(&asked, (uint32_t)number());
    m->facts.retry_at_ms[PLAN_ASKING] = m->uptime_ms + RENEWAL_ASK_MIN_S * 1000;
    m->questions++;
}

static void wait(struct machine *m, const struct plan *plan)
{
    int64_t life = m->facts.not_after - m->facts.not_before;
    int64_t step = (int64_t)(plan->wait_ms + 999) / 1000;
    int64_t sleep = 0;

    assert_in_range(step, 1, PLAN_LONGEST_WAIT_MS / 1000);
    /* Far from anything that is due, every minute would look the same: they are skipped. */
    if (clock_of(m) + life / 50 <
        renewal_of(&m->facts.renewal, m->facts.not_before, m->facts.not_after).at)
        step += number_below(life / 100);
    if (number() % 64 == 0) {
        sleep = number_below(m->sleep_left);
        m->sleep_left -= sleep;
    }
    m->true_s += step + sleep;
    m->uptime_ms += (uint64_t)step * 1000; /* which does not count sleep */
    if (m->true_s < m->wrong_from || m->true_s >= m->wrong_until)
        m->ahead_s = 0;
    else if (m->ahead_s == 0)
        m->ahead_s = number_below(4 * life) - 2 * life;
}

static void live(struct machine *m, unsigned renewals)
{
    while (m->renewals < renewals) {
        struct plan plan = plan_next(&m->facts, clock_of(m), m->uptime_ms);

        switch (plan.action) {
        case PLAN_ISSUE:
            order(m);
            break;
        case PLAN_ASK_RENEWAL_INFO:
            ask(m);
            break;
        case PLAN_FETCH_KEYS:
            m->facts.keys_at_ms = m->uptime_ms;
            break;
        default:
            assert_int_equal(plan.action, PLAN_WAIT);
            wait(m, &plan);
            break;
        }
        if (m->facts.served)
            assert_true(m->true_s < m->facts.not_after);
    }
}

static void nothing_expires_and_nothing_is_ordered_before_its_time(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        struct machine m = {
            .true_s = BEGINNING,
            .uptime_ms = 1000,
            .facts = {.keys = true, .examined = true},
        };

        live(&m, 40);
        assert_true(m.questions > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_expires_and_nothing_is_ordered_before_its_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
