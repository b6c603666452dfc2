#include "adapters/rtmr_native.h"

#include "base/fs.h"
#include "base/text.h"
#include "domain/measurement.h"
#include "domain/runtime_log.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

enum { CRASHED = 99, PATH_SIZE = 160, PAGE_BYTES = 4096 };

/* ---- the register: a file that a write extends, as the kernel's does ---- */

/* What goes wrong with the calls; zero: nothing. */
static struct {
    int extend_errno;     /* refused, nothing happens */
    int extend_lie_errno; /* extended, and reported as refused */
    bool extend_idle;     /* reported as done, nothing happens */
    bool extend_twice;    /* another emitter ignores the lock */
    int append_errno;
    size_t append_part; /* so many bytes only */
    enum crash {
        NO_CRASH,
        BEFORE_EXTENDING,
        AFTER_EXTENDING,
        WITHIN_THE_LINE,
        AFTER_THE_LINE,
    } crash;
    unsigned extensions;
    const char *lock; /* nobody else may hold it meanwhile, not even shared */
} faults;

static void assert_is_locked(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), -1);
    assert_int_equal(errno, EWOULDBLOCK);
    close(fd);
}

static ssize_t read_register(int fd, void *ret, size_t size, off_t offset)
{
    return pread(fd, ret, size, offset);
}

static void extend_file(int fd, const unsigned char *digest)
{
    unsigned char value[EVENT_DIGEST_BYTES];
    struct err err = ERR_INIT;

    assert_int_equal(pread(fd, value, sizeof value, 0), sizeof value);
    assert_int_equal(event_extend(value, digest, &err), 0);
    assert_int_equal(pwrite(fd, value, sizeof value, 0), sizeof value);
    faults.extensions++;
}

static ssize_t extend_register(int fd, const void *digest, size_t size, off_t offset)
{
    assert_int_equal(size, EVENT_DIGEST_BYTES);
    assert_int_equal(offset, 0);
    if (faults.lock != NULL)
        assert_is_locked(faults.lock);
    if (faults.crash == BEFORE_EXTENDING)
        _exit(CRASHED);
    if (faults.extend_errno != 0) {
        errno = faults.extend_errno;
        return -1;
    }
    if (!faults.extend_idle)
        extend_file(fd, digest);
    if (faults.extend_twice)
        extend_file(fd, digest);
    if (faults.crash == AFTER_EXTENDING)
        _exit(CRASHED);
    if (faults.extend_lie_errno != 0) {
        errno = faults.extend_lie_errno;
        return -1;
    }
    return (ssize_t)size;
}

static ssize_t append(int fd, const void *line, size_t len)
{
    if (faults.lock != NULL)
        assert_is_locked(faults.lock);
    if (faults.append_errno != 0) {
        errno = faults.append_errno;
        return -1;
    }
    if (faults.append_part != 0)
        return write(fd, line, faults.append_part);
    if (faults.crash == WITHIN_THE_LINE)
        len /= 2;
    assert_int_equal(write(fd, line, len), len);
    if (faults.crash == WITHIN_THE_LINE || faults.crash == AFTER_THE_LINE)
        _exit(CRASHED);
    return (ssize_t)len;
}

static const struct rtmr_native_calls calls = {
    .read_register = read_register,
    .extend_register = extend_register,
    .append = append,
};

/* ---- a machine that has booted ---- */

struct fixture {
    char folder[64];
    char register_file[PATH_SIZE];
    char log_dir[PATH_SIZE];
    char state_dir[PATH_SIZE];
    char lock[PATH_SIZE];
    char version[PATH_SIZE];
    char log[PATH_SIZE];
    char intent[PATH_SIZE];
    struct rtmr_native rtmr;
};

static void write_file(const char *path, const void *bytes, size_t len)
{
    struct err err = ERR_INIT;

    if (fs_replace(path, bytes, len, 0600, &err) < 0)
        fail_msg("%s", err.message);
}

static void set_version(const struct fixture *f, const char *text)
{
    write_file(f->version, text, strlen(text));
}

static void emit_ok(const struct fixture *f, const char *event, const char *payload)
{
    struct err err = ERR_INIT;

    if (rtmr_native_emit(&f->rtmr, event, payload, strlen(payload), &err) < 0)
        fail_msg("%s", err.message);
}

static void join(char ret[PATH_SIZE], const char *folder, const char *name)
{
    assert_true(snprintf(ret, PATH_SIZE, "%.100s/%s", folder, name) < PATH_SIZE);
}

