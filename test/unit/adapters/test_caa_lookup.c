#include "adapters/caa_lookup.h"

#include "support/dns.h"
#include "support/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct dns_record none[] = {{0}};

struct story {
    struct dns_server server;
    struct caa_lookup lookup;
    struct ended ended;
};

/* To its end, with this server alone or behind another one. */
static void look_up(struct story *story, uv_loop_t *loop, const char *domain,
                    const char *first_server)
{
    char servers[160];
    const struct caa_lookup_request request = {
        .loop = loop, .domain = domain, .servers = servers};

    dns_server_start(&story->server, loop);
    snprintf(servers, sizeof servers, "%s%s%s", first_server == NULL ? "" : first_server,
             first_server == NULL ? "" : ",", story->server.address);
    caa_lookup_start(&story->lookup, &request, ended_done, &story->ended);
    loop_run_until(loop, ended_once, &story->ended);
    dns_server_stop(&story->server);
    loop_run(loop);
}

static void expect_names(const struct story *story, const char *const *names)
{
    unsigned count = 0;

    for (; names[count] != NULL; count++) {
        assert_true(count < story->server.asked);
        assert_string_equal(story->server.names[count], names[count]);
    }
    assert_int_equal(story->server.asked, count);
}

static void records_of_the_domain_are_found(void **state)
{
    const struct dns_record records[] = {
        {"app.example.test", .tag = "issue", .value = "letsencrypt.org"},
        {"app.example.test", .flags = 128, .tag = "iodef", .value = "mailto:a@b"},
        {"example.test", .tag = "issue", .value = ";"},
        {0}};
    static const char *const names[] = {"app.example.test", NULL};
    struct story story = {.server = {.records = records}};

    look_up(&story, *state, "app.example.test", NULL);
    ended_assert_ok(&story.ended);
    assert_int_equal(story.lookup.records.count, 2);
    assert_string_equal(story.lookup.records.items[0].value, "letsencrypt.org");
    assert_true(story.lookup.records.items[1].critical);
    assert_string_equal(story.lookup.found_at, "app.example.test");
    expect_names(&story, names);
}

static void those_of_the_nearest_parent_count(void **state)
{
    const struct dns_record records[] = {
        {"example.test", .tag = "issue", .value = "near.example"},
        {"test", .tag = "issue", .value = "far.example"},
        {0}};
    static const char *const names[] = {"x.app.example.test", "app.example.test",
                                        "example.test", NULL};
    struct story story = {.server = {.records = records}};

    look_up(&story, *state, "*.x.app.example.test", NULL);
    ended_assert_ok(&story.ended);
    assert_string_equal(story.lookup.records.items[0].value, "near.example");
    assert_string_equal(story.lookup.found_at, "example.test");
    expect_names(&story, names);
}

static void without_any_up_to_the_top_there_are_none(void **state)
{
    static const char *const names[] = {"app.example.test", "example.test", "test", NULL};
    struct story story = {.server = {.records = none}};

    look_up(&story, *state, "app.example.test", NULL);
    ended_assert_ok(&story.ended);
    assert_int_equal(story.lookup.records.count, 0);
    assert_string_equal(story.lookup.found_at, "");
    expect_names(&story, names);
}

/* The parents of an alias' target do not count, those of the domain do. */
static const struct dns_record aliases[] = {
    {"app.example.test", .alias = "one.elsewhere.test"},
    {"one.elsewhere.test", .alias = "two.elsewhere.test"},
    {"elsewhere.test", .tag = "issue", .value = "wrong.example"},
    {"example.test", .tag = "issue", .value = "right.example"},
    {0}};

static void aliases_are_followed_by_us_or_by_the_server(void **state)
{
    static const char *const by_us[] = {"app.example.test", "one.elsewhere.test",
                                        "two.elsewhere.test", "example.test", NULL};
    static const char *const by_server[] = {"app.example.test", "two.elsewhere.test",
                                            "example.test", NULL};

    for (int follows = 0; follows < 2; follows++) {
        struct story story = {.server = {.records = aliases, .follows = follows == 1}};

        look_up(&story, *state, "app.example.test", NULL);
        ended_assert_ok(&story.ended);
        assert_string_equal(story.lookup.records.items[0].value, "right.example");
        expect_names(&story, follows == 1 ? by_server : by_us);
    }
}

