#include "domain/metrics.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_text(const struct metrics *metrics, const char *expected)
{
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = 1024 * 1024};

    assert_int_equal(metrics_to_text(metrics, &text, &err), 0);
    assert_string_equal(buf_str(&text), expected);
}

static void test_nothing_touched_is_nothing_shown(void **state)
{
    const struct metrics metrics = {.series = NULL};

    (void)state;
    assert_text(&metrics, "");
}

static void test_series_of_a_family_stand_together(void **state)
{
    struct metrics metrics = {.series = NULL};

    (void)state;
    metrics_add(&metrics, METRIC_AGENT_REQUESTS, "GetKey", "ok", 1);
    metrics_set(&metrics, METRIC_START_TIME, NULL, NULL, 1795731234);
    metrics_add(&metrics, METRIC_AGENT_REQUESTS, "EmitEvent", "ok", 1);
    metrics_add(&metrics, METRIC_AGENT_REQUESTS, "GetKey", "ok", 2);
    assert_text(&metrics,
                "# HELP cert_manager_start_time_seconds When the daemon started, in Unix "
                "time.\n"
                "# TYPE cert_manager_start_time_seconds gauge\n"
                "cert_manager_start_time_seconds 1795731234\n"
                "# HELP cert_manager_agent_requests_total Calls of the guest agent, by "
                "result.\n"
                "# TYPE cert_manager_agent_requests_total counter\n"
                "cert_manager_agent_requests_total{method=\"GetKey\",result=\"ok\"} 3\n"
                "cert_manager_agent_requests_total{method=\"EmitEvent\",result=\"ok\"} "
                "1\n");
    metrics_done(&metrics);
}

static void test_summary_has_sum_and_count(void **state)
{
    struct metrics metrics = {.series = NULL};

    (void)state;
    metrics_observe(&metrics, METRIC_CERTBOT_DURATION, NULL, NULL, 2.25);
    metrics_observe(&metrics, METRIC_CERTBOT_DURATION, NULL, NULL, 0.125);
    assert_text(&metrics,
                "# HELP cert_manager_certbot_duration_seconds How long certbot ran.\n"
                "# TYPE cert_manager_certbot_duration_seconds summary\n"
                "cert_manager_certbot_duration_seconds_sum 2.375\n"
                "cert_manager_certbot_duration_seconds_count 2\n");
    metrics_done(&metrics);
}

static void test_gauge_holds_what_was_set_last_or_is_forgotten(void **state)
{
    struct metrics metrics = {.series = NULL};

    (void)state;
    metrics_set(&metrics, METRIC_NEXT_ACTION_TIME, "renew", NULL, 17);
    metrics_set(&metrics, METRIC_ATTESTED, NULL, NULL, 1);
    metrics_forget(&metrics, METRIC_NEXT_ACTION_TIME);
    metrics_set(&metrics, METRIC_ATTESTED, NULL, NULL, 0);
    assert_text(&metrics,
                "# HELP cert_manager_attested Whether the last certificate event "
                "names the served certificate.\n"
                "# TYPE cert_manager_attested gauge\n"
                "cert_manager_attested 0\n");
    metrics_done(&metrics);
}

static void test_values_of_labels_are_escaped(void **state)
{
    struct metrics metrics = {.series = NULL};
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = 4096};

    (void)state;
    metrics_add(&metrics, METRIC_ISSUES, "a\"b\\c\nd", NULL, 1);
    assert_int_equal(metrics_to_text(&metrics, &text, &err), 0);
    assert_non_null(strstr(buf_str(&text), "{result=\"a\\\"b\\\\c\\nd\"} 1\n"));
    metrics_done(&metrics);
}

/* Of issuers and the like, which others have named: one bad byte would cost the whole page. */
static void test_values_of_labels_become_utf_8(void **state)
{
    char long_one[2 * METRIC_LABEL_SIZE];
    struct metrics metrics = {.series = NULL};
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = 4096};

    (void)state;
    metrics_add(&metrics, METRIC_ISSUES, "\xff\xc3\xa9 \xc3\"\xed\xa0\x80", NULL, 1);
    /* What is too long may be cut within a character. */
    memset(long_one, 'x', sizeof long_one);
    memcpy(long_one + METRIC_LABEL_SIZE - 2, "\xc3\xa9", 3);
    metrics_add(&metrics, METRIC_ISSUES, long_one, NULL, 1);
    assert_int_equal(metrics_to_text(&metrics, &text, &err), 0);
    assert_non_null(strstr(buf_str(&text), "{result=\"?\xc3\xa9 ?\\\"???\"} 1\n"));
    assert_non_null(strstr(buf_str(&text), "xxx?\"} 1\n"));
    metrics_done(&metrics);
}

/* The names of a process are those that every exporter has; all others are ours. */
static void test_every_family_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < METRIC_COUNT; i++) {
        const char *name = metrics_name((enum metric)i);

        assert_non_null(name);
        assert_true(text_starts_with(name, "cert_manager_") ||
                    text_starts_with(name, "process_"));
        for (int k = 0; k < i; k++)
            assert_string_not_equal(name, metrics_name((enum metric)k));
    }
}

static void test_number_of_series_has_an_end(void **state)
{
    struct metrics metrics = {.series = NULL};

    (void)state;
    for (int i = 0; i < 2 * METRIC_SERIES_MAX; i++) {
        char label[32];

        snprintf(label, sizeof label, "%d", i);
        metrics_add(&metrics, METRIC_ISSUES, label, NULL, 1);
    }
    assert_int_equal(metrics.count, METRIC_SERIES_MAX);
    metrics_add(&metrics, METRIC_ISSUES, "0", NULL, 1);
    assert_true(metrics.series[0].value == 2);
    metrics_done(&metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_touched_is_nothing_shown),
        cmocka_unit_test(test_series_of_a_family_stand_together),
        cmocka_unit_test(test_summary_has_sum_and_count),
        cmocka_unit_test(test_gauge_holds_what_was_set_last_or_is_forgotten),
        cmocka_unit_test(test_values_of_labels_are_escaped),
        cmocka_unit_test(test_values_of_labels_become_utf_8),
        cmocka_unit_test(test_every_family_has_a_name_of_its_own),
        cmocka_unit_test(test_number_of_series_has_an_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
