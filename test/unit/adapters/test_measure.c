/* What an event goes through, and what is said when it cannot be made. */
#include "adapters/measure.h"

#include "adapters/rtmr_native.h"
#include "base/fs.h"
#include "domain/runtime_log.h"
#include "support/loop.h"
#include "support/program.h"
#include "support/server.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define LEAF "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define FORMER "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

#define ANSWER(status, body)                                                             \
    "HTTP/1.1 " status "\r\nConnection: close\r\n\r\n" body, .ending = SERVER_CLOSES

enum { PATIENT_MS = 20000, PATH_SIZE = 160 };

struct fixture {
    uv_loop_t *loop;
    struct http *http;
    char folder[64];
    char socket[PATH_SIZE];
    char register_file[PATH_SIZE];
    char log_dir[PATH_SIZE];
    char lock[PATH_SIZE];
    struct server *server;
    struct dstack agent;
    struct config config;
    struct measure measure;
    struct measure_call call;
    struct ended ended;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err = ERR_INIT;
    void *loop = NULL;

    assert_non_null(f);
    loop_setup(&loop);
    f->loop = loop;
    snprintf(f->folder, sizeof f->folder, "/tmp/test-measure-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->socket, sizeof f->socket, "%s/agent.sock", f->folder);
    snprintf(f->register_file, sizeof f->register_file, "%s/rtmr3:sha384", f->folder);
    snprintf(f->log_dir, sizeof f->log_dir, "%s/log", f->folder);
    snprintf(f->lock, sizeof f->lock, "%s/log/runtime_event.lock", f->folder);
    f->http = http_new(f->loop, &err);
    assert_non_null(f->http);
    f->agent = (struct dstack){
        .http = f->http, .configured = f->socket, .timeout_ms = PATIENT_MS};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    void *loop = f->loop;

    server_stop(f->server);
    http_close(f->http, NULL, NULL);
    loop_run(f->loop);
    assert_int_equal(fs_remove_tree(f->folder, &err), 0);
    free(f);
    return loop_teardown(&loop);
}

static void start(struct fixture *f)
{
    measure_init(&f->measure, f->loop, &f->config, &f->agent, f->folder);
}

static void serve(struct fixture *f, const struct server_script *scripts)
{
    const struct server_options options = {.unix_socket = f->socket, .scripts = scripts};

    server_stop(f->server);
    f->server = server_start(&options);
}

static void begin_emission(struct fixture *f)
{
    f->ended = (struct ended){0};
    measure_emit(&f->call, &f->measure, LEAF, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
}

static void emit(struct fixture *f)
{
    begin_emission(f);
    loop_run_until(f->loop, ended_once, &f->ended);
}

static void ask_for_last(struct fixture *f, const char *recorded)
{
    f->ended = (struct ended){0};
    measure_last(&f->call, &f->measure, recorded, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
    loop_run_until(f->loop, ended_once, &f->ended);
}

static void assert_backend(const struct fixture *f, const char *name)
{
    assert_string_equal(measure_backend_name(f->measure.backend), name);
}

/* ---- development ---- */

static void development_measures_nothing_and_says_so(void **state)
{
    struct fixture *f = *state;

    f->config.development = true;
    start(f);
    emit(f);
    ended_assert_ok(&f->ended);
    assert_false(f->call.measured);
    assert_string_equal(f->call.why_not.message, "development mode");
    ask_for_last(f, FORMER);
    ended_assert_ok(&f->ended);
    assert_string_equal(f->call.last, FORMER);
    assert_int_equal(f->call.source, MEASURE_FROM_RECORD);
    assert_backend(f, "development");
}

/* ---- the guest agent ---- */

static void an_agent_without_events_is_no_failure_until_it_has_them(void **state)
{
    static const struct server_script without[] = {
        {.path = "/EmitEvent", .answer = ANSWER("404 Not Found", "no such method")}, {0}};
    static const struct server_script with[] = {
        {.path = "/EmitEvent", .answer = ANSWER("200 OK", "")}, {0}};
    struct fixture *f = *state;

    start(f);
    serve(f, without);
    emit(f);
    ended_assert_ok(&f->ended);
    assert_false(f->call.measured);
    assert_non_null(strstr(f->call.why_not.message, "no such method"));
    assert_backend(f, "none");
    serve(f, with);
    emit(f);
    ended_assert_ok(&f->ended);
    assert_true(f->call.measured);
    assert_backend(f, "emit-event");
}

static void an_agent_that_fails_leaves_nothing_measured(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/EmitEvent", .answer = ANSWER("500 Internal Server Error", "busy")},
        {0}};
    struct fixture *f = *state;

    start(f);
    serve(f, scripts);
    emit(f);
    ended_assert_failed(&f->ended, ERR_PEER, "busy");
    assert_false(f->call.measured);
    assert_backend(f, "emit-event");
}

static void our_record_stands_in_for_a_log_that_is_not_shown(void **state)
{
    static const struct server_script scripts[] = {
        {.path = "/Info",
         .answer = ANSWER("200 OK", "{\"app_name\":\"demo\",\"tcb_info\":\"{}\"}")},
        {0}};
    struct fixture *f = *state;

    start(f);
    serve(f, scripts);
    ask_for_last(f, FORMER);
    ended_assert_ok(&f->ended);
    assert_string_equal(f->call.last, FORMER);
    assert_int_equal(f->call.source, MEASURE_FROM_RECORD);
    assert_string_equal(f->call.app_name, "demo");
}

/* An event may still be on its way: nobody may go on from what we have recorded. */
static void an_agent_that_does_not_answer_is_a_failure(void **state)
{
    struct fixture *f = *state;

    start(f);
    ask_for_last(f, FORMER);
    ended_assert_failed(&f->ended, ERR_NET, f->socket);
}

/* ---- RTMR3 through the kernel ---- */

static ssize_t read_register(int fd, void *ret, size_t size, off_t offset)
{
    return pread(fd, ret, size, offset);
}

static ssize_t extend_register(int fd, const void *digest, size_t size, off_t offset)
{
    unsigned char value[EVENT_DIGEST_BYTES];
    struct err err = ERR_INIT;

    assert_int_equal(pread(fd, value, sizeof value, offset), sizeof value);
    assert_int_equal(event_extend(value, digest, &err), 0);
    assert_int_equal(pwrite(fd, value, sizeof value, offset), sizeof value);
    return (ssize_t)size;
}

static ssize_t append(int fd, const void *line, size_t len)
{
    return write(fd, line, len);
}

static const struct rtmr_native_calls calls = {read_register, extend_register, append};

static void write_file(const char *folder, const char *name, const void *bytes,
                       size_t len)
{
    char path[2 * PATH_SIZE];
    struct err err = ERR_INIT;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(fs_replace(path, bytes, len, 0600, &err), 0);
}

static void start_natively(struct fixture *f)
{
    static const unsigned char zero[EVENT_DIGEST_BYTES];
    struct err err = ERR_INIT;

    assert_int_equal(mkdir(f->log_dir, 0755), 0);
    write_file(f->folder, "rtmr3:sha384", zero, sizeof zero);
    write_file(f->log_dir, "runtime_events.log", "", 0);
    write_file(f->log_dir, "runtime_event_version", "1\n", 2);
    f->config.rtmr3.register_file = f->register_file;
    f->config.rtmr3.log_dir = f->log_dir;
    start(f);
    f->measure.native.calls = &calls;
    assert_int_equal(rtmr_native_emit(&f->measure.native, "system-ready", "", 0, &err),
                     0);
    assert_int_equal(measure_recover(&f->measure, &err), 0);
    assert_backend(f, "native");
}

static int take_lock(const struct fixture *f)
{
    int fd = open(f->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    return fd;
}

static bool was_tried_twice(void *owner)
{
    const struct fixture *f = owner;

    return f->call.tries >= 2;
}

static void what_was_measured_natively_is_the_last_event(void **state)
{
    struct fixture *f = *state;

    start_natively(f);
    ask_for_last(f, FORMER);
    ended_assert_ok(&f->ended);
    assert_string_equal(f->call.last, ""); /* the log knows of none, whatever we do */
    emit(f);
    ended_assert_ok(&f->ended);
    assert_true(f->call.measured);
    ask_for_last(f, FORMER);
    ended_assert_ok(&f->ended);
    assert_string_equal(f->call.last, LEAF);
    assert_int_equal(f->call.source, MEASURE_FROM_LOG);
}

/* An emission that waits. The lock of the other one, to be closed. */
static int begin_behind_another(struct fixture *f)
{
    int lock;

    start_natively(f);
    lock = take_lock(f);
    begin_emission(f);
    loop_run_until(f->loop, was_tried_twice, f);
    return lock;
}

static void another_emitter_is_waited_for(void **state)
{
    struct fixture *f = *state;
    int lock = begin_behind_another(f);

    assert_int_equal(f->ended.times, 0);
    close(lock);
    loop_run_until(f->loop, ended_once, &f->ended);
    ended_assert_ok(&f->ended);
    assert_true(f->call.measured);
}

static void a_wait_for_another_emitter_can_be_canceled(void **state)
{
    struct fixture *f = *state;
    int lock = begin_behind_another(f);

    measure_cancel(&f->call);
    measure_cancel(&f->call);
    loop_run_until(f->loop, ended_once, &f->ended);
    ended_assert_failed(&f->ended, ERR_CANCELED, "");
    assert_false(f->call.measured);
    close(lock);
    ask_for_last(f, "");
    ended_assert_ok(&f->ended);
    assert_string_equal(f->call.last, "");
}

static void a_log_that_ends_within_a_line_is_a_failure(void **state)
{
    struct fixture *f = *state;

    start_natively(f);
    write_file(f->log_dir, "runtime_events.log", "{\"imr\"", 6);
    emit(f);
    ended_assert_failed(&f->ended, ERR_PEER, "runtime_events.log: ends within a line");
    assert_false(f->call.measured);
    ask_for_last(f, FORMER);
    ended_assert_failed(&f->ended, ERR_PEER, "runtime_events.log");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(development_measures_nothing_and_says_so),
        TEST(an_agent_without_events_is_no_failure_until_it_has_them),
        TEST(an_agent_that_fails_leaves_nothing_measured),
        TEST(our_record_stands_in_for_a_log_that_is_not_shown),
        TEST(an_agent_that_does_not_answer_is_a_failure),
        TEST(what_was_measured_natively_is_the_last_event),
        TEST(another_emitter_is_waited_for),
        TEST(a_wait_for_another_emitter_can_be_canceled),
        TEST(a_log_that_ends_within_a_line_is_a_failure),
    };
    return cmocka_run_group_tests(tests, program_setup_http, NULL);
}
