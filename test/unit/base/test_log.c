#include "base/log.h"

#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define HEAD                                                                             \
    "^\\[cert-manager\\] [0-9]{4}-[0-9]{2}-[0-9]{2} "                                    \
    "[0-9]{2}:[0-9]{2}:[0-9]{2},[0-9]{3} - "

/* A packet socket: one message for each write. */
struct sink {
    int ends[2];
    char line[8192];
};

static int setup(void **state)
{
    struct sink *sink = calloc(1, sizeof *sink);

    if (sink == NULL || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sink->ends) < 0) {
        free(sink);
        return -1;
    }
    unsetenv("TZ");
    tzset();
    log_open(sink->ends[0], LOG_DEBUG);
    *state = sink;
    return 0;
}

static int teardown(void **state)
{
    struct sink *sink = *state;

    log_open(STDERR_FILENO, LOG_INFO);
    close(sink->ends[0]);
    close(sink->ends[1]);
    free(sink);
    return 0;
}

static const char *next_line(struct sink *sink)
{
    ssize_t got = recv(sink->ends[1], sink->line, sizeof sink->line - 1, MSG_DONTWAIT);

    if (got < 0)
        return NULL;
    sink->line[got] = '\0';
    assert_int_equal(strlen(sink->line), got);
    return sink->line;
}

static void expect_line(struct sink *sink, const char *tail)
{
    const char *line = next_line(sink);
    char pattern[512];
    regex_t regex;

    assert_non_null(line);
    snprintf(pattern, sizeof pattern, HEAD "%s\n$", tail);
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&regex, line, 0, NULL, 0) != 0)
        fail_msg("line %s does not match %s", line, pattern);
    regfree(&regex);
    assert_null(next_line(sink));
}

static void test_form(void **state)
{
    log_debug("a %d", 1);
    expect_line(*state, "DEBUG - a 1");
    log_info("b %s", "text");
    expect_line(*state, "INFO - b text");
    log_warning("c");
    expect_line(*state, "WARNING - c");
    log_error("d");
    expect_line(*state, "ERROR - d");
    log_fatal("%s", "");
    expect_line(*state, "FATAL - ");
}

static void test_level(void **state)
{
    struct sink *sink = *state;

    log_open(sink->ends[0], LOG_WARNING);
    log_debug("no");
    log_info("no");
    assert_null(next_line(sink));
    log_warning("yes");
    expect_line(sink, "WARNING - yes");
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_WARNING));
    assert_true(log_enabled(LOG_FATAL));
}

static void test_control_characters_are_escaped(void **state)
{
    log_info("a\nb\rc\td\x1b[31m\x7f");
    expect_line(*state, "INFO - a\\\\x0ab\\\\x0dc\\\\x09d\\\\x1b\\[31m\\\\x7f");
    log_info("ü€😀 \xc2\x9b[31m");
    expect_line(*state, "INFO - ü€😀 \\\\xc2\\\\x9b\\[31m");
    log_info("\xff\xe2\x82");
    expect_line(*state, "INFO - \\\\xff\\\\xe2\\\\x82");
}

static void test_long_lines_are_cut(void **state)
{
    struct sink *sink = *state;
    char text[10000];
    const char *line;

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    log_info("%s", text);
    line = next_line(sink);
    assert_non_null(line);
    assert_in_range(strlen(line), 4000, 4300);
    assert_int_equal(line[strlen(line) - 1], '\n');
    assert_null(next_line(sink));
    memset(text, 1, sizeof text - 1);
    log_info("%s", text);
    line = next_line(sink);
    assert_non_null(line);
    assert_in_range(strlen(line), 4000, 4300);
    assert_int_equal(line[strlen(line) - 1], '\n');
    /* Cut inside a character. */
    for (size_t i = 0; i + 3 < sizeof text; i += 3)
        memcpy(text + i, "€", 3);
    log_info("%s", text);
    line = next_line(sink);
    assert_non_null(line);
    assert_null(strchr(line, '\x01'));
    assert_null(next_line(sink));
}

/* Minutes of the day in a line. */
static int minutes_of(const char *line)
{
    char clock[6] = "";

    assert_true(strlen(line) > 32);
    memcpy(clock, line + strlen("[cert-manager] 2026-11-23 "), 5);
    return (int)strtol(clock, NULL, 10) * 60 + (int)strtol(clock + 3, NULL, 10);
}