static void records_behind_an_alias_are_those_of_the_domain(void **state)
{
    const struct dns_record records[] = {
        {"app.example.test", .alias = "one.elsewhere.test"},
        {"one.elsewhere.test", .tag = "issue", .value = "right.example"},
        {0}};
    struct story story = {.server = {.records = records, .follows = true}};

    look_up(&story, *state, "app.example.test", NULL);
    ended_assert_ok(&story.ended);
    assert_string_equal(story.lookup.records.items[0].value, "right.example");
    assert_string_equal(story.lookup.found_at, "app.example.test");
}

static void aliases_in_a_circle_are_an_error(void **state)
{
    const struct dns_record records[] = {{"app.example.test", .alias = "b.test"},
                                         {"b.test", .alias = "app.example.test"},
                                         {0}};
    struct story story = {.server = {.records = records}};

    look_up(&story, *state, "app.example.test", NULL);
    ended_assert_failed(&story.ended, ERR_PEER, "more than 8 aliases in a row");
}

static void an_answer_that_does_not_fit_is_asked_for_by_tcp(void **state)
{
    const struct dns_record records[] = {
        {"app.example.test", .tag = "issue", .value = "letsencrypt.org"}, {0}};
    struct story story = {.server = {.records = records, .truncates = true}};

    look_up(&story, *state, "app.example.test", NULL);
    ended_assert_ok(&story.ended);
    assert_int_equal(story.lookup.records.count, 1);
    assert_int_equal(story.server.asked_by_tcp, 1);
}

static void a_failure_at_one_level_leaves_all_unknown(void **state)
{
    const struct dns_record records[] = {
        {"example.test", .tag = "issue", .value = "letsencrypt.org"}, {0}};
    struct story story = {.server = {.records = records, .broken = "app.example.test"}};

    look_up(&story, *state, "app.example.test", NULL);
    assert_int_equal(story.ended.times, 1);
    assert_true(story.ended.failed);
    assert_int_equal(story.lookup.records.count, 0);
}

static void a_server_that_is_down_is_passed_over(void **state)
{
    const struct dns_record records[] = {
        {"app.example.test", .tag = "issue", .value = "letsencrypt.org"}, {0}};
    struct story story = {.server = {.records = records}};

    look_up(&story, *state, "app.example.test", "127.0.0.1:9");
    ended_assert_ok(&story.ended);
    assert_int_equal(story.lookup.records.count, 1);
}

static void a_server_that_is_silent_costs_no_more_than_the_limit(void **state)
{
    struct story story = {.server = {.records = none, .silent = true}};
    uint64_t begin_ms = uv_now(*state);

    look_up(&story, *state, "app.example.test", NULL);
    ended_assert_failed(&story.ended, ERR_TIMEOUT, "app.example.test");
    assert_in_range(uv_now(*state) - begin_ms, 0, CAA_LOOKUP_MS + 1000);
}

static bool is_asked(void *server)
{
    return ((struct dns_server *)server)->asked > 0;
}

static void a_canceled_look_up_ends_at_once(void **state)
{
    struct story story = {.server = {.records = none, .silent = true}};
    const struct caa_lookup_request request = {
        .loop = *state, .domain = "app.example.test", .servers = story.server.address};
    uint64_t begin_ms = uv_now(*state);

    dns_server_start(&story.server, *state);
    caa_lookup_start(&story.lookup, &request, ended_done, &story.ended);
    loop_run_until(*state, is_asked, &story.server);
    caa_lookup_cancel(&story.lookup);
    caa_lookup_cancel(&story.lookup);
    dns_server_stop(&story.server);
    loop_run(*state);
    ended_assert_failed(&story.ended, ERR_CANCELED, "canceled");
    assert_in_range(uv_now(*state) - begin_ms, 0, 1000);
}

static void a_name_that_is_none_is_an_error(void **state)
{
    struct story story = {.server = {.records = none}};

    look_up(&story, *state, "a..test", NULL);
    assert_int_equal(story.ended.times, 1);
    assert_true(story.ended.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(records_of_the_domain_are_found),
        loop_test(those_of_the_nearest_parent_count),
        loop_test(without_any_up_to_the_top_there_are_none),
        loop_test(aliases_are_followed_by_us_or_by_the_server),
        loop_test(records_behind_an_alias_are_those_of_the_domain),
        loop_test(aliases_in_a_circle_are_an_error),
        loop_test(an_answer_that_does_not_fit_is_asked_for_by_tcp),
        loop_test(a_failure_at_one_level_leaves_all_unknown),
        loop_test(a_server_that_is_down_is_passed_over),
        loop_test(a_server_that_is_silent_costs_no_more_than_the_limit),
        loop_test(a_canceled_look_up_ends_at_once),
        loop_test(a_name_that_is_none_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
