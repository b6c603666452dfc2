#include "base/log.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

static const char *const level_names[] = {
    [LOG_DEBUG] = "DEBUG", [LOG_INFO] = "INFO",   [LOG_WARNING] = "WARNING",
    [LOG_ERROR] = "ERROR", [LOG_FATAL] = "FATAL",
};

static struct {
    int fd;
    enum log_level level;
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

static size_t write_head(char *line, size_t size, enum log_level level)
{
    struct timespec now;
    struct tm parts;
    char date[32];

    clock_gettime(CLOCK_REALTIME, &now);
    if (getenv("TZ") != NULL)
        localtime_r(&now.tv_sec, &parts);
    else
        gmtime_r(&now.tv_sec, &parts);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &parts);
    return (size_t)snprintf(line, size, "[cert-manager] %s,%03ld - %s - ", date,
                            now.tv_nsec / 1000000, level_names[level]);
}

void log_write(enum log_level level, const char *format, ...)
{
    char message[LINE_MAX_BYTES];
    char line[LINE_MAX_BYTES + 128];
    size_t used;
    va_list args;
    ssize_t written;

    if (!log_enabled(level))
        return;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    used = write_head(line, sizeof line, level);
    used += text_escape(line + used, sizeof line - used - 1, message, strlen(message));
    line[used++] = '\n';
    /* A log that cannot be written has nowhere to be reported. */
    written = write(sink.fd, line, used);
    (void)written;
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
