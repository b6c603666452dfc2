#include "base/log.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE_SIZE = 4096, LINE_SIZE = 2 * LOG_TEXT_SIZE + 1024 };

#define PROGRAM "cert-manager"

static const char *const level_names[] = {
    [LOG_DEBUG] = "DEBUG", [LOG_INFO] = "INFO",   [LOG_WARNING] = "WARNING",
    [LOG_ERROR] = "ERROR", [LOG_FATAL] = "FATAL",
};

static const char *const level_settings[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info",   [LOG_WARNING] = "warning",
    [LOG_ERROR] = "error", [LOG_FATAL] = "fatal",
};

static struct {
    int fd;
    enum log_level level;
    log_form *form; /* NULL: text */
    struct log_place place;
} sink = {.fd = STDERR_FILENO, .level = LOG_INFO};

void log_open(int fd, enum log_level level)
{
    sink.fd = fd;
    sink.level = level;
}

void log_set_level(enum log_level level)
{
    sink.level = level;
}

enum log_level log_level(void)
{
    return sink.level;
}

bool log_enabled(enum log_level level)
{
    return level >= sink.level;
}

void log_set_form(log_form *form)
{
    sink.form = form;
}

struct log_place log_set_place(struct log_place place)
{
    struct log_place former = sink.place;

    sink.place = place;
    return former;
}

static size_t write_text(char *line, size_t size, const struct log_record *record)
{
    struct tm parts;
    char date[32];

    if (getenv("TZ") != NULL)
        localtime_r(&record->at.tv_sec, &parts);
    else
        gmtime_r(&record->at.tv_sec, &parts);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &parts);
    return (size_t)snprintf(line, size, "[%s] %s,%03ld - %s - %s", record->program, date,
                            record->at.tv_nsec / 1000000, level_names[record->level],
                            record->text);
}

__attribute__((format(printf, 3, 0))) static void
write_line(enum log_level level, const struct log_fields *fields, const char *format,
           va_list args)
{
    char message[MESSAGE_SIZE];
    char text[LOG_TEXT_SIZE];
    char line[LINE_SIZE];
    struct log_record record = {
        .level = level,
        .program = PROGRAM,
        .text = text,
        .place = sink.place,
        .fields = *fields,
    };
    size_t len;
    ssize_t written;

    vsnprintf(message, sizeof message, format, args);
    text_escape(text, sizeof text, message, strlen(message));
    /* Where the failure was, not where it is told. */
    if (fields->failure != NULL && fields->failure->flow != NULL)
        record.place = (struct log_place){fields->failure->flow, fields->failure->step};
    clock_gettime(CLOCK_REALTIME, &record.at);
    len = (sink.form == NULL ? write_text : sink.form)(line, sizeof line - 1, &record);
    line[len++] = '\n';
    /* A log that cannot be written has nowhere to be reported. */
    written = write(sink.fd, line, len);
    (void)written;
}

void log_write(enum log_level level, const char *format, ...)
{
    const struct log_fields none = {0};
    va_list args;

    if (!log_enabled(level))
        return;
    va_start(args, format);
    write_line(level, &none, format, args);
    va_end(args);
}

void log_write_with(enum log_level level, const struct log_fields *fields,
                    const char *format, ...)
{
    va_list args;

    if (!log_enabled(level))
        return;
    va_start(args, format);
    write_line(level, fields, format, args);
    va_end(args);
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
    for (enum log_level level = LOG_DEBUG; level <= LOG_FATAL; level++) {
        if (strcasecmp(text, level_names[level]) == 0) {
            *ret_level = level;
            return 0;
        }
    }
    return -1;
}

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}

const char *log_level_setting(enum log_level level)
{
    return level_settings[level];
}
