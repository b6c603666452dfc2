/* The status as one screen, of whatever a daemon has said. */
#include "app/status_screen.h"

#include "base/secret.h"
#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */

enum { WIDTH = 60 };

/* Caller: free. */
static char *drawn(const char *json)
{
    json_t *status = json_loads(json, 0, NULL);
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    const struct screen screen = {
        .out = out, .width = WIDTH, .line_end = "|\n", .now = NOW};

    assert_non_null(status);
    assert_non_null(out);
    screen_print(&screen, status);
    fclose(out);
    json_decref(status);
    return text;
}

static void expect(const char *json, const char *says)
{
    char *text = drawn(json);

    if (strstr(text, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", text, says);
    free(text);
}

static void long_values_are_broken_between_words_below_each_other(void **state)
{
    (void)state;
    expect(
        "{\"next_action\": {\"action\": \"issue\", \"at\": 1795463347, \"why\": "
        "\"the certificate is not for any of the names that it has to be for\"}}",
        "next         order a certificate in 60 minutes: the|\n"
        "             certificate is not for any of the names that it|\n"
        "             has to be for|\n");
}

static void words_that_are_too_long_are_broken_too(void **state)
{
    (void)state;
    expect(
        "{\"nginx\": {\"configuration\": \"full\", \"reason\": "
        "\"0123456789012345678901234567890123456789\"}}",
        "nginx        full configuration:|\n"
        "             0123456789012345678901234567890123456789|\n");
    expect(
        "{\"certificate\": {\"sha256\": "
        "\"01234567890123456789012345678901234567890123456789\"}}",
        "  sha256     01234567890123456789012345678901234567890123456|\n"
        "             789|\n");
}

static void columns_are_characters(void **state)
{
    (void)state;
    expect(
        "{\"certificate\": {\"sha256\": "
        "\"ééééééééééééééééééééééééééééééééééééééééééééééééé\"}}",
        "  sha256     ééééééééééééééééééééééééééééééééééééééééééééééé|\n"
        "             éé|\n");
}

static void terminals_get_no_control_characters(void **state)
{
    (void)state;
    expect("{\"attention\": [\"it\\u001b[2J\\nfails\"]}", "! it\\x1b[2J\\x0afails|\n");
}

static void what_is_wrong_comes_first_and_nothing_is_well_then(void **state)
{
    char *text = drawn(
        "{\"domain\": \"a.example.org\", \"mode\": \"production\", "
        "\"attention\": [\"one\", \"two\"]}");
    const char *one = strstr(text, "! one|\n! two|\n");

    (void)state;
    assert_non_null(one);
    assert_true(one < strstr(text, "certificate"));
    assert_null(strstr(text, "all is well"));
    free(text);
}

static void another_leaf_than_ours_is_shown(void **state)
{
    const char *json =
        "{\"certificate\": {\"sha256\": \"aa\"}, "
        "\"served\": {\"sha256\": \"bb\", \"probed_at\": 1795459744}, "
        "\"last_event\": {\"sha256\": \"aa\", \"from\": \"event log\", "
        "\"at\": 1795459744}}";

    (void)state;
    expect(json, "  port       bb, presented 3 s ago|\n");
    expect(json, "  last event this one, by the event log 3 s ago|\n");
}

static void what_the_screen_says_elsewhere_is_not_said_again(void **state)
{
    (void)state;
    expect(
        "{\"certificate\": {\"sha256\": \"aa\"}, \"requests\": {\"renew\": "
        "{\"id\": 4, \"state\": \"done\", \"text\": \"HTTPS serves leaf aa\"}}}",
        "renew        request 4, done: that certificate is served|\n");
    expect(
        "{\"last_failure\": {\"open\": true, \"reason\": \"it broke\"}, "
        "\"requests\": {\"renew\": {\"id\": 5, \"state\": \"failed\", \"text\": "
        "\"it broke (tried again in 1 s)\"}}}",
        "renew        request 5, failed: the reason stands above|\n");
    expect(
        "{\"last_failure\": {\"open\": false, \"reason\": \"it broke\"}, "
        "\"requests\": {\"deploy\": {\"id\": 6, \"state\": \"failed\", \"text\": "
        "\"it broke\"}}}",
        "deploy       request 6, failed: it broke|\n");
}

static void limits_that_are_used_up_say_until_when(void **state)
{
    (void)state;
    expect(
        "{\"authorities\": [{\"limits\": {"
        "\"certificates\": {\"limit\": 5, \"left\": 0, \"next_at\": 1795466947}, "
        "\"orders\": {\"limit\": 300, \"left\": 299, \"next_at\": 1795459750}}}]}",
        "  left       certificates 0 of 5 in 2 hours, orders 299 of|\n"
        "             300|\n");
}

/* Of an older or newer daemon, or a file that somebody has spoilt. */
static void whatever_is_missing_or_of_another_kind_does_no_harm(void **state)
{
    static const char *const texts[] = {
        "{}",
        "{\"attention\": 3, \"domains\": [null, 5], \"certificate\": [], "
        "\"next_action\": 1}",
        "{\"domains\": \"a\", \"authorities\": {\"a\": 1}, \"requests\": [1], \"agent\": "
        "{}}",
        "{\"certificate\": {\"not_before\": \"x\", \"not_after\": -9223372036854775808}}",
        "{\"certificate\": {\"not_before\": -9223372036854775808, "
        "\"not_after\": 9223372036854775807}, \"started_at\": -9223372036854775808}",
        "{\"authorities\": [null, {\"limits\": {\"orders\": null}}], \"activity\": {}, "
        "\"last_failure\": {\"open\": true}, \"last_success\": {}, \"attention\": "
        "[null]}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(drawn(texts[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_values_are_broken_between_words_below_each_other),
        cmocka_unit_test(words_that_are_too_long_are_broken_too),
        cmocka_unit_test(columns_are_characters),
        cmocka_unit_test(terminals_get_no_control_characters),
        cmocka_unit_test(what_is_wrong_comes_first_and_nothing_is_well_then),
        cmocka_unit_test(another_leaf_than_ours_is_shown),
        cmocka_unit_test(what_the_screen_says_elsewhere_is_not_said_again),
        cmocka_unit_test(limits_that_are_used_up_say_until_when),
        cmocka_unit_test(whatever_is_missing_or_of_another_kind_does_no_harm),
    };

    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
