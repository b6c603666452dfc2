/*
 * verdicts: what `cert-manager check` found, one row for each thing that was looked at.
 *
 * For people a table, in colours and as wide as the terminal where there is one, else a line for each
 * text, so that it can be searched; for machines JSON.
 */
#ifndef CM_APP_VERDICTS_H
#define CM_APP_VERDICTS_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* The worse, the greater. */
enum verdict { VERDICT_SKIPPED, VERDICT_OK, VERDICT_WARNING, VERDICT_FAILED, VERDICTS };

/* Errors and warnings of the settings are bounded, too. */
enum { VERDICT_ROWS_MAX = 160 };

struct verdict_row {
    enum verdict verdict;
    const char *check;          /* "nginx", a constant */
    char text[ERR_MESSAGE_MAX]; /* what was found */
    char hint[ERR_MESSAGE_MAX]; /* what to do about it, "" for nothing */
};

/* Large; zeroed it is empty. */
struct verdicts {
    struct verdict_row rows[VERDICT_ROWS_MAX];
    size_t count;
    size_t of[VERDICTS]; /* also of those that found no room */
    bool full;           /* the last one did not */
};

/* One more row. Long texts are cut. */
void verdicts_add(struct verdicts *verdicts, enum verdict verdict, const char *check,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));

/* What to do about the row that was added last. */
void verdicts_advise(struct verdicts *verdicts, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Whether nothing has failed. */
bool verdicts_hold(const struct verdicts *verdicts);

void verdicts_print(const struct verdicts *verdicts, FILE *out);

/* {"ok": …, "checks": […]}: a new reference, or NULL without memory. */
json_t *verdicts_json(const struct verdicts *verdicts);

#endif
