/*
 * log: lines on standard output, in the form that log collectors of the Python service
 * know:
 *
 *     [cert-manager] 2026-11-23 18:49:35,401 - INFO - message
 *
 * One line is one write(2), so lines of several processes never mix. Control characters
 * are escaped: nothing from outside can forge a line. Times are UTC unless TZ is set.
 */
#ifndef CM_BASE_LOG_H
#define CM_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

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

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_fatal(...) log_write(LOG_FATAL, __VA_ARGS__)

/*
 * "debug", "info", "warning", "error", "fatal" in any case; 0, or -1 when it is none of
 * them.
 */
int log_level_parse(const char *text, enum log_level *ret_level);
const char *log_level_name(enum log_level level);

#endif
