#include "adapters/upstream_watch.h"

#include "support/loop.h"
#include "support/site_fixture.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The first resolves on every machine; glibc refuses the other's empty label by itself. */
#define GOOD "localhost"
#define BAD "no..such.invalid"

struct fixture {
    uv_loop_t *loop;
    struct site_fixture site;
    struct upstream_watch watch;
    char events[512]; /* one word for each, since the last look */
    unsigned looked_up;
    unsigned rounds;
    unsigned ready;
    const char *close_at; /* the first event of this word closes the watch */
    bool closed;
    bool in_call; /* the test is inside a function of the watch */
};

static void close_watch(struct fixture *f)
{
    f->closed = true;
    upstream_watch_close(&f->watch);
}

static void add_event(struct fixture *f, const char *word)
{
    size_t used = strlen(f->events);

    assert_false(f->in_call);
    assert_false(f->closed);
    snprintf(f->events + used, sizeof f->events - used, "%s%s", used == 0 ? "" : " ",
             word);
    if (f->close_at != NULL && strcmp(f->close_at, word) == 0)
        close_watch(f);
}

static void on_looked_up(void *owner, const struct upstream *upstream, bool changed,
                         const struct err *err)
{
    struct fixture *f = owner;

    assert_true(upstream >= f->watch.upstreams.items &&
                upstream < f->watch.upstreams.items + f->watch.upstreams.count);
    assert_false(upstream->literal);
    assert_int_equal(err != NULL, strcmp(upstream->host, BAD) == 0);
    if (err != NULL) {
        assert_int_equal(err->kind, ERR_NET);
        assert_non_null(strstr(err->message, BAD " does not resolve"));
    }
    f->looked_up++;
    add_event(f, err != NULL ? "failed" : changed ? "changed" : "same");
}

static void on_round_over(void *owner, bool changed)
{
    struct fixture *f = owner;

    f->rounds++;
    add_event(f, changed ? "round-changed" : "round");
}

static void on_ready(void *owner)
{
    struct fixture *f = owner;

    f->ready++;
    add_event(f, "ready");
}

static const struct upstream_watch_events events = {
    .looked_up = on_looked_up,
    .round_over = on_round_over,
    .ready = on_ready,
};

/* Two services; "name:port" or an address. */
static void init(struct fixture *f, const char *attestation, const char *auth)
{
    struct err err = ERR_INIT;

    f->site.config.attestation.upstream = site_text(attestation);
    f->site.config.auth.upstream = site_text(auth);
    if (upstream_watch_init(&f->watch, f->loop, &f->site.config, &events, f, &err) < 0)
        fail_msg("%s", err.message);
}

static void start_limited(struct fixture *f)
{
    f->in_call = true;
    upstream_watch_start(&f->watch, UPSTREAM_WATCH_FIRST_ROUND_MS);
    f->in_call = false;
    assert_string_equal(f->events, "");
}

/* A machine that is busy must not make the first round late. */
static void start(struct fixture *f)
{
    start_limited(f);
    timer_stop(&f->watch.first);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    void *loop = NULL;

    assert_non_null(f);
    loop_setup(&loop);
    f->loop = loop;
    site_fixture_init(&f->site);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    void *loop = f->loop;

    if (!f->closed)
        close_watch(f);
    loop_run(f->loop);
    upstream_watch_done(&f->watch);
    free(f);
    return loop_teardown(&loop);
}

static bool round_is_over(void *owner)
{
    const struct fixture *f = owner;

    return f->rounds > 0;
}

static bool is_ready(void *owner)
{
    const struct fixture *f = owner;

    return f->ready > 0;
}

/* The events of one round; the next one is brought about, not waited for. */
static void run_round(struct fixture *f)
{
    f->events[0] = '\0';
    f->rounds = 0;
    timer_set(&f->watch.timer, 0);
    loop_run_until(f->loop, round_is_over, f);
}

static void expect_due(const struct fixture *f, uint64_t limit_ms)
{
    uint64_t due_ms = uv_timer_get_due_in(&f->watch.timer.handle);

    assert_true(due_ms <= limit_ms);
    assert_true(due_ms > limit_ms - 1000);
}