static int setup(void **state)
{
    static const unsigned char zero[EVENT_DIGEST_BYTES];
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    memset(&faults, 0, sizeof faults);
    snprintf(f->folder, sizeof f->folder, "/tmp/test-rtmr-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    join(f->register_file, f->folder, "rtmr3:sha384");
    join(f->log_dir, f->folder, "log");
    join(f->state_dir, f->folder, "state");
    join(f->lock, f->log_dir, "runtime_event.lock");
    join(f->version, f->log_dir, "runtime_event_version");
    join(f->log, f->log_dir, "runtime_events.log");
    join(f->intent, f->state_dir, "rtmr-intent.json");
    assert_int_equal(mkdir(f->log_dir, 0755), 0);
    assert_int_equal(mkdir(f->state_dir, 0700), 0);
    write_file(f->register_file, zero, sizeof zero);
    write_file(f->log, "", 0);
    f->rtmr = (struct rtmr_native){.register_file = f->register_file,
                                   .log_dir = f->log_dir,
                                   .state_dir = f->state_dir,
                                   .calls = &calls};
    set_version(f, "1\n");
    emit_ok(f, "system-ready", "");
    faults.extensions = 0;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(fs_remove_tree(f->folder, &err), 0);
    free(f);
    return 0;
}

/* ---- what the machine looks like ---- */

static void read_whole(const char *path, struct buf *ret)
{
    struct err err = ERR_INIT;

    if (fs_read(path, 1024 * 1024, ret, &err) < 0)
        fail_msg("%s", err.message);
}

static bool is_consistent(const struct fixture *f)
{
    unsigned char replayed[EVENT_DIGEST_BYTES];
    struct event_log *log = NULL;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};
    BUF_SCOPED value = {0};
    bool same;

    read_whole(f->log, &text);
    read_whole(f->register_file, &value);
    assert_int_equal(value.len, sizeof replayed);
    if (runtime_log_parse(buf_str(&text), text.len, &log, &err) < 0 ||
        event_log_replay(log, replayed, &err) < 0)
        fail_msg("%s", err.message);
    same = memcmp(value.data, replayed, sizeof replayed) == 0;
    event_log_free(log);
    return same;
}

