#include "adapters/rtmr_native.h"

#include "base/fs.h"
#include "base/text.h"
#include "domain/measurement.h"
#include "domain/rtmr_intent.h"
#include "domain/runtime_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_FILE "runtime_event.lock"
#define VERSION_FILE "runtime_event_version"
#define LOG_FILE "runtime_events.log"
#define INTENT_FILE "rtmr-intent.json"
#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

enum { SMALL_FILE_MAX_BYTES = 64 };

/* ---- files: whoever can write these folders may have put anything there ---- */

/* -1 with ENOENT as the code when it is missing. */
static int open_file(const char *path, int flags, int *ret_fd, struct err *err)
{
    struct stat status;
    /* O_NONBLOCK: a FIFO must not hang us. */
    int fd = open(path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);

    if (fd < 0 && errno == ELOOP)
        return err_set(err, ERR_CONFIG, "%s: is a symbolic link", path);
    if (fd < 0)
        return err_sys(err, errno, "%s", path);
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        *ret_fd = fd;
        return 0;
    }
    close(fd);
    return err_set(err, ERR_CONFIG, "%s: not a regular file", path);
}

/* All of it; sizes that the file system tells are not believed. */
static int read_all(int fd, const char *path, size_t max, struct buf *ret,
                    struct err *err)
{
    char chunk[4096];
    int failed = 0;
    ssize_t got;

    buf_init(ret, max);
    do {
        got = pread(fd, chunk, sizeof chunk, (off_t)ret->len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            failed = err_sys(err, errno, "%s", path);
        else if (buf_append(ret, chunk, (size_t)got, err) < 0)
            failed = err_wrap(err, "%s", path);
    } while (failed == 0 && got != 0);
    if (failed < 0)
        buf_done(ret);
    return failed;
}

static int read_file(const char *path, size_t max, struct buf *ret, struct err *err)
{
    int fd = -1;
    int failed;

    if (open_file(path, O_RDONLY, &fd, err) < 0)
        return -1;
    failed = read_all(fd, path, max, ret, err);
    close(fd);
    return failed;
}

/* The first line of a small file, without its end. */
static int read_word(const char *path, char ret[SMALL_FILE_MAX_BYTES + 1],
                     struct err *err)
{
    BUF_SCOPED text = {0};

