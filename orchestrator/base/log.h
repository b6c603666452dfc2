/*
 * log: lines on standard output, in the form that log collectors of the Python service
 * know:
 *
 *     [cert-manager] 2026-11-23 18:49:35,401 - INFO - message
 *
 * One line is one write(2), so lines of several processes never mix. Control characters
 * are escaped: nothing from outside can forge a line. Times are UTC unless TZ is set.
 *
 * Another form (domain/log_json.h) also shows what is known of a line beside its text.
 */
#ifndef CM_BASE_LOG_H
#define CM_BASE_LOG_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_FATAL };

/*
 * Until this is called lines go to standard error at level info. The descriptor is
 * borrowed.
 */
void log_open(int fd, enum log_level level);
void log_set_level(enum log_level level);
enum log_level log_level(void);
bool log_enabled(enum log_level level);

void log_write(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What is known of a line beside its text; zero where it is not. */
struct log_fields {
    const struct err *failure; /* that the line tells of */
    unsigned attempt;          /* which one has failed, from 1 */
    int64_t next;              /* when there is another one, in Unix seconds */
    const char *hint;          /* what a person can do; NULL or "": nothing is known */
};

void log_write_with(enum log_level level, const struct log_fields *fields,
                    const char *format, ...) __attribute__((format(printf, 3, 4)));

/*
 * The sequence and the step that lines belong to from now on; NULL: to none. Constant texts. Returns
 * the former place, which the caller puts back when its work is done.
 */
struct log_place {
    const char *flow;
    const char *step;
};
struct log_place log_set_place(struct log_place place);

/* One line, before it is written. Texts are escaped, valid UTF-8, and short enough. */
enum { LOG_TEXT_SIZE = 4096 + 128 };

struct log_record {
    struct timespec at;
    enum log_level level;
    const char *program; /* that says it */
    const char *text;
    struct log_place place;
    struct log_fields fields;
};

/* Writes the line, without its end, and returns its length, which is below `size`. */
typedef size_t log_form(char *line, size_t size, const struct log_record *record);

/* NULL: the text form, which is also how it begins. */
void log_set_form(log_form *form);

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_fatal(...) log_write(LOG_FATAL, __VA_ARGS__)

/* A failure that nothing else is known of. */
#define log_failed(level, err, ...)                                                      \
    log_write_with(level, &(struct log_fields){.failure = (err)}, __VA_ARGS__)

/*
 * "debug", "info", "warning", "error", "fatal" in any case; 0, or -1 when it is none of
 * them.
 */
int log_level_parse(const char *text, enum log_level *ret_level);
const char *log_level_name(enum log_level level);    /* "DEBUG", as lines have it */
const char *log_level_setting(enum log_level level); /* "debug", as settings spell it */

#endif
