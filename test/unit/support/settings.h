/*
 * settings: a settings file called "config.yaml", loaded in development mode. Everything asserts.
 *
 * `variable` is one more of the environment, as "NAME=value", or NULL.
 */
#ifndef TEST_SUPPORT_SETTINGS_H
#define TEST_SUPPORT_SETTINGS_H

#include "domain/config.h"

struct settings {
    struct config config;
    struct config_report report;
    int result;
};

void settings_load(struct settings *settings, const char *file, const char *variable);
void settings_load_good(struct settings *settings, const char *file,
                        const char *variable);
void settings_done(struct settings *settings);

void settings_expect_good(const char *file, const char *variable);

/* Exactly these errors, in this order; `messages` ends with NULL. */
void settings_expect_errors(const char *file, const char *variable,
                            const char *const *messages);
void settings_expect_error(const char *file, const char *variable, const char *message);

/* No error, and exactly this warning. */
void settings_expect_warning(const char *file, const char *variable, const char *message);

#endif