static void test_time_zone(void **state)
{
    static const struct {
        const char *zone;
        int minutes;
    } zones[] = {{NULL, 0}, {"", 0}, {"UTC", 0}, {"XYZ-05:30", 330}, {"ABC+3", -180}};
    struct sink *sink = *state;

    for (size_t i = 0; i < sizeof zones / sizeof zones[0]; i++) {
        time_t now = time(NULL);
        struct tm utc;
        const char *line;
        int expected;
        int late;

        if (zones[i].zone == NULL)
            unsetenv("TZ");
        else
            setenv("TZ", zones[i].zone, 1);
        tzset();
        log_info("x");
        line = next_line(sink);
        assert_non_null(line);
        gmtime_r(&now, &utc);
        expected = utc.tm_hour * 60 + utc.tm_min + zones[i].minutes;
        late = (minutes_of(line) - expected + 2 * 1440) % 1440;
        assert_in_range(late, 0, 1);
    }
    unsetenv("TZ");
    tzset();
}

static void test_closed_sink_is_survived(void **state)
{
    (void)state;
    log_open(-1, LOG_DEBUG);
    log_info("nowhere");
}

static struct log_record form_got;
static char form_text[64];

static size_t shout(char *line, size_t size, const struct log_record *record)
{
    form_got = *record;
    snprintf(form_text, sizeof form_text, "%s", record->text);
    return (size_t)snprintf(line, size, "%s!", record->text);
}

static void test_another_form_gets_all_that_is_known(void **state)
{
    struct sink *sink = *state;
    const struct err failure = {.kind = ERR_NET, .flow = "flow", .step = "step"};
    const struct err nowhere = {.kind = ERR_NET};
    struct log_place former;

    log_set_form(shout);
    log_write_with(LOG_ERROR,
                   &(struct log_fields){.failure = &failure, .attempt = 3, .next = 99},
                   "a\n%d", 1);
    assert_string_equal(next_line(sink), "a\\x0a1!\n");
    assert_string_equal(form_text, "a\\x0a1");
    assert_string_equal(form_got.program, "cert-manager");
    assert_int_equal(form_got.level, LOG_ERROR);
    assert_ptr_equal(form_got.fields.failure, &failure);
    assert_int_equal(form_got.fields.attempt, 3);
    assert_int_equal(form_got.fields.next, 99);
    assert_string_equal(form_got.place.flow, "flow");

    /* Without one of its own a failure is where it is told. */
    former = log_set_place((struct log_place){"here", "now"});
    assert_null(former.flow);
    log_write_with(LOG_ERROR, &(struct log_fields){.failure = &nowhere}, "b");
    assert_string_equal(form_got.place.flow, "here");
    assert_string_equal(form_got.place.step, "now");
    log_write_with(LOG_ERROR, &(struct log_fields){.failure = &failure}, "c");
    assert_string_equal(form_got.place.step, "step");
    log_info("d");
    assert_string_equal(form_got.place.step, "now");
    assert_null(form_got.fields.failure);
    former = log_set_place(former);
    assert_string_equal(former.flow, "here");
    log_info("e");
    assert_null(form_got.place.flow);
    while (next_line(sink) != NULL)
        continue;
    log_set_form(NULL);
    log_write_with(LOG_ERROR, &(struct log_fields){.failure = &failure}, "as it was");
    expect_line(sink, "ERROR - as it was");
}

static void test_level_names(void **state)
{
    static const char *const good[] = {"debug", "Info", "WARNING", "eRRor", "fatal"};
    static const char *const bad[] = {"", "warn", "info ", "critical", "0"};
    enum log_level level = LOG_DEBUG;

    (void)state;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(log_level_parse(good[i], &level), 0);
        assert_int_equal(level, i);
        assert_int_equal(log_level_parse(bad[i], &level), -1);
        assert_int_equal(level, i);
    }
    assert_string_equal(log_level_name(LOG_WARNING), "WARNING");
    assert_string_equal(log_level_setting(LOG_WARNING), "warning");
    log_open(-1, LOG_INFO);
    log_set_level(LOG_ERROR);
    assert_int_equal(log_level(), LOG_ERROR);
    assert_false(log_enabled(LOG_WARNING));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_form, setup, teardown),
        cmocka_unit_test_setup_teardown(test_level, setup, teardown),
        cmocka_unit_test_setup_teardown(test_control_characters_are_escaped, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_long_lines_are_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time_zone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closed_sink_is_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_form_gets_all_that_is_known, setup,
                                        teardown),
        cmocka_unit_test(test_level_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
