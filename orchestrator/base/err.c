#include "base/err.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Not in place: an argument may be the message itself. */
__attribute__((format(printf, 2, 0))) static void
format_message(struct err *err, const char *format, va_list args)
{
    char message[ERR_MESSAGE_MAX];

    vsnprintf(message, sizeof message, format, args);
    memcpy(err->message, message, strlen(message) + 1);
}

/* Somewhere else than what it told of before. */
static void begin(struct err *err, enum err_kind kind, int code)
{
    err->kind = kind;
    err->code = code;
    err->flow = NULL;
    err->step = NULL;
}

static void append(struct err *err, const char *text)
{
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, ": %s", text);
}

int err_set(struct err *err, enum err_kind kind, const char *format, ...)
{
    va_list args;

    begin(err, kind, 0);
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    return -1;
}

int err_set_code(struct err *err, enum err_kind kind, int code, const char *format, ...)
{
    va_list args;

    begin(err, kind, code);
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    return -1;
}

int err_sys(struct err *err, int errnum, const char *format, ...)
{
    va_list args;

    begin(err, ERR_SYS, errnum);
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    append(err, strerror(errnum));
    return -1;
}

int err_openssl(struct err *err, const char *format, ...)
{
    unsigned long first = ERR_peek_error();
    const char *reason = ERR_reason_error_string(first);
    /* Only as the first: OpenSSL 3.0 names it behind failures of other kinds, too. */
    bool no_memory = ERR_GET_REASON(first) == ERR_R_MALLOC_FAILURE;
    va_list args;

    ERR_clear_error();
    begin(err, no_memory ? ERR_SYS : ERR_CRYPTO, no_memory ? ENOMEM : 0);
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    if (no_memory)
        append(err, strerror(ENOMEM));
    else if (reason != NULL)
        append(err, reason);
    return -1;
}

int err_wrap(struct err *err, const char *format, ...)
{
    char inner[ERR_MESSAGE_MAX];
    va_list args;

    memcpy(inner, err->message, sizeof inner);
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    append(err, inner);
    return -1;
}

struct err err_copy(const struct err *err)
{
    static const struct err none = ERR_INIT;

    return err != NULL ? *err : none;
}

const char *err_kind_name(enum err_kind kind)
{
    static const char *const names[] = {
        [ERR_NONE] = "none",       [ERR_CONFIG] = "config",     [ERR_SYS] = "sys",
        [ERR_NET] = "net",         [ERR_PEER] = "peer",         [ERR_CRYPTO] = "crypto",
        [ERR_TIMEOUT] = "timeout", [ERR_CANCELED] = "canceled",
    };
    return names[kind];
}