/* Register and log agree, nothing is under way, and the last certificate is this one. */
static void assert_settled(const struct fixture *f, const char *leaf)
{
    struct err err = ERR_INIT;
    char found_leaf[65] = "";
    bool found = false;

    assert_false(fs_exists(f->intent));
    assert_true(is_consistent(f));
    if (rtmr_native_last_event(&f->rtmr, found_leaf, &found, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(found, leaf != NULL);
    if (leaf != NULL)
        assert_string_equal(found_leaf, leaf);
}

/* The register and the log as they are, to see later that nothing happened to them. */
struct snapshot {
    struct buf value;
    struct buf log;
};

static struct snapshot look(const struct fixture *f)
{
    struct snapshot snapshot;

    read_whole(f->register_file, &snapshot.value);
    read_whole(f->log, &snapshot.log);
    return snapshot;
}

/* Consumes the snapshot. */
static void assert_unchanged(const struct fixture *f, struct snapshot *before)
{
    struct snapshot now = look(f);

    assert_int_equal(now.value.len, before->value.len);
    assert_string_equal(buf_str(&now.log), buf_str(&before->log));
    if (now.value.len > 0)
        assert_memory_equal(now.value.data, before->value.data, now.value.len);
    buf_done(&now.value);
    buf_done(&now.log);
    buf_done(&before->value);
    buf_done(&before->log);
}

static void assert_err(const struct err *err, enum err_kind kind, const char *says)
{
    assert_string_equal(err_kind_name(err->kind), err_kind_name(kind));
    if (strstr(err->message, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", err->message, says);
}

static void emit_fails(const struct fixture *f, enum err_kind kind, const char *says)
{
    struct err err = ERR_INIT;

    assert_int_equal(rtmr_native_emit(&f->rtmr, MEASUREMENT_EVENT, B, strlen(B), &err),
                     -1);
    assert_err(&err, kind, says);
    assert_false(rtmr_native_is_busy(&err));
}

/* It fails before anything has happened. */
static void emit_is_refused(const struct fixture *f, enum err_kind kind, const char *says)
{
    struct snapshot before = look(f);
    bool intent = fs_exists(f->intent);

    emit_fails(f, kind, says);
    assert_unchanged(f, &before);
    assert_int_equal(fs_exists(f->intent), intent);
}

static void assert_recovers(const struct fixture *f, enum rtmr_recovery wanted)
{
    enum rtmr_recovery recovery;
    struct err err = ERR_INIT;

    if (rtmr_native_recover(&f->rtmr, &recovery, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(recovery, wanted);
    assert_false(fs_exists(f->intent));
}

/* ---- emission ---- */

static void an_event_extends_the_register_and_the_log(void **state)
{
    const struct fixture *f = *state;
    struct stat status;
    BUF_SCOPED log = {0};

    assert_settled(f, NULL);
    emit_ok(f, MEASUREMENT_EVENT, A);
    assert_settled(f, A);
    emit_ok(f, MEASUREMENT_EVENT, B);
    assert_settled(f, B);
    emit_ok(f, "other", "x");
    assert_settled(f, B);
    assert_int_equal(faults.extensions, 3);
    read_whole(f->log, &log);
    assert_string_equal(
        buf_str(&log),
        "{\"event\":\"system-ready\",\"payload\":\"\"}\n"
        "{\"event\":\"New TLS Certificate\",\"payload\":\"YWFhYWFhYWFhYWFhYWFhYWFhYWFh"
        "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYQ==\"}\n"
        "{\"event\":\"New TLS Certificate\",\"payload\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0"
        "NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZg==\"}\n"
        "{\"event\":\"other\",\"payload\":\"eA==\"}\n");
    assert_int_equal(stat(f->lock, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(stat(f->log, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

/* The register's values are those of test_event_digest.c, computed by other software. */
static void the_version_is_the_one_that_dstack_uses(void **state)
{
    static const unsigned char zero[EVENT_DIGEST_BYTES];
    static const char *const wanted[] = {
        "feb51b9eefea20f36b010382b004a3dfacf5adca1341d5a9859a3b3ebe0e9156"
        "5b1ee7977326e385e75a0e21a731f0c7",
        "be5f0cf36a37437721562b9c15e1f15a7dac87b564a8cd782af2015fa2debfa6"
        "356526e7ded273d542ea96c877e4c51b",
    };
    const struct fixture *f = *state;

    for (int i = 0; i < 2; i++) {
        char hex[EVENT_DIGEST_HEX_SIZE];
        BUF_SCOPED value = {0};
        BUF_SCOPED log = {0};

        write_file(f->register_file, zero, sizeof zero);
        write_file(f->log, "", 0);
        set_version(f, i == 0 ? "1" : "2\n");
        emit_ok(f, "system-ready", "");
        emit_ok(f, MEASUREMENT_EVENT, B);
        assert_settled(f, B);
        read_whole(f->register_file, &value);
        text_hex(hex, value.data, value.len);
        assert_string_equal(hex, wanted[i]);
        read_whole(f->log, &log);
        assert_int_equal(strstr(buf_str(&log), ",\"version\":2}\n") != NULL, i == 1);
    }
}

static void a_version_that_is_not_known_is_refused(void **state)
{
    const struct fixture *f = *state;
    char text[100];

    set_version(f, "3\n");
    emit_is_refused(f, ERR_PEER, "runtime_event_version: expected 1 or 2");
    set_version(f, "");
    emit_is_refused(f, ERR_PEER, "expected 1 or 2");
    set_version(f, "12");
    emit_is_refused(f, ERR_PEER, "expected 1 or 2");
    memset(text, '1', sizeof text);
    write_file(f->version, text, sizeof text);
    emit_is_refused(f, ERR_PEER, "more than 64 bytes");
    assert_int_equal(unlink(f->version), 0);
    emit_is_refused(f, ERR_SYS, "runtime_event_version: No such file");
}

static void an_event_that_could_not_be_logged_is_refused(void **state)
{
    const struct fixture *f = *state;
    struct snapshot before = look(f);
    static const char large[2000];
    struct err err = ERR_INIT;

    assert_int_equal(rtmr_native_emit(&f->rtmr, "", "", 0, &err), -1);
    assert_err(&err, ERR_CONFIG, "an event needs a name");
    assert_int_equal(rtmr_native_emit(&f->rtmr, "a", large, sizeof large, &err), -1);
    assert_err(&err, ERR_CONFIG, "an event needs a name");
    assert_int_equal(rtmr_native_emit(&f->rtmr, "\xff", "", 0, &err), -1);
    assert_err(&err, ERR_PEER, "UTF-8");
    assert_unchanged(f, &before);
    assert_settled(f, NULL);
}

/* ---- the lock ---- */

static void a_lock_that_is_held_is_told_and_never_waited_for(void **state)
{
    const struct fixture *f = *state;
    struct snapshot before = look(f);
    enum rtmr_recovery recovery;
    struct err err = ERR_INIT;
    int other = open(f->lock, O_RDWR | O_CLOEXEC);
    char leaf[65];
    bool found;

    assert_true(other >= 0);
    assert_int_equal(flock(other, LOCK_EX), 0);
    assert_int_equal(rtmr_native_emit(&f->rtmr, MEASUREMENT_EVENT, A, 64, &err), -1);
    assert_true(rtmr_native_is_busy(&err));
    assert_err(&err, ERR_SYS, "runtime_event.lock: another emitter holds the lock");
    assert_int_equal(rtmr_native_recover(&f->rtmr, &recovery, &err), -1);
    assert_true(rtmr_native_is_busy(&err));
    assert_int_equal(rtmr_native_last_event(&f->rtmr, leaf, &found, &err), -1);
    assert_true(rtmr_native_is_busy(&err));
    assert_unchanged(f, &before);
    assert_false(fs_exists(f->intent));
    assert_int_equal(flock(other, LOCK_UN), 0);
    faults.lock = f->lock;
    emit_ok(f, MEASUREMENT_EVENT, A);
    faults.lock = NULL;
    assert_settled(f, A);
    assert_int_equal(flock(other, LOCK_EX | LOCK_NB), 0); /* and it was given back */
    close(other);
}

/* ---- files that are not what they must be ---- */

static void a_register_of_another_size_is_refused(void **state)
{
    static const unsigned char bytes[EVENT_DIGEST_BYTES + 20];
    static const size_t sizes[] = {0, 32, EVENT_DIGEST_BYTES - 1, EVENT_DIGEST_BYTES + 1,
                                   sizeof bytes};
    const struct fixture *f = *state;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        write_file(f->register_file, bytes, sizes[i]);
        emit_is_refused(f, ERR_PEER, "a register has 48");
    }
    assert_int_equal(faults.extensions, 0);
}

static void links_are_not_followed(void **state)
{
    const struct fixture *f = *state;
    const char *const paths[] = {f->register_file, f->lock, f->log, f->version};
    char moved[PATH_SIZE + 8];

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        snprintf(moved, sizeof moved, "%s.moved", paths[i]);
        assert_int_equal(rename(paths[i], moved), 0);
        assert_int_equal(symlink(moved, paths[i]), 0);
        emit_is_refused(f, ERR_CONFIG, "is a symbolic link");
        assert_int_equal(rename(moved, paths[i]), 0);
    }
    assert_int_equal(symlink(f->version, f->intent), 0);
    emit_is_refused(f, ERR_CONFIG, "rtmr-intent.json: is a symbolic link");
    assert_int_equal(unlink(f->intent), 0);
    assert_settled(f, NULL);
}

static void fifos_and_folders_are_refused_without_waiting(void **state)
{
    const struct fixture *f = *state;
    const char *const paths[] = {f->lock, f->version, f->intent};

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        unlink(paths[i]);
        assert_int_equal(mkfifo(paths[i], 0600), 0);
        emit_is_refused(f, ERR_CONFIG, "not a regular file");
        assert_int_equal(unlink(paths[i]), 0);
        set_version(f, "1");
    }
    assert_int_equal(unlink(f->register_file), 0);
    assert_int_equal(mkfifo(f->register_file, 0600), 0);
    emit_fails(f, ERR_CONFIG, "rtmr3:sha384: not a regular file");
    assert_int_equal(unlink(f->register_file), 0);
    assert_int_equal(mkdir(f->register_file, 0700), 0);
    emit_fails(f, ERR_SYS, "Is a directory");
}

/* Another folder was mounted: the agent would never find the event. */
static void a_folder_without_a_log_is_refused(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(unlink(f->log), 0);
    emit_fails(f, ERR_SYS, "runtime_events.log: No such file");
    assert_false(fs_exists(f->log));
    assert_int_equal(fs_remove_tree(f->log_dir, &err), 0);
    emit_fails(f, ERR_SYS, "runtime_event.lock: No such file");
    assert_int_equal(unlink(f->register_file), 0);
    assert_int_equal(faults.extensions, 0);
}

static void a_register_that_is_not_there_is_named(void **state)
{
    const struct fixture *f = *state;

    assert_int_equal(unlink(f->register_file), 0);
    emit_fails(f, ERR_SYS, "rtmr3:sha384: No such file");
}

static void nothing_is_appended_to_half_a_line(void **state)
{
    const struct fixture *f = *state;

    write_file(f->log, "{\"event\":\"a\"", 12);
    emit_is_refused(f, ERR_PEER, "runtime_events.log: ends within a line");
}

static void a_log_that_cannot_be_read_has_no_last_event(void **state)
{
    static const char text[] = "{\"event\":\"a\",\"payload\":\"?\"}\n";
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    char leaf[65];
    bool found;

    write_file(f->log, text, strlen(text));
    assert_int_equal(rtmr_native_last_event(&f->rtmr, leaf, &found, &err), -1);
    assert_err(&err, ERR_PEER,
               "runtime_events.log: line 1: a payload that is not base64");
}

static void an_event_of_another_program_may_name_no_leaf(void **state)
{
    static const char raw[] =
        "{\"event\":\"New TLS Certificate\",\"payload\":\"YQ==\"}\n";
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    char leaf[65];
    bool found = true;

    write_file(f->log, raw, strlen(raw));
    assert_int_equal(rtmr_native_last_event(&f->rtmr, leaf, &found, &err), 0);
    assert_false(found);
}

/* ---- a register and a log that fail ---- */

static void a_register_that_refuses_leaves_nothing_behind(void **state)
{
    const struct fixture *f = *state;

    faults.extend_errno = EPERM;
    emit_is_refused(f, ERR_SYS, "the register was not extended: Operation not permitted");
    faults.extend_errno = 0;
    faults.extend_idle = true;
    emit_is_refused(f, ERR_SYS, "the register was not extended");
    assert_settled(f, NULL);
}

static void the_register_is_believed_and_not_the_write(void **state)
{
    const struct fixture *f = *state;

    faults.extend_lie_errno = EIO;
    emit_ok(f, MEASUREMENT_EVENT, B);
    assert_settled(f, B);
}

static void an_emitter_that_ignores_the_lock_is_told(void **state)
{
    const struct fixture *f = *state;
    struct snapshot before;

    faults.extend_twice = true;
    emit_fails(f, ERR_PEER, "cannot be brought together");
    assert_true(fs_exists(f->intent));
    faults.extend_twice = false;
    before = look(f);
    emit_fails(f, ERR_PEER, "cannot be brought together"); /* and goes on being told */
    assert_unchanged(f, &before);
    assert_false(is_consistent(f));
}

static void a_log_that_cannot_be_written_is_completed_later(void **state)
{
    const struct fixture *f = *state;
    struct snapshot before = look(f);
    BUF_SCOPED log = {0};

    faults.append_errno = ENOSPC;
    emit_fails(f, ERR_SYS, "RTMR3 is extended, but the event cannot be logged: No space");
    faults.append_errno = 0;
    faults.append_part = 7;
    emit_fails(f, ERR_SYS, "cannot be logged"); /* the first event, once more */
    read_whole(f->log, &log);
    assert_string_equal(buf_str(&log),
                        buf_str(&before.log)); /* half a line is taken back */
    faults.append_part = 0;
    assert_recovers(f, RTMR_LINE_COMPLETED);
    assert_settled(f, B);
    assert_int_equal(faults.extensions, 1);
    buf_done(&before.value);
    buf_done(&before.log);
}

static void whoever_comes_next_completes_the_log(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    char leaf[65] = "";
    bool found = false;

    faults.append_errno = EIO;
    emit_fails(f, ERR_SYS, "cannot be logged");
    faults.append_errno = 0;
    assert_int_equal(rtmr_native_last_event(&f->rtmr, leaf, &found, &err), 0);
    assert_true(found);
    assert_string_equal(leaf, B);
    assert_settled(f, B);
    faults.append_errno = EIO;
    emit_fails(f, ERR_SYS, "cannot be logged");
    faults.append_errno = 0;
    emit_ok(f, MEASUREMENT_EVENT, A);
    assert_settled(f, A);
    assert_int_equal(faults.extensions, 3);
}

/* A plain file extends nothing: what was written to it is what the kernel would get. */
static void the_kernel_gets_the_digest_and_nothing_else(void **state)
{
    const struct fixture *f = *state;
    struct rtmr_native plain = f->rtmr;
    char hex[EVENT_DIGEST_HEX_SIZE];
    struct err err = ERR_INIT;
    BUF_SCOPED value = {0};

    plain.calls = NULL;
    assert_int_equal(rtmr_native_emit(&plain, MEASUREMENT_EVENT, B, 64, &err), -1);
    assert_err(&err, ERR_PEER, "cannot be brought together");
    read_whole(f->register_file, &value);
    text_hex(hex, value.data, value.len);
    /* Version 1, see test_event_digest.c. */
    assert_string_equal(hex,
                        "98a9a40fb5670cdd10bc011ff64414480c7530926c88480df63ddec0f5cd66c6"
                        "28f6d11c1659aeaeb1c3718da52498b7");
}

/* ---- crashes ---- */

/* In a child, whose end gives the lock back as a crash does. */
static void crash(const struct fixture *f, enum crash where, const char *payload)
{
    int status = 0;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        struct err err = ERR_INIT;

        faults.crash = where;
        rtmr_native_emit(&f->rtmr, MEASUREMENT_EVENT, payload, strlen(payload), &err);
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), CRASHED);
    assert_true(fs_exists(f->intent));
}

static const struct {
    enum crash where;
    bool consistent; /* register and log, right after it */
    enum rtmr_recovery recovery;
    const char *last; /* that the log then names, A before */
} crashes[] = {
    {BEFORE_EXTENDING, true, RTMR_NOT_EXTENDED, A},
    {AFTER_EXTENDING, false, RTMR_LINE_COMPLETED, B},
    {AFTER_THE_LINE, true, RTMR_WAS_COMPLETE, B},
};

static void every_crash_is_recovered_from(void **state)
{
    const struct fixture *f = *state;

    for (int version = 1; version <= 2; version++) {
        set_version(f, version == 1 ? "1" : "2");
        for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++) {
            emit_ok(f, MEASUREMENT_EVENT, A);
            crash(f, crashes[i].where, B);
            assert_int_equal(is_consistent(f), crashes[i].consistent);
            assert_recovers(f, crashes[i].recovery);
            assert_settled(f, crashes[i].last);
            assert_recovers(f, RTMR_NOTHING);
        }
        emit_ok(f, MEASUREMENT_EVENT, A);
        crash(f, WITHIN_THE_LINE, B);
        assert_recovers(f, RTMR_LINE_COMPLETED);
        assert_settled(f, B);
    }
}

/* That the last line is the event's own says nothing, then. */
static void the_same_event_again_is_recovered_from_too(void **state)
{
    const struct fixture *f = *state;

    emit_ok(f, MEASUREMENT_EVENT, B);
    crash(f, AFTER_EXTENDING, B);
    assert_false(is_consistent(f));
    assert_recovers(f, RTMR_LINE_COMPLETED);
    assert_settled(f, B);
    crash(f, BEFORE_EXTENDING, B);
    assert_recovers(f, RTMR_NOT_EXTENDED);
    assert_settled(f, B);
    crash(f, AFTER_THE_LINE, B);
    assert_recovers(f, RTMR_WAS_COMPLETE);
    assert_settled(f, B);
}

/* Also in a log that does not reach back to the boot, so that only the intent explains it. */
static void a_log_without_its_beginning_is_recovered_too(void **state)
{
    const struct fixture *f = *state;
    BUF_SCOPED log = {0};

    for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++) {
        write_file(f->log, "", 0);
        emit_ok(f, MEASUREMENT_EVENT, A);
        crash(f, crashes[i].where, B);
        assert_recovers(f, crashes[i].recovery);
        read_whole(f->log, &log);
        assert_int_equal(strstr(buf_str(&log), "MDEyMzQ1") != NULL,
                         crashes[i].last[0] != 'a');
        buf_done(&log);
    }
    crash(f, WITHIN_THE_LINE, B);
    assert_recovers(f, RTMR_LINE_COMPLETED);
}

static void a_crash_while_recovering_is_recovered_from(void **state)
{
    const struct fixture *f = *state;

    for (enum crash where = WITHIN_THE_LINE; where <= AFTER_THE_LINE; where++) {
        emit_ok(f, MEASUREMENT_EVENT, A);
        crash(f, AFTER_EXTENDING, B);
        crash(f, where, A); /* settles the first one first, and does not get further */
        assert_recovers(f, where == WITHIN_THE_LINE ? RTMR_LINE_COMPLETED
                                                    : RTMR_WAS_COMPLETE);
        assert_settled(f, B);
    }
}

/* dstack's own emitter knows nothing of our intent. */
static void others_that_emit_after_a_crash_are_not_in_the_way(void **state)
{
    const struct fixture *f = *state;
    struct rtmr_native other = f->rtmr;
    struct snapshot before;
    enum rtmr_recovery recovery;
    struct err err = ERR_INIT;

    other.state_dir = f->folder;
    crash(f, BEFORE_EXTENDING, B);
    assert_int_equal(rtmr_native_emit(&other, "other", "x", 1, &err), 0);
    assert_recovers(f, RTMR_WAS_COMPLETE);
    assert_settled(f, NULL);
    crash(f, AFTER_THE_LINE, B);
    assert_int_equal(rtmr_native_emit(&other, "other", "x", 1, &err), 0);
    assert_recovers(f, RTMR_WAS_COMPLETE);
    assert_settled(f, B);
    /* Between register and log it is too late. */
    crash(f, AFTER_EXTENDING, B);
    assert_int_equal(rtmr_native_emit(&other, "other", "x", 1, &err), 0);
    before = look(f);
    assert_int_equal(rtmr_native_recover(&f->rtmr, &recovery, &err), -1);
    assert_err(&err, ERR_PEER, "cannot be brought together");
    assert_unchanged(f, &before);
    assert_true(fs_exists(f->intent));
}

static void the_error_says_what_was_found(void **state)
{
    const struct fixture *f = *state;
    enum rtmr_recovery recovery;
    unsigned char value[EVENT_DIGEST_BYTES];
    struct err err = ERR_INIT;

    crash(f, AFTER_EXTENDING, B);
    memset(value, 0xcd, sizeof value);
    write_file(f->register_file, value, sizeof value);
    assert_int_equal(rtmr_native_recover(&f->rtmr, &recovery, &err), -1);
    /* 83968406… is the register with "system-ready" alone. */
    assert_err(&err, ERR_PEER, "rtmr3:sha384 is cdcdcdcdcd");
    assert_err(&err, ERR_PEER, "it was 83968406b478abf0");
    assert_err(&err, ERR_PEER, "and would be feb51b9eefea20f3");
    assert_err(&err, ERR_PEER, "runtime_events.log has 38 bytes, 38 before");
    assert_err(&err, ERR_PEER, "a reboot");
}

/* ---- the intent ---- */

/* With another value in one member, which is consumed. */
static void change_intent(const struct fixture *f, const char *member, json_t *value)
{
    json_t *intent = json_load_file(f->intent, 0, NULL);
    char *text;

    assert_non_null(intent);
    json_object_set_new(intent, member, value);
    text = json_dumps(intent, 0);
    json_decref(intent);
    write_file(f->intent, text, strlen(text));
    free(text);
}

/* After a reboot the register is another one, and the log has begun anew. */
static void the_intent_of_an_earlier_boot_is_dropped(void **state)
{
    const struct fixture *f = *state;

    crash(f, AFTER_EXTENDING, B);
    change_intent(f, "boot_id", json_string("5f2c4e56-0d5b-4f5e-9a52-0a2f5f0f3b11"));
    assert_recovers(f, RTMR_OTHER_BOOT);
    assert_false(is_consistent(f)); /* of this boot it says nothing */
}

static void a_damaged_intent_does_no_harm(void **state)
{
    const struct fixture *f = *state;

    write_file(f->intent, "{", 1);
    assert_recovers(f, RTMR_WAS_COMPLETE); /* register and log agree without it */
    assert_settled(f, NULL);
    crash(f, AFTER_EXTENDING, B);
    write_file(f->intent, "{", 1);
    emit_is_refused(f, ERR_PEER, "rtmr-intent.json: damaged");
}

/* Whoever can write the volume may put an old intent there, which the register fits. */
static void an_intent_that_is_played_again_adds_no_line(void **state)
{
    const struct fixture *f = *state;
    char kept[PATH_SIZE + 8];
    struct snapshot before;

    crash(f, AFTER_THE_LINE, B);
    snprintf(kept, sizeof kept, "%s.kept", f->intent);
    assert_int_equal(link(f->intent, kept), 0);
    assert_recovers(f, RTMR_WAS_COMPLETE);
    before = look(f);
    assert_int_equal(rename(kept, f->intent), 0);
    change_intent(f, "log_size", json_integer((json_int_t)before.log.len));
    assert_recovers(f, RTMR_WAS_COMPLETE);
    assert_unchanged(f, &before);
    assert_settled(f, B);
}

static void without_a_place_for_the_intent_nothing_happens(void **state)
{
    struct fixture *f = *state;
    struct rtmr_native elsewhere = f->rtmr;
    struct snapshot before = look(f);
    struct err err = ERR_INIT;
    char missing[PATH_SIZE + 8];

    snprintf(missing, sizeof missing, "%s/missing", f->folder);
    elsewhere.state_dir = missing;
    assert_int_equal(rtmr_native_emit(&elsewhere, MEASUREMENT_EVENT, B, 64, &err), -1);
    assert_err(&err, ERR_SYS, "rtmr-intent.json: cannot create: No such file");
    assert_unchanged(f, &before);
    assert_int_equal(faults.extensions, 0);
}

/* ---- full disks ---- */

enum { CHILD_GOOD = 0, CHILD_CANNOT = 77 };

/* A full tmpfs at `path` with the files that are there now, seen by this process only. */
static bool mount_full(const struct fixture *f, const char *path)
{
    struct snapshot kept = look(f);
    char filler[PATH_SIZE + 8];
    static const char page[PAGE_BYTES];
    bool full;
    int fd;

    if (unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", "none", MS_REC | MS_PRIVATE, "") < 0 ||
        mount("tmpfs", path, "tmpfs", 0, "size=64k") < 0)
        return false;
    if (strcmp(path, f->log_dir) == 0) {
        write_file(f->log, kept.log.data, kept.log.len);
        set_version(f, "1");
        close(open(f->lock, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    }
    snprintf(filler, sizeof filler, "%s/filler", path);
    fd = open(filler, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    while (write(fd, page, sizeof page) > 0)
        continue;
    full = errno == ENOSPC;
    close(fd);
    buf_done(&kept.value);
    buf_done(&kept.log);
    return full;
}

static int emit_onto_full_disk(const struct fixture *f, const char *path)
{
    struct err err = ERR_INIT;
    bool failed;

    if (!mount_full(f, path))
        return CHILD_CANNOT;
    failed = rtmr_native_emit(&f->rtmr, MEASUREMENT_EVENT, B, 64, &err) < 0;
    if (failed && err.kind == ERR_SYS && err.code == ENOSPC && faults.extensions == 0 &&
        !fs_exists(f->intent))
        return CHILD_GOOD;
    fprintf(stderr, "%s, %u extensions\n", err.message, faults.extensions);
    return 1;
}

static void assert_full_disk_is_noticed_in_time(const struct fixture *f, const char *path)
{
    int status = 0;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        _exit(emit_onto_full_disk(f, path));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CHILD_CANNOT)
        skip(); /* no right to mount */
    assert_int_equal(WEXITSTATUS(status), CHILD_GOOD);
}

static void a_full_disk_of_the_log_is_noticed_before_the_register_is_touched(void **state)
{
    enum { LINE_BYTES = 64 };
    const struct fixture *f = *state;
    char page[PAGE_BYTES + 1];

    /* Whole pages of lines: the next one needs another page. */
    for (size_t at = 0; at < PAGE_BYTES; at += LINE_BYTES)
        snprintf(page + at, LINE_BYTES + 1, "{\"event\":\"%038zu\",\"payload\":\"\"}\n",
                 at);
    write_file(f->log, page, PAGE_BYTES);
    assert_full_disk_is_noticed_in_time(f, f->log_dir);
}

static void
a_full_disk_of_the_state_is_noticed_before_the_register_is_touched(void **state)
{
    const struct fixture *f = *state;

    assert_full_disk_is_noticed_in_time(f, f->state_dir);
    assert_settled(f, NULL);
}

#define machine_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        machine_test(an_event_extends_the_register_and_the_log),
        machine_test(the_version_is_the_one_that_dstack_uses),
        machine_test(a_version_that_is_not_known_is_refused),
        machine_test(an_event_that_could_not_be_logged_is_refused),
        machine_test(a_lock_that_is_held_is_told_and_never_waited_for),
        machine_test(a_register_of_another_size_is_refused),
        machine_test(links_are_not_followed),
        machine_test(fifos_and_folders_are_refused_without_waiting),
        machine_test(a_folder_without_a_log_is_refused),
        machine_test(a_register_that_is_not_there_is_named),
        machine_test(nothing_is_appended_to_half_a_line),
        machine_test(a_log_that_cannot_be_read_has_no_last_event),
        machine_test(an_event_of_another_program_may_name_no_leaf),
        machine_test(a_register_that_refuses_leaves_nothing_behind),
        machine_test(the_register_is_believed_and_not_the_write),
        machine_test(an_emitter_that_ignores_the_lock_is_told),
        machine_test(a_log_that_cannot_be_written_is_completed_later),
        machine_test(whoever_comes_next_completes_the_log),
        machine_test(the_kernel_gets_the_digest_and_nothing_else),
        machine_test(every_crash_is_recovered_from),
        machine_test(the_same_event_again_is_recovered_from_too),
        machine_test(a_log_without_its_beginning_is_recovered_too),
        machine_test(a_crash_while_recovering_is_recovered_from),
        machine_test(others_that_emit_after_a_crash_are_not_in_the_way),
        machine_test(the_error_says_what_was_found),
        machine_test(the_intent_of_an_earlier_boot_is_dropped),
        machine_test(a_damaged_intent_does_no_harm),
        machine_test(an_intent_that_is_played_again_adds_no_line),
        machine_test(without_a_place_for_the_intent_nothing_happens),
        machine_test(a_full_disk_of_the_log_is_noticed_before_the_register_is_touched),
        machine_test(a_full_disk_of_the_state_is_noticed_before_the_register_is_touched),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
