/*
 * Lives of a daemon against a CA that counts for itself, in another way than the ledger does: what
 * is left of each limit as a level that rises with time. It fails the test when it is asked for more.
 */
#include "base/secret.h"
#include "domain/ledger_policy.h"
#include "domain/pace.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define START INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */

enum { MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR, ACCOUNTS = 2 };

static char production[] = AUTHORITY_PRODUCTION;

static const char *const sets[] = {"app.example.org", "app.example.org www.example.org",
                                   "www.example.org"};
enum { SETS = sizeof sets / sizeof sets[0], NAMES = 2 };

/* ---- the CA ---- */

struct level {
    int64_t seconds; /* of refill that are there */
    int64_t at;
};

struct ca {
    struct level certificates[SETS];
    struct level domain;
    struct level failures[NAMES][ACCOUNTS];
    struct level orders[ACCOUNTS];
    unsigned ordered;
    unsigned issued;
    unsigned failed;
};

static void take(struct level *level, int64_t count, int64_t refill_s, int64_t now,
                 const char *what)
{
    if (level->at == 0)
        level->seconds = count * refill_s;
    else
        level->seconds += now - level->at;
    if (level->seconds > count * refill_s)
        level->seconds = count * refill_s;
    level->at = now;
    if (level->seconds < refill_s)
        fail_msg("the CA is asked for more %s than it allows", what);
    level->seconds -= refill_s;
}

enum fate { ISSUES, FAILS, IS_DOWN, REFUSES, LIMITS, FATES };

/* What really becomes of an order: as the rates of Let's Encrypt have it. */
static void receive(struct ca *ca, size_t set, size_t account, enum fate fate,
                    int64_t now)
{
    if (fate == IS_DOWN)
        return;
    take(&ca->orders[account], 300, 36, now, "orders");
    ca->ordered++;
    if (fate == ISSUES) {
        ca->issued++;
        take(&ca->certificates[set], 5, 7 * DAY / 5, now, "certificates for a set");
        take(&ca->domain, 50, 7 * DAY / 50, now, "certificates for a domain");
    } else if (fate == FAILS) {
        ca->failed++;
        for (size_t i = 0; i < NAMES; i++) {
            if ((set + 1) & (i + 1)) /* each set has its name, the second one both */
                take(&ca->failures[i][account], 5, 12 * MINUTE, now, "failures");
        }
    }
}

/* ---- the daemon ---- */

enum end { SEEN, KILLED, STOPPED, ENDS };

struct world {
    struct ca ca;
    struct config config;
    struct buf disk; /* the ledger, as it was written last */
    int64_t now;
    int64_t earliest; /* of the next order, after the last failure: as it was logged */
    uint64_t random;
    bool urgent;
};

/* xorshift64*: the same history each time. */
static uint32_t number(struct world *world, uint32_t below)
{
    world->random ^= world->random >> 12;
    world->random ^= world->random << 25;
    world->random ^= world->random >> 27;
    return (uint32_t)((world->random * UINT64_C(2685821657736338717)) >> 32) % below;
}

static void world_init(struct world *world, uint64_t seed)
{
    *world = (struct world){.now = START, .random = seed + 1};
    world->config.acme.authorities.count = 1;
    world->config.acme.authorities.items[0].directory = production;
    buf_init(&world->disk, LEDGER_MAX_BYTES);
}

static void world_done(struct world *world)
{
    buf_done(&world->disk);
}

static const struct pace_limits pace = {
    .min_ms = 30 * 1000, .max_ms = 3600 * 1000, .counts_challenges = true};

static void save(struct world *world, struct ledger *ledger, int64_t now)
{
    struct err err = ERR_INIT;

    ledger_prune(ledger, &world->config, now);
    buf_clear(&world->disk);
    assert_int_equal(ledger_write(ledger, &world->disk, &err), 0);
}

static struct ledger_question about(const struct world *world, size_t set, size_t account)
{
    return (struct ledger_question){
        .subject = {.directory = AUTHORITY_PRODUCTION,
                    .names = sets[set],
                    .account = account == 0 ? "v1" : "v2"},
        .limits = ledger_limits_of(&world->config, AUTHORITY_PRODUCTION),
        .urgent = world->urgent,
    };
}