static void set_address(struct upstream *upstream, const char *address)
{
    snprintf(upstream->addresses[0], sizeof upstream->addresses[0], "%s", address);
    upstream->count = 1;
}

/* ---- rounds ---- */

static void a_round_looks_every_name_up(void **state)
{
    struct fixture *f = *state;

    init(f, GOOD ":8080", GOOD ":8081");
    start(f);
    loop_run_until(f->loop, is_ready, f);
    assert_string_equal(f->events, "changed changed round-changed ready");
    for (size_t i = 0; i < 2; i++)
        assert_true(f->watch.upstreams.items[i].count >= 1);
    assert_false(upstreams_any_missing(&f->watch.upstreams));
    expect_due(f, UPSTREAM_WATCH_CALM_MS);
}

static void a_name_that_does_not_resolve_is_asked_for_soon(void **state)
{
    struct fixture *f = *state;

    init(f, BAD ":8080", GOOD ":8081");
    start(f);
    loop_run_until(f->loop, is_ready, f);
    assert_int_equal(f->looked_up, 2);
    assert_non_null(strstr(f->events, "failed"));
    assert_non_null(strstr(f->events, " round-changed ready"));
    assert_true(upstreams_any_missing(&f->watch.upstreams));
    expect_due(f, UPSTREAM_WATCH_MISSING_MS);
}

static void further_rounds_report_changes_only(void **state)
{
    struct fixture *f = *state;

    init(f, GOOD ":8080", "10.0.0.2:8081");
    start(f);
    loop_run_until(f->loop, is_ready, f);
    assert_string_equal(f->events, "changed round-changed ready");
    run_round(f);
    assert_string_equal(f->events, "same round");
    set_address(&f->watch.upstreams.items[0], "10.9.9.9");
    run_round(f);
    assert_string_equal(f->events, "changed round-changed");
    run_round(f);
    assert_string_equal(f->events, "same round");
    assert_string_equal(f->watch.upstreams.items[1].addresses[0], "10.0.0.2");
    assert_int_equal(f->ready, 1);
}

/* What answered a moment ago is a better guess than nothing. */
static void a_failure_keeps_the_addresses_of_before(void **state)
{
    struct fixture *f = *state;

    init(f, BAD ":8080", "10.0.0.2:8081");
    start(f);
    loop_run_until(f->loop, is_ready, f);
    assert_string_equal(f->events, "failed round ready");
    set_address(&f->watch.upstreams.items[0], "10.9.9.9");
    run_round(f);
    assert_string_equal(f->events, "failed round");
    assert_int_equal(f->watch.upstreams.items[0].count, 1);
    assert_string_equal(f->watch.upstreams.items[0].addresses[0], "10.9.9.9");
    expect_due(f, UPSTREAM_WATCH_CALM_MS);
}

static void without_names_nothing_runs(void **state)
{
    struct fixture *f = *state;

    init(f, "10.0.0.1:8080", "[fd00::2]:8081");
    start(f);
    loop_run_until(f->loop, is_ready, f);
    assert_string_equal(f->events, "round ready");
    assert_false(uv_is_active((uv_handle_t *)&f->watch.timer.handle));
    assert_false(uv_is_active((uv_handle_t *)&f->watch.first.handle));
}

/* ---- a resolver that hangs ---- */

/* libuv's pool has four threads unless UV_THREADPOOL_SIZE says otherwise. */
enum { POOL = 4 };

struct hanging {
    uv_work_t work[POOL];
    sem_t unblock;
};

static void hang(uv_work_t *work)
{
    struct hanging *hanging = work->data;

    sem_wait(&hanging->unblock);
}

static void on_unblocked(uv_work_t *work, int status)
{
    (void)work;
    (void)status;
}

static void block_resolver(struct hanging *hanging, uv_loop_t *loop)
{
    sem_init(&hanging->unblock, 0, 0);
    for (int i = 0; i < POOL; i++) {
        hanging->work[i].data = hanging;
        assert_int_equal(uv_queue_work(loop, &hanging->work[i], hang, on_unblocked), 0);
    }
}