    if (read_file(path, SMALL_FILE_MAX_BYTES, &text, err) < 0)
        return -1;
    snprintf(ret, SMALL_FILE_MAX_BYTES + 1, "%s", buf_str(&text));
    ret[strcspn(ret, "\r\n")] = '\0';
    return 0;
}

/* ---- a session: the lock, the register and the log ---- */

struct session {
    const struct rtmr_native_calls *calls;
    const char *register_path;
    char log_path[FS_PATH_MAX];
    char intent_path[FS_PATH_MAX];
    char version_path[FS_PATH_MAX];
    char boot_id[RTMR_BOOT_ID_SIZE];
    int lock;
    int rtmr;
    int log;
    unsigned char now[EVENT_DIGEST_BYTES]; /* the register, when it was read last */
    struct buf text;                       /* of the log */
};

static const struct rtmr_native_calls system_calls = {
    .read_register = pread,
    .extend_register = pwrite,
    .append = write,
};

static int take_lock(const char *log_dir, int *ret_fd, struct err *err)
{
    char path[FS_PATH_MAX];
    int fd = -1;

    if (fs_join(path, log_dir, LOCK_FILE, err) < 0 ||
        open_file(path, O_RDWR | O_CREAT, &fd, err) < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        *ret_fd = fd;
        return 0;
    }
    if (errno == EWOULDBLOCK)
        err_set_code(err, ERR_SYS, EWOULDBLOCK,
                     "%s: another emitter holds the lock, try again", path);
    else
        err_sys(err, errno, "%s: cannot lock", path);
    close(fd);
    return -1;
}

bool rtmr_native_is_busy(const struct err *err)
{
    return err->kind == ERR_SYS && err->code == EWOULDBLOCK;
}

static int read_boot_id(char ret[RTMR_BOOT_ID_SIZE], struct err *err)
{
    char word[SMALL_FILE_MAX_BYTES + 1];

    if (read_word(BOOT_ID_FILE, word, err) < 0)
        return -1;
    snprintf(ret, RTMR_BOOT_ID_SIZE, "%.*s", RTMR_BOOT_ID_SIZE - 1, word);
    return 0;
}

/* One byte more is asked for than there may be. */
static int read_register(struct session *s, struct err *err)
{
    unsigned char value[EVENT_DIGEST_BYTES + 1];
    ssize_t got;

    do
        got = s->calls->read_register(s->rtmr, value, sizeof value, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return err_sys(err, errno, "%s: cannot read the register", s->register_path);
    if (got != EVENT_DIGEST_BYTES)
        return err_set(
            err, ERR_PEER, "%s: %zd bytes%s, a register has %d", s->register_path, got,
            got > EVENT_DIGEST_BYTES ? " and perhaps more" : "", EVENT_DIGEST_BYTES);
    memcpy(s->now, value, sizeof s->now);
    return 0;
}

/*
 * The log is never created: dstack wrote to it during the boot, and in a folder without it
 * (another one was mounted) the agent would never find the event that is in the register.
 */
static int open_all(struct session *s, const struct rtmr_native *rtmr, struct err *err)
{
    if (fs_join(s->log_path, rtmr->log_dir, LOG_FILE, err) < 0 ||
        fs_join(s->version_path, rtmr->log_dir, VERSION_FILE, err) < 0 ||
        fs_join(s->intent_path, rtmr->state_dir, INTENT_FILE, err) < 0 ||
        take_lock(rtmr->log_dir, &s->lock, err) < 0 ||
        open_file(rtmr->register_file, O_RDWR, &s->rtmr, err) < 0 ||
        open_file(s->log_path, O_RDWR | O_APPEND, &s->log, err) < 0)
        return -1;
    return read_all(s->log, s->log_path, EVENT_LOG_MAX_BYTES, &s->text, err);
}

static void session_close(struct session *s)
{
    buf_done(&s->text);
    if (s->log >= 0)
        close(s->log);
    if (s->rtmr >= 0)
        close(s->rtmr);
    if (s->lock >= 0)
        close(s->lock); /* and with it goes the lock */
}

/* ---- the log ---- */

/* The whole line or nothing: half a line would spoil every quote. */
static int append_line(struct session *s, const struct buf *line, struct err *err)
{
    ssize_t put;
    int reason;

    do
        put = s->calls->append(s->log, line->data, line->len);
    while (put < 0 && errno == EINTR);
    if (put == (ssize_t)line->len)
        return buf_append(&s->text, line->data, line->len, err);
    reason = put < 0 ? errno : ENOSPC;
    if (put > 0 && ftruncate(s->log, (off_t)s->text.len) < 0)
        return err_sys(err, errno, "%s: half a line was written and cannot be removed",
                       s->log_path);
    return err_sys(err, reason, "%s: RTMR3 is extended, but the event cannot be logged",
                   s->log_path);
}

/*
 * Room for the line is taken before the register is touched, where the file system can do
 * that.
 */
static int reserve(const struct session *s, size_t len, struct err *err)
{
    if (s->text.len + len > s->text.max)
        return err_set(err, ERR_PEER, "%s: larger than the %zu bytes allowed",
                       s->log_path, s->text.max);
    if (fallocate(s->log, FALLOC_FL_KEEP_SIZE, (off_t)s->text.len, (off_t)len) == 0)
        return 0;
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
        return err_sys(err, errno, "%s: no room for another event", s->log_path);
    return 0;
}

static int check_log_end(const struct session *s, struct err *err)
{
    if (s->text.len > 0 && s->text.data[s->text.len - 1] != '\n')
        return err_set(err, ERR_PEER,
                       "%s: ends within a line, another emitter was cut off",
                       s->log_path);
    return 0;
}

/* Whether its lines make the value that the register has. */
static bool log_explains_register(const struct session *s)
{
    unsigned char replayed[EVENT_DIGEST_BYTES];
    struct err unreadable = ERR_INIT;
    struct event_log *log = NULL;
    bool explains;

    if (runtime_log_parse(buf_str(&s->text), s->text.len, &log, &unreadable) < 0)
        return false;
    explains = event_log_replay(log, replayed, &unreadable) == 0 &&
               memcmp(replayed, s->now, sizeof replayed) == 0;
    event_log_free(log);
    return explains;
}

/* ---- after a crash ---- */

static int report_apart(const struct session *s, const struct rtmr_intent *intent,
                        const unsigned char *after, struct err *err)
{
    char now[EVENT_DIGEST_HEX_SIZE];
    char before[EVENT_DIGEST_HEX_SIZE];
    char expected[EVENT_DIGEST_HEX_SIZE];

    text_hex(now, s->now, sizeof s->now);
    text_hex(before, intent->before, sizeof intent->before);
    text_hex(expected, after, EVENT_DIGEST_BYTES);
    return err_set(
        err, ERR_PEER,
        "RTMR3 and its log cannot be brought together after an extension that "
        "was cut off (%s): %s is %s, it was %s before and would be %s after; %s "
        "has %zu bytes, %lld before. Quotes of this boot do not verify; a "
        "reboot of the machine begins both anew",
        s->intent_path, s->register_path, now, before, expected, s->log_path, s->text.len,
        (long long)intent->log_size);
}

/* The register was extended. The line is there, or missing, or was begun. */
static int complete_log(struct session *s, const struct rtmr_intent *intent,
                        const unsigned char *after, enum rtmr_recovery *ret,
                        struct err *err)
{
    const struct event_content content = rtmr_intent_content(intent);
    size_t size = (size_t)intent->log_size;
    BUF_SCOPED line = {0};
    size_t written;

    if (runtime_log_line(&line, intent->version, &content, err) < 0)
        return -1;
    if (size > s->text.len || s->text.len - size > line.len ||
        (s->text.len > size &&
         memcmp(s->text.data + size, line.data, s->text.len - size) != 0))
        return report_apart(s, intent, after, err);
    written = s->text.len - size;
    *ret = written == line.len ? RTMR_WAS_COMPLETE : RTMR_LINE_COMPLETED;
    if (written == line.len)
        return 0;
    if (written > 0 && ftruncate(s->log, (off_t)size) < 0)
        return err_sys(err, errno, "%s: cannot remove half a line", s->log_path);
    s->text.len = size;
    return append_line(s, &line, err);
}

static int settle_intent(struct session *s, const struct rtmr_intent *intent,
                         enum rtmr_recovery *ret, struct err *err)
{
    unsigned char after[EVENT_DIGEST_BYTES];

    if (memcmp(s->now, intent->before, sizeof s->now) == 0) {
        *ret = RTMR_NOT_EXTENDED;
        return 0;
    }
    if (rtmr_intent_after(intent, after, err) < 0)
        return -1;
    if (memcmp(s->now, after, sizeof after) == 0)
        return complete_log(s, intent, after, ret, err);
    return report_apart(s, intent, after, err);
}

/*
 * A log that explains the register needs nothing, whatever the intent says: others may have
 * emitted since, and the intent lies on a volume that others may write, so it must not bring a
 * second line about.
 */
static int settle(struct session *s, enum rtmr_recovery *ret, struct err *err)
{
    struct rtmr_intent intent;
    struct err found = ERR_INIT;
    BUF_SCOPED text = {0};
    bool readable;

    *ret = RTMR_NOTHING;
    if (read_file(s->intent_path, RTMR_INTENT_MAX_BYTES, &text, &found) < 0) {
        if (found.kind == ERR_SYS && found.code == ENOENT)
            return 0;
        *err = found;
        return -1;
    }
    readable = rtmr_intent_read(&intent, buf_str(&text), text.len, &found) == 0;
    if (read_register(s, err) < 0)
        return -1;
    if (readable && strcmp(intent.boot_id, s->boot_id) != 0)
        *ret = RTMR_OTHER_BOOT;
    else if (log_explains_register(s))
        *ret = readable && memcmp(s->now, intent.before, sizeof s->now) == 0
                   ? RTMR_NOT_EXTENDED
                   : RTMR_WAS_COMPLETE;
    else if (!readable)
        return err_set(err, found.kind, "%s: %s", s->intent_path, found.message);
    else if (settle_intent(s, &intent, ret, err) < 0)
        return -1;
    return fs_remove(s->intent_path, err);
}

/* With whatever was cut off settled. Closed already when it fails. */
static int session_open(struct session *s, const struct rtmr_native *rtmr,
                        enum rtmr_recovery *ret_recovery, struct err *err)
{
    *s = (struct session){
        .calls = rtmr->calls != NULL ? rtmr->calls : &system_calls,
        .register_path = rtmr->register_file,
        .lock = -1,
        .rtmr = -1,
        .log = -1,
    };
    if (open_all(s, rtmr, err) == 0 && read_boot_id(s->boot_id, err) == 0 &&
        settle(s, ret_recovery, err) == 0)
        return 0;
    session_close(s);
    return -1;
}

int rtmr_native_recover(const struct rtmr_native *rtmr, enum rtmr_recovery *ret,
                        struct err *err)
{
    struct session session;

    if (session_open(&session, rtmr, ret, err) < 0)
        return -1;
    session_close(&session);
    return 0;
}

/* ---- emission ---- */

static int read_version(const struct session *s, int *ret, struct err *err)
{
    char word[SMALL_FILE_MAX_BYTES + 1];

    if (read_word(s->version_path, word, err) < 0)
        return -1;
    if (strcmp(word, "1") == 0)
        *ret = EVENT_VERSION_1;
    else if (strcmp(word, "2") == 0)
        *ret = EVENT_VERSION_2;
    else
        return err_set(err, ERR_PEER, "%s: expected 1 or 2", s->version_path);
    return 0;
}

static int prepare(struct session *s, struct rtmr_intent *ret, const char *event,
                   const void *payload, size_t len, struct err *err)
{
    if (event[0] == '\0' || strlen(event) > RTMR_NAME_MAX_BYTES ||
        len > RTMR_PAYLOAD_MAX_BYTES)
        return err_set(err, ERR_CONFIG,
                       "an event needs a name of 1 to %d bytes and at most %d bytes of "
                       "payload",
                       RTMR_NAME_MAX_BYTES, RTMR_PAYLOAD_MAX_BYTES);
    *ret = (struct rtmr_intent){.payload_len = len, .log_size = (int64_t)s->text.len};
    memcpy(ret->boot_id, s->boot_id, sizeof ret->boot_id);
    memcpy(ret->name, event, strlen(event) + 1);
    if (len > 0)
        memcpy(ret->payload, payload, len);
    if (check_log_end(s, err) < 0 || read_version(s, &ret->version, err) < 0 ||
        read_register(s, err) < 0)
        return -1;
    memcpy(ret->before, s->now, sizeof ret->before);
    return 0;
}

static int write_intent(const struct session *s, const struct rtmr_intent *intent,
                        struct err *err)
{
    BUF_SCOPED text = {0};

    if (rtmr_intent_write(intent, &text, err) < 0)
        return -1;
    return fs_replace(s->intent_path, text.data, text.len, 0600, err);
}

/*
 * One write of the digest. Whether it was successful is asked of the register, whatever write(2)
 * says; without an extension the intent is withdrawn.
 */
static int extend(struct session *s, const struct rtmr_intent *intent, struct err *err)
{
    const struct event_content content = rtmr_intent_content(intent);
    unsigned char digest[EVENT_DIGEST_BYTES];
    unsigned char after[EVENT_DIGEST_BYTES];
    ssize_t put;
    int reason;

    if (event_digest(digest, intent->version, &content, err) < 0 ||
        rtmr_intent_after(intent, after, err) < 0)
        return -1;
    put = s->calls->extend_register(s->rtmr, digest, sizeof digest, 0);
    reason = put < 0 ? errno : EIO;
    if (read_register(s, err) < 0)
        return -1;
    if (memcmp(s->now, after, sizeof after) == 0)
        return 0;
    if (memcmp(s->now, intent->before, sizeof s->now) != 0)
        return report_apart(s, intent, after, err);
    if (fs_remove(s->intent_path, err) < 0)
        return -1;
    return err_sys(err, reason, "%s: the register was not extended", s->register_path);
}

static int emit(struct session *s, const struct rtmr_intent *intent, struct err *err)
{
    const struct event_content content = rtmr_intent_content(intent);
    BUF_SCOPED line = {0};

    if (runtime_log_line(&line, intent->version, &content, err) < 0 ||
        reserve(s, line.len, err) < 0 || write_intent(s, intent, err) < 0 ||
        extend(s, intent, err) < 0 || append_line(s, &line, err) < 0)
        return -1;
    return fs_remove(s->intent_path, err);
}

int rtmr_native_emit(const struct rtmr_native *rtmr, const char *event,
                     const void *payload, size_t len, struct err *err)
{
    enum rtmr_recovery recovery;
    struct rtmr_intent intent;
    struct session session;
    int failed = -1;

    if (session_open(&session, rtmr, &recovery, err) < 0)
        return -1;
    if (prepare(&session, &intent, event, payload, len, err) == 0)
        failed = emit(&session, &intent, err);
    session_close(&session);
    return failed;
}

int rtmr_native_last_event(const struct rtmr_native *rtmr, char ret_sha256[65],
                           bool *ret_found, struct err *err)
{
    enum rtmr_recovery recovery;
    struct event_log *log = NULL;
    struct session session;
    int failed;

    if (session_open(&session, rtmr, &recovery, err) < 0)
        return -1;
    failed = runtime_log_parse(buf_str(&session.text), session.text.len, &log, err);
    if (failed < 0)
        err_wrap(err, "%s", session.log_path);
    session_close(&session);
    if (failed == 0)
        *ret_found = measurement_last_leaf(log, ret_sha256);
    event_log_free(log);
    return failed;
}