static enum ledger_outcome seen_as(enum fate fate, enum end end)
{
    static const enum ledger_outcome outcomes[FATES] = {[ISSUES] = LEDGER_ISSUED,
                                                        [FAILS] = LEDGER_CHALLENGE_FAILED,
                                                        [IS_DOWN] = LEDGER_UNREACHED,
                                                        [REFUSES] = LEDGER_REFUSED,
                                                        [LIMITS] = LEDGER_RATE_LIMITED};

    return end == STOPPED ? LEDGER_DOUBTFUL : outcomes[fate];
}

static void end_order(struct world *world, struct ledger *ledger,
                      const struct ledger_subject *subject, int64_t at, enum fate fate,
                      enum end end)
{
    const enum ledger_outcome outcome = seen_as(fate, end);
    const struct pace_failure failure = {
        .outcome = outcome,
        .in_a_row = ledger_row(ledger, subject, outcome) + 1,
        .retry_at = world->now + 3 * HOUR,
    };
    struct ledger_entry entry = {.outcome = (unsigned short)outcome};
    struct err err = ERR_INIT;
    uint64_t wait_ms = pace_order(&failure, &pace, world->now, number(world, UINT32_MAX));

    if (outcome == LEDGER_ISSUED)
        wait_ms = 0;
    else if (end == STOPPED)
        wait_ms = pace_lost_order(failure.in_a_row, &pace, number(world, UINT32_MAX));
    entry.wait_s = (int64_t)(wait_ms + 999) / 1000;
    world->earliest = world->now + (int64_t)(wait_ms / 1000);
    assert_int_equal(ledger_end(ledger, subject, at, &entry, world->now, &err), 0);
    save(world, ledger, world->now);
}

static void settle(struct world *world, struct ledger *ledger,
                   const struct ledger_subject *subject)
{
    uint64_t wait_ms = pace_lost_order(ledger_row(ledger, subject, LEDGER_DOUBTFUL) + 1,
                                       &pace, number(world, UINT32_MAX));

    ledger_give_up_pending(ledger, subject, (int64_t)(wait_ms + 999) / 1000);
    save(world, ledger, world->now);
}

/* One start of the program, and what it does at once. Whether there was an order. */
static bool live(struct world *world, size_t set, size_t account, enum fate fate,
                 enum end end)
{
    const struct ledger_question question = about(world, set, account);
    struct ledger ledger = {0};
    struct err err = ERR_INIT;
    bool orders;
    int64_t at;

    if (world->disk.len > 0)
        assert_int_equal(ledger_read(&world->disk, &ledger, &err), 0);
    ledger_mind_clock(&ledger, world->now);
    if (ledger_ask(&ledger, &question, world->now).action == LEDGER_SETTLE)
        settle(world, &ledger, &question.subject);
    orders = ledger_ask(&ledger, &question, world->now).action == LEDGER_ORDER;
    if (orders) {
        assert_int_equal(ledger_begin(&ledger, &question.subject, world->now, &at, &err),
                         0);
        save(world, &ledger, world->now);
        receive(&world->ca, set, account, fate, world->now);
        if (end != KILLED)
            end_order(world, &ledger, &question.subject, at, fate, end);
    }
    ledger_done(&ledger);
    return orders;
}

/* ---- a container that is started again and again ---- */

enum { RESTARTS = 1000 };

static unsigned storm(struct world *world, enum fate fate, enum end end)
{
    unsigned orders = 0;

    for (int i = 0; i < RESTARTS; i++) {
        world->now = START + i * (int64_t)HOUR / RESTARTS;
        orders +=
            live(world, 0, 0, fate == FATES ? (enum fate)number(world, FATES) : fate,
                 end == ENDS ? (enum end)number(world, ENDS) : end);
    }
    return orders;
}

/* When it is over, and nothing is wrong any more, there is a certificate before long. */
static void assert_recovers(struct world *world, int64_t longest_s)
{
    int64_t begun = world->now;
    unsigned issued = world->ca.issued;

    while (world->ca.issued == issued) {
        world->now += MINUTE;
        if (world->now - begun > longest_s)
            fail_msg("no order within %lld s", (long long)longest_s);
        live(world, 0, 0, ISSUES, SEEN);
    }
}