static void unblock_resolver(struct hanging *hanging)
{
    for (int i = 0; i < POOL; i++)
        sem_post(&hanging->unblock);
}

static void a_resolver_that_hangs_holds_nothing_up(void **state)
{
    struct fixture *f = *state;
    struct hanging hanging;
    uint64_t begin_ms = uv_now(f->loop);

    block_resolver(&hanging, f->loop);
    init(f, GOOD ":8080", BAD ":8081");
    start_limited(f);
    loop_run_until(f->loop, is_ready, f);
    assert_string_equal(f->events, "ready");
    assert_true(uv_now(f->loop) - begin_ms >= UPSTREAM_WATCH_FIRST_ROUND_MS);
    f->events[0] = '\0';
    unblock_resolver(&hanging);
    loop_run_until(f->loop, round_is_over, f);
    assert_int_equal(f->looked_up, 2);
    assert_non_null(strstr(f->events, "round-changed"));
    assert_int_equal(f->ready, 1);
    close_watch(f);
    loop_run(f->loop);
    sem_destroy(&hanging.unblock);
}

static void closing_while_names_are_looked_up(void **state)
{
    struct fixture *f = *state;
    struct hanging hanging;

    block_resolver(&hanging, f->loop);
    init(f, GOOD ":8080", BAD ":8081");
    start(f);
    while (f->watch.pending == 0)
        uv_run(f->loop, UV_RUN_NOWAIT);
    close_watch(f);
    unblock_resolver(&hanging);
    loop_run(f->loop);
    assert_int_equal(f->watch.pending, 0);
    assert_string_equal(f->events, "");
    sem_destroy(&hanging.unblock);
}

/* ---- its end ---- */

static void closing_before_the_first_round(void **state)
{
    struct fixture *f = *state;

    init(f, GOOD ":8080", BAD ":8081");
    start(f);
    close_watch(f);
    loop_run(f->loop);
    assert_string_equal(f->events, "");
}

static void closing_without_a_start(void **state)
{
    struct fixture *f = *state;

    init(f, GOOD ":8080", BAD ":8081");
    loop_run(f->loop);
    assert_string_equal(f->events, "");
}

/* Every event may be the last: add_event fails the test when another one follows. */
static void an_event_may_close_it(void **state)
{
    static const struct {
        const char *word;
        const char *events;
    } moments[] = {
        {"failed", "failed"},
        {"round", "failed round"},
        {"ready", "failed round ready"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        f->events[0] = '\0';
        f->close_at = moments[i].word;
        f->closed = false;
        init(f, BAD ":8080", "10.0.0.2:8081");
        start(f);
        loop_run(f->loop);
        assert_true(f->closed);
        assert_string_equal(f->events, moments[i].events);
        if (i + 1 < sizeof moments / sizeof moments[0])
            upstream_watch_done(&f->watch);
    }
}

static void an_event_of_two_names_may_close_it(void **state)
{
    struct fixture *f = *state;

    f->close_at = "failed";
    init(f, BAD ":8080", BAD ":8081");
    start(f);
    loop_run(f->loop);
    assert_string_equal(f->events, "failed");
    assert_int_equal(f->watch.pending, 0);
}

/* Nothing is left of one that cannot be. */
static void a_setting_that_is_no_backend_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    f->site.config.auth.upstream = site_text("no port");
    assert_int_equal(
        upstream_watch_init(&f->watch, f->loop, &f->site.config, &events, f, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.message, "auth.upstream: \"no port\""));
    f->closed = true;
}

#define watch_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        watch_test(a_round_looks_every_name_up),
        watch_test(a_name_that_does_not_resolve_is_asked_for_soon),
        watch_test(further_rounds_report_changes_only),
        watch_test(a_failure_keeps_the_addresses_of_before),
        watch_test(without_names_nothing_runs),
        watch_test(a_resolver_that_hangs_holds_nothing_up),
        watch_test(closing_while_names_are_looked_up),
        watch_test(closing_before_the_first_round),
        watch_test(closing_without_a_start),
        watch_test(an_event_may_close_it),
        watch_test(an_event_of_two_names_may_close_it),
        watch_test(a_setting_that_is_no_backend_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
