#include "support/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

void settings_load(struct settings *settings, const char *file, const char *variable)
{
    char development[] = "DEV_MODE=true";
    char more[1024];
    char *const environment[] = {development, variable == NULL ? NULL : more, NULL};

    if (variable != NULL)
        assert_true((size_t)snprintf(more, sizeof more, "%s", variable) < sizeof more);
    settings->result =
        config_load(&settings->config, &settings->report,
                    &(struct config_sources){.yaml_name = "config.yaml",
                                             .yaml = file[0] == '\0' ? NULL : file,
                                             .yaml_len = strlen(file),
                                             .environment = environment});
    assert_int_equal(settings->result == 0, settings->report.error_count == 0);
}

void settings_done(struct settings *settings)
{
    config_done(&settings->config);
    config_report_done(&settings->report);
}

static void expect_lines(const char *file, const struct settings *settings, size_t errors,
                         size_t warnings)
{
    const struct config_report *report = &settings->report;

    if (report->error_count == errors && report->warning_count == warnings)
        return;
    print_message("%.500s\n", file);
    for (size_t i = 0; i < report->error_count; i++)
        print_message("error: %s\n", report->errors[i]);
    for (size_t i = 0; i < report->warning_count; i++)
        print_message("warning: %s\n", report->warnings[i]);
    fail_msg("%zu errors and %zu warnings, expected %zu and %zu", report->error_count,
             report->warning_count, errors, warnings);
}

void settings_load_good(struct settings *settings, const char *file, const char *variable)
{
    settings_load(settings, file, variable);
    expect_lines(file, settings, 0, 0);
}

void settings_expect_good(const char *file, const char *variable)
{
    struct settings settings;

    settings_load_good(&settings, file, variable);
    settings_done(&settings);
}

void settings_expect_errors(const char *file, const char *variable,
                            const char *const *messages)
{
    struct settings settings;
    size_t count = 0;

    while (messages[count] != NULL)
        count++;
    settings_load(&settings, file, variable);
    expect_lines(file, &settings, count, settings.report.warning_count);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(settings.report.errors[i], messages[i]);
    settings_done(&settings);
}

void settings_expect_error(const char *file, const char *variable, const char *message)
{
    const char *const messages[] = {message, NULL};

    settings_expect_errors(file, variable, messages);
}

void settings_expect_warning(const char *file, const char *variable, const char *message)
{
    struct settings settings;

    settings_load(&settings, file, variable);
    expect_lines(file, &settings, 0, 1);
    assert_string_equal(settings.report.warnings[0], message);
    settings_done(&settings);
}