static void expect_storm(enum fate fate, enum end end, unsigned most, int64_t longest_s)
{
    struct world world;
    unsigned orders;

    world_init(&world, 1);
    orders = storm(&world, fate, end);
    print_message("fate %d, end %d: %u orders in %d restarts, %zu bytes of ledger\n",
                  (int)fate, (int)end, orders, RESTARTS, world.disk.len);
    assert_in_range(orders, 1, most);
    assert_recovers(&world, longest_s);
    world_done(&world);
}

static void a_thousand_restarts_in_an_hour_stay_within_the_limits(void **state)
{
    (void)state;
    expect_storm(ISSUES, SEEN, 5, 35 * HOUR); /* say because of a clock that is ahead */
    expect_storm(ISSUES, KILLED, 5, 35 * HOUR);
    expect_storm(ISSUES, STOPPED, 5, 35 * HOUR);
    expect_storm(FAILS, SEEN, 3, 2 * HOUR + DAY);
    expect_storm(FAILS, KILLED, 5, 35 * HOUR);
    expect_storm(FAILS, STOPPED, 5, 35 * HOUR);
    expect_storm(IS_DOWN, SEEN, 20, 12 * MINUTE);
    expect_storm(REFUSES, SEEN, 10, 2 * HOUR);
    expect_storm(LIMITS, SEEN, 1, 4 * HOUR);
}

static void whatever_happens_a_thousand_restarts_stay_within_the_limits(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct world world;

        world_init(&world, seed);
        assert_in_range(storm(&world, FATES, ENDS), 1, 40);
        assert_recovers(&world, 35 * HOUR);
        world_done(&world);
    }
}

/* ---- histories of weeks ---- */

/* Each of them: never more than the CA allows, which receive() sees to. */
static void no_history_exceeds_a_limit(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct world world;

        world_init(&world, seed);
        world.urgent = seed % 2 == 0;
        for (int i = 0; i < 300; i++) {
            static const uint32_t steps[] = {2, MINUTE, 20 * MINUTE, 10 * HOUR, 3 * DAY};

            world.now += 1 + number(&world, steps[number(&world, 5)]);
            live(&world, number(&world, SETS), number(&world, ACCOUNTS),
                 (enum fate)number(&world, FATES), (enum end)number(&world, ENDS));
        }
        assert_true(world.ca.ordered > 10);
        assert_true(world.disk.len < 256 * 1024);
        world_done(&world);
    }
}

static void no_order_is_made_before_its_time(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct world world;

        world_init(&world, seed);
        for (int i = 0; i < 300; i++) {
            int64_t earliest = world.earliest;
            enum fate fate = (enum fate)number(&world, FATES);

            world.now += 1 + number(&world, 2 * HOUR);
            if (live(&world, 0, 0, fate, SEEN))
                assert_true(world.now >= earliest);
        }
        world_done(&world);
    }
}

/* While the CA works, a permit that is there is used: renewals every 35 h are never held up. */
static void a_pace_that_the_limits_allow_is_never_held_up(void **state)
{
    struct world world;

    (void)state;
    world_init(&world, 1);
    for (int i = 0; i < 200; i++) {
        world.now += 34 * HOUR;
        assert_true(live(&world, 0, 0, ISSUES, SEEN));
    }
    assert_int_equal(world.ca.issued, 200);
    world_done(&world);
}

/* Wherever our clock has been: once it is right again nothing stays held for longer than a limit. */
static void a_clock_that_jumps_stalls_nothing_for_ever(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct world world;

        world_init(&world, seed);
        for (int i = 0; i < 50; i++) {
            int64_t jump = (int64_t)number(&world, 400 * DAY) - 200 * (int64_t)DAY;

            world.now = i % 7 == 0 ? 1000 : START + jump;
            memset(&world.ca, 0, sizeof world.ca); /* it has a clock of its own */
            live(&world, 0, 0, (enum fate)number(&world, FATES), SEEN);
        }
        world.now = START + 201 * (int64_t)DAY;
        memset(&world.ca, 0, sizeof world.ca);
        assert_recovers(&world, 8 * DAY);
        world_done(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_restarts_in_an_hour_stay_within_the_limits),
        cmocka_unit_test(whatever_happens_a_thousand_restarts_stay_within_the_limits),
        cmocka_unit_test(no_history_exceeds_a_limit),
        cmocka_unit_test(no_order_is_made_before_its_time),
        cmocka_unit_test(a_pace_that_the_limits_allow_is_never_held_up),
        cmocka_unit_test(a_clock_that_jumps_stalls_nothing_for_ever),
    };

    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
