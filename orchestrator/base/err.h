/*
 * err: what went wrong, carried to the one place that handles it.
 *
 * A function that can fail returns 0 or -1 and takes a caller-owned `struct err *` last.
 * It is never NULL and untouched on success. The setters return -1, so failing is one
 * line:
 *
 *     return err_set(err, ERR_PEER, "%s: answer is not JSON", path);
 *
 * The kind drives policy; the message is for people and reads outermost first. A message
 * never holds a secret.
 */
#ifndef CM_BASE_ERR_H
#define CM_BASE_ERR_H

#define ERR_MESSAGE_MAX 1024

enum err_kind {
    ERR_NONE = 0,
    ERR_CONFIG,   /* somebody has to change a setting or a file; trying again is no use */
    ERR_SYS,      /* the operating system refused: disk, permission, memory, process */
    ERR_NET,      /* the other side could not be reached */
    ERR_PEER,     /* the other side answered, and the answer is a refusal or nonsense */
    ERR_CRYPTO,   /* a key or certificate is not what it must be */
    ERR_TIMEOUT,  /* it took longer than it may */
    ERR_CANCELED, /* we asked it to stop */
};

struct err {
    enum err_kind kind;
    int code; /* errno for ERR_SYS, HTTP status for ERR_PEER where there is one, else 0 */
    const char *flow; /* the sequence that failed, and its step, for the log; else NULL */
    const char *step;
    char message[ERR_MESSAGE_MAX];
};

#define ERR_INIT {.kind = ERR_NONE}

/* All return -1. Messages longer than ERR_MESSAGE_MAX are cut. */
int err_set(struct err *err, enum err_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int err_set_code(struct err *err, enum err_kind kind, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ERR_SYS from an errno value; appends ": " and its text. */
int err_sys(struct err *err, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * ERR_CRYPTO; appends the first reason of OpenSSL's queue, when there is one, and
 * empties it. ERR_SYS with ENOMEM when that is a lack of memory: it says nothing of a key or
 * certificate.
 */
int err_openssl(struct err *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Puts "<text>: " before the message. Kind and code stay. */
int err_wrap(struct err *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A copy of one's own; of NULL, which is how a done_fn is told of success, one of ERR_NONE. */
struct err err_copy(const struct err *err);

/* Lower-case name for logs, status and metrics: "config", "sys", … "none". */
const char *err_kind_name(enum err_kind kind);

#endif
