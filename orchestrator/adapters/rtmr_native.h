/*
 * rtmr native: measuring without the guest agent's EmitEvent, by extending RTMR3 through the
 * kernel's file (Linux 6.16 and later) and writing dstack's own log, by dstack's own protocol:
 * under the lock, extend, then append the event's line. The agent finds it there.
 *
 * A crash in between would leave register and log apart, and every quote of this boot
 * unverifiable. So an intent is written first (domain/rtmr_intent.h), and whatever comes next
 * settles it, from what register and log say themselves.
 *
 * Synchronous: small files, and the lock is never waited for. When another emitter holds it a
 * function fails with what rtmr_native_is_busy recognizes, having done nothing; the caller tries
 * again by a timer. Other failures name the file: ERR_SYS, ERR_CONFIG not the kind of file that it
 * must be, ERR_PEER its content is not as expected.
 */
#ifndef CM_ADAPTERS_RTMR_NATIVE_H
#define CM_ADAPTERS_RTMR_NATIVE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define RTMR_NATIVE_REGISTER                                                             \
    "/sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384"
#define RTMR_NATIVE_LOG_DIR "/run/log/dstack"

/* What touches register and log; tests put themselves in between. */
struct rtmr_native_calls {
    ssize_t (*read_register)(int fd, void *ret, size_t size, off_t offset);
    ssize_t (*extend_register)(int fd, const void *digest, size_t size, off_t offset);
    ssize_t (*append)(int fd, const void *line, size_t len);
};

/* Borrowed paths. */
struct rtmr_native {
    const char *register_file;             /* e.g. RTMR_NATIVE_REGISTER */
    const char *log_dir;                   /* e.g. RTMR_NATIVE_LOG_DIR */
    const char *state_dir;                 /* ours, survives the container */
    const struct rtmr_native_calls *calls; /* NULL: pread, pwrite, write */
};

/* What became of an extension that was cut off. */
enum rtmr_recovery {
    RTMR_NOTHING,        /* there was none */
    RTMR_OTHER_BOOT,     /* it was of an earlier boot, whose register is gone */
    RTMR_NOT_EXTENDED,   /* the register was not extended: nothing has happened */
    RTMR_WAS_COMPLETE,   /* register and log agree */
    RTMR_LINE_COMPLETED, /* the register was extended, the line of the log is written now */
};

/*
 * Settles what an earlier life left; at start, and it is done again before anything below.
 * ERR_PEER when register and log cannot be brought together, with both in the message.
 */
int rtmr_native_recover(const struct rtmr_native *rtmr, enum rtmr_recovery *ret,
                        struct err *err);

/*
 * Extends RTMR3 with a runtime event and logs it. When it fails the register may have been
 * extended all the same. The next call of any function here finds out and completes the log, so
 * ask rtmr_native_last_event before trying again.
 */
int rtmr_native_emit(const struct rtmr_native *rtmr, const char *event,
                     const void *payload, size_t len, struct err *err);

/*
 * The leaf (hex SHA-256) that the last certificate event of this boot names; *ret_found is
 * false when the log has none, or one that names no leaf.
 */
int rtmr_native_last_event(const struct rtmr_native *rtmr, char ret_sha256[65],
                           bool *ret_found, struct err *err);

bool rtmr_native_is_busy(const struct err *err);

#endif
