#include "runtime/seq.h"

#include "base/log.h"
#include "runtime/observer.h"
#include "support/loop.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a flow whose steps a, b and c do what the test has written down for them ---- */

enum begin { READY, WAIT, FAIL, CANCEL_AND_READY, CANCEL_AND_WAIT };
enum operation { SUCCEEDS, FAILS, HANGS, IS_SLOW };
/* What a canceled operation reports. */
enum abort_report { CANCELED, SUCCESS, OTHER_ERROR, IN_ITS_OWN_TIME };

struct script {
    enum begin begin;
    enum operation operation;
    enum abort_report report;
    bool finish_fails;
    bool finish_cancels;
    bool ends;         /* finish says SEQ_END */
    const char *go_to; /* on the first visit only */
};

struct flow {
    struct seq seq;
    struct ended ended;
    struct script a, b, c;
    char trace[256]; /* "+a" begin, "-a" finish, "!a" abort */
    struct timer operation;
    struct err operation_err;
    bool in_call;
    unsigned rounds;
};

static struct script *script(struct flow *flow)
{
    switch (seq_step_name(&flow->seq)[0]) {
    case 'a':
        return &flow->a;
    case 'b':
        return &flow->b;
    default:
        return &flow->c;
    }
}

static void trace(struct flow *flow, char what)
{
    size_t used = strlen(flow->trace);

    assert_false(flow->in_call);
    snprintf(flow->trace + used, sizeof flow->trace - used, "%c%s ", what,
             seq_step_name(&flow->seq));
}

static void on_operation_closed(void *owner)
{
    struct flow *flow = owner;
    struct err err = flow->operation_err;

    flow->operation_err = (struct err)ERR_INIT;
    seq_resume(&flow->seq, err.kind == ERR_NONE ? NULL : &err);
}

static void on_operation_ends(void *owner)
{
    struct flow *flow = owner;

    timer_close(&flow->operation, on_operation_closed);
}

static void start_operation(struct flow *flow, enum operation operation)
{
    timer_init(&flow->operation, flow->seq.timer.handle.loop, on_operation_ends, flow);
    if (operation == FAILS)
        err_set_code(&flow->operation_err, ERR_PEER, 404, "refused");
    timer_set(&flow->operation, operation == HANGS     ? 1000000
                                : operation == IS_SLOW ? 60
                                                       : 1);
}

static int begin(void *owner, struct err *err)
{
    struct flow *flow = owner;
    const struct script *s = script(flow);

    trace(flow, '+');
    if (s->begin == FAIL)
        return err_set(err, ERR_CONFIG, "cannot begin");
    if (s->begin == CANCEL_AND_READY || s->begin == CANCEL_AND_WAIT)
        seq_cancel(&flow->seq);
    if (s->begin == READY || s->begin == CANCEL_AND_READY)
        return SEQ_READY;
    start_operation(flow, s->operation);
    return SEQ_WAIT;
}

static int finish(void *owner, struct err *err)
{
    struct flow *flow = owner;
    struct script *s = script(flow);
    const char *go_to = s->go_to;

    trace(flow, '-');
    if (s->finish_cancels)
        seq_cancel(&flow->seq);
    if (s->finish_fails)
        return err_set(err, ERR_CRYPTO, "cannot finish");
    if (s->ends)
        return SEQ_END;
    s->go_to = NULL;
    return go_to != NULL ? seq_go_to(&flow->seq, go_to) : SEQ_NEXT;
}

static void abort_operation(void *owner)
{
    struct flow *flow = owner;
    enum abort_report report = script(flow)->report;

    trace(flow, '!');
    if (report == IN_ITS_OWN_TIME)
        return;
    if (report == CANCELED)
        err_set(&flow->operation_err, ERR_CANCELED, "as you wish");
    else if (report == OTHER_ERROR)
        err_set(&flow->operation_err, ERR_NET, "line is dead");
    timer_set(&flow->operation, 0);
}

static const struct seq_step abc[] = {
    {"a", begin, finish, abort_operation, 20000},
    {"b", begin, finish, abort_operation, 30},
    {"c", begin, finish, abort_operation, 0},
    {NULL, NULL, NULL, NULL, 0},
};

static void start_table(struct flow *flow, uv_loop_t *loop, const struct seq_step *table)
{
    flow->in_call = true;
    seq_start(&flow->seq, loop, "alphabet", table, flow, ended_done, &flow->ended);
    flow->in_call = false;
    assert_int_equal(flow->ended.times, 0);
}

static void start(struct flow *flow, uv_loop_t *loop)
{
    start_table(flow, loop, abc);
}

static bool is_waiting(void *owner)
{
    return ((struct flow *)owner)->seq.waiting;
}

/* ---- the way through the table ---- */

static void test_steps_in_order(void **state)
{
    struct flow flow = {.a.begin = WAIT, .b.begin = WAIT, .c.begin = WAIT};

    start(&flow, *state);
    assert_string_equal(flow.trace, ""); /* not before the loop runs */
    assert_string_equal(seq_step_name(&flow.seq), "a");
    loop_run(*state);
    ended_assert_ok(&flow.ended);
    assert_string_equal(flow.trace, "+a -a +b -b +c -c ");
    assert_null(seq_step_name(&flow.seq));
}

static void test_finish_comes_at_once_when_ready(void **state)
{
    struct flow flow = {.a.begin = READY, .b.begin = WAIT, .c.begin = READY};

    start(&flow, *state);
    loop_run(*state);
    ended_assert_ok(&flow.ended);
    assert_string_equal(flow.trace, "+a -a +b -b +c -c ");
}

static void test_empty_table(void **state)
{
    static const struct seq_step none[] = {{NULL, NULL, NULL, NULL, 0}};
    struct flow flow = {.trace = ""};

    start_table(&flow, *state, none);
    assert_null(seq_step_name(&flow.seq));
    loop_run(*state);
    ended_assert_ok(&flow.ended);
}

static void test_step_without_begin_and_without_finish(void **state)
{
    static const struct seq_step table[] = {
        {"a", NULL, finish, NULL, 0},
        {"b", begin, NULL, abort_operation, 20000},
        {"c", NULL, NULL, NULL, 0},
        {NULL, NULL, NULL, NULL, 0},
    };
    struct flow flow = {.b.begin = WAIT};

    start_table(&flow, *state, table);
    loop_run(*state);
    ended_assert_ok(&flow.ended);
    assert_string_equal(flow.trace, "-a +b ");
}

static void test_end_before_the_last_step(void **state)
{
    struct flow flow = {.a.begin = WAIT, .a.ends = true};

    start(&flow, *state);
    loop_run(*state);
    ended_assert_ok(&flow.ended);
    assert_string_equal(flow.trace, "+a -a ");
}

static void test_go_to(void **state)
{
    struct flow forward = {.a.begin = WAIT, .a.go_to = "c"};
    struct flow back = {.a.begin = WAIT, .b.begin = WAIT, .b.go_to = "a"};
    struct flow same = {.c.begin = WAIT, .c.go_to = "c"};

    start(&forward, *state);
    start(&back, *state);
    start(&same, *state);
    loop_run(*state);
    ended_assert_ok(&forward.ended);
    ended_assert_ok(&back.ended);
    ended_assert_ok(&same.ended);
    assert_string_equal(forward.trace, "+a -a +c -c ");
    assert_string_equal(back.trace, "+a -a +b -b +a -a +b -b +c -c ");
    assert_string_equal(same.trace, "+a -a +b -b +c -c +c -c ");
}

static int count_round(void *owner, struct err *err)
{
    struct flow *flow = owner;

    (void)err;
    if (++flow->rounds == 1000000)
        return SEQ_END;
    return seq_go_to(&flow->seq, "ready");
}

static int be_ready(void *owner, struct err *err)
{
    (void)owner;
    (void)err;
    return SEQ_READY;
}

/* A million steps would not fit on the stack: they are run in a loop. */
static void test_ready_steps_do_not_recurse(void **state)
{
    static const struct seq_step table[] = {
        {"ready", be_ready, NULL, NULL, 0},
        {"count", NULL, count_round, NULL, 0},
        {NULL, NULL, NULL, NULL, 0},
    };
    struct flow flow = {.rounds = 0};

    start_table(&flow, *state, table);
    loop_run(*state);
    ended_assert_ok(&flow.ended);
    assert_int_equal(flow.rounds, 1000000);
}

/* ---- failures ---- */

static void test_begin_fails(void **state)
{
    struct flow flow = {.a.begin = WAIT, .b.begin = FAIL};

    start(&flow, *state);
    loop_run(*state);
    ended_assert_failed(&flow.ended, ERR_CONFIG, "b: cannot begin");
    assert_string_equal(flow.trace, "+a -a +b ");
}

static void test_first_begin_fails(void **state)
{
    struct flow flow = {.a.begin = FAIL};

    start(&flow, *state);
    loop_run(*state);
    ended_assert_failed(&flow.ended, ERR_CONFIG, "a: cannot begin");
}

static void test_operation_fails(void **state)
{
    struct flow flow = {.a = {.begin = WAIT, .operation = FAILS}};

    start(&flow, *state);
    loop_run(*state);
    ended_assert_failed(&flow.ended, ERR_PEER, "a: refused");
    assert_int_equal(flow.ended.err.code, 404);
    assert_string_equal(flow.trace, "+a ");
}

static void test_finish_fails(void **state)
{
    struct flow flow = {.a = {.begin = WAIT, .finish_fails = true}};

    start(&flow, *state);
    loop_run(*state);
    ended_assert_failed(&flow.ended, ERR_CRYPTO, "a: cannot finish");
    assert_string_equal(flow.trace, "+a -a ");
}

static void test_time_out_whatever_the_operation_reports(void **state)
{
    static const enum abort_report reports[] = {CANCELED, SUCCESS, OTHER_ERROR};

    for (size_t i = 0; i < 3; i++) {
        struct flow flow = {
            .b = {.begin = WAIT, .operation = HANGS, .report = reports[i]}};

        start(&flow, *state);
        loop_run(*state);
        ended_assert_failed(&flow.ended, ERR_TIMEOUT, "b: not finished within 30 ms");
        assert_string_equal(flow.trace, "+a -a +b !b ");
    }
}

/* ---- cancel ---- */

static void test_cancel_before_the_first_step(void **state)
{
    struct flow flow = {.a.begin = WAIT};

    start(&flow, *state);
    seq_cancel(&flow.seq);
    seq_cancel(&flow.seq);
    assert_int_equal(flow.ended.times, 0);
    loop_run(*state);
    ended_assert_failed(&flow.ended, ERR_CANCELED, "a: canceled");
    assert_string_equal(flow.trace, "");
}

static void test_cancel_while_waiting(void **state)
{
    static const enum abort_report reports[] = {CANCELED, SUCCESS, OTHER_ERROR};

    for (size_t i = 0; i < 3; i++) {
        struct flow flow = {
            .a = {.begin = WAIT, .operation = HANGS, .report = reports[i]}};

        start(&flow, *state);
        loop_run_until(*state, is_waiting, &flow);
        seq_cancel(&flow.seq);
        seq_cancel(&flow.seq);
        assert_int_equal(flow.ended.times, 0);
        loop_run(*state);
        ended_assert_failed(&flow.ended, ERR_CANCELED, "a: canceled");
        assert_string_equal(flow.trace, "+a !a ");
    }
}

static void test_cancel_by_a_step_itself(void **state)
{
    struct flow ready = {.a.begin = CANCEL_AND_READY};
    struct flow wait = {.a = {.begin = CANCEL_AND_WAIT, .operation = HANGS}};
    struct flow finishing = {.a = {.begin = WAIT, .finish_cancels = true}};
    struct flow ending = {.a = {.begin = WAIT, .finish_cancels = true, .ends = true}};
    struct flow last = {.c = {.begin = WAIT, .finish_cancels = true}};
    struct flow failing = {
        .a = {.begin = WAIT, .finish_cancels = true, .finish_fails = true}};

    start(&ready, *state);
    start(&wait, *state);
    start(&finishing, *state);
    start(&ending, *state);
    start(&last, *state);
    start(&failing, *state);
    loop_run(*state);
    ended_assert_failed(&ready.ended, ERR_CANCELED, "canceled");
    ended_assert_failed(&wait.ended, ERR_CANCELED, "a: canceled");
    ended_assert_failed(&finishing.ended, ERR_CANCELED, "canceled");
    ended_assert_failed(&ending.ended, ERR_CANCELED, "a: canceled");
    ended_assert_failed(&last.ended, ERR_CANCELED, "canceled after the last step");
    ended_assert_failed(&failing.ended, ERR_CANCELED, "a: canceled");
    assert_string_equal(ready.trace, "+a ");
    assert_string_equal(wait.trace, "+a !a ");
    assert_string_equal(finishing.trace, "+a -a ");
    assert_string_equal(last.trace, "+a -a +b -b +c -c ");
}

static bool waits_in_b(void *owner)
{
    struct flow *flow = owner;

    return flow->seq.waiting && seq_step_name(&flow->seq)[0] == 'b';
}

/* The step's limit passes while the canceled operation is still on its way to its end. */
static void test_time_out_after_cancel(void **state)
{
    struct flow flow = {
        .b = {.begin = WAIT, .operation = IS_SLOW, .report = IN_ITS_OWN_TIME}};

    start(&flow, *state);
    loop_run_until(*state, waits_in_b, &flow);
    seq_cancel(&flow.seq);
    loop_run(*state);
    ended_assert_failed(&flow.ended, ERR_CANCELED, "b: canceled");
    assert_string_equal(flow.trace, "+a -a +b !b ");
}

static bool has_timed_out(void *owner)
{
    return ((struct flow *)owner)->seq.timed_out;
}

static void test_cancel_after_the_time_out(void **state)
{
    struct flow flow = {.b = {.begin = WAIT, .operation = HANGS}};

    start(&flow, *state);
    loop_run_until(*state, has_timed_out, &flow);
    seq_cancel(&flow.seq);
    loop_run(*state);
    ended_assert_failed(&flow.ended, ERR_CANCELED, "b: canceled");
    assert_string_equal(flow.trace, "+a -a +b !b "); /* aborted once */
}

static void test_cancel_after_done(void **state)
{
    struct flow flow = {.a.begin = WAIT};
    struct seq zeroed = {.running = false};

    start(&flow, *state);
    loop_run(*state);
    seq_cancel(&flow.seq);
    seq_cancel(&zeroed);
    assert_null(seq_step_name(&zeroed));
    loop_run(*state);
    ended_assert_ok(&flow.ended);
}

/* ---- done ---- */

struct again {
    struct seq seq;
    uv_loop_t *loop;
    unsigned left;
};

static int always_fail(void *owner, struct err *err)
{
    (void)owner;
    return err_set(err, ERR_NET, "always");
}

static void on_again_done(void *owner, const struct err *err);

static const struct seq_step failing_table[] = {
    {"fail", always_fail, NULL, NULL, 0},
    {NULL, NULL, NULL, NULL, 0},
};

static void on_again_done(void *owner, const struct err *err)
{
    struct again *again = owner;

    assert_null(seq_step_name(&again->seq));
    if (again->left-- > 0)
        seq_start(&again->seq, again->loop, "again", failing_table, again, on_again_done,
                  again);
    else
        free(again);
    /* It outlives the sequence. */
    assert_string_equal(err->message, "fail: always");
}

static void test_done_may_restart_and_free(void **state)
{
    struct again *again = calloc(1, sizeof *again);

    assert_non_null(again);
    again->loop = *state;
    again->left = 3;
    seq_start(&again->seq, *state, "again", failing_table, again, on_again_done, again);
    loop_run(*state);
}

/* A sequence is an operation, so it can be a step of another one. */
struct outer {
    struct seq seq;
    struct ended ended;
    struct flow inner;
};

static int begin_inner(void *owner, struct err *err)
{
    struct outer *outer = owner;

    (void)err;
    seq_start(&outer->inner.seq, outer->seq.timer.handle.loop, "inner", abc,
              &outer->inner, seq_resume, &outer->seq);
    return SEQ_WAIT;
}

static void abort_inner(void *owner)
{
    seq_cancel(&((struct outer *)owner)->inner.seq);
}

static const struct seq_step outer_table[] = {
    {"inner", begin_inner, NULL, abort_inner, 0},
    {NULL, NULL, NULL, NULL, 0},
};

static void test_sequence_in_a_sequence(void **state)
{
    struct outer good = {.inner.a.begin = WAIT};
    struct outer bad = {.inner.b = {.begin = WAIT, .operation = FAILS}};
    struct outer canceled = {.inner.a = {.begin = WAIT, .operation = HANGS}};

    seq_start(&good.seq, *state, "outer", outer_table, &good, ended_done, &good.ended);
    seq_start(&bad.seq, *state, "outer", outer_table, &bad, ended_done, &bad.ended);
    seq_start(&canceled.seq, *state, "outer", outer_table, &canceled, ended_done,
              &canceled.ended);
    loop_run_until(*state, is_waiting, &canceled.inner);
    seq_cancel(&canceled.seq);
    loop_run(*state);
    ended_assert_ok(&good.ended);
    ended_assert_failed(&bad.ended, ERR_PEER, "inner: b: refused");
    ended_assert_failed(&canceled.ended, ERR_CANCELED, "inner: canceled");
}

/* ---- programming errors assert ---- */

static void assert_aborts(void (*misuse)(struct flow *flow), struct flow *flow)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct rlimit no_core = {0, 0};

        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        fclose(stderr);
        misuse(flow);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void resume(struct flow *flow)
{
    seq_resume(&flow->seq, NULL);
}

static void go_to_unknown(struct flow *flow)
{
    seq_go_to(&flow->seq, "d");
}

static void test_misuse_asserts(void **state)
{
    struct flow flow = {.a.begin = READY};

    start(&flow, *state);
    assert_aborts(resume, &flow); /* before the first step */
    assert_aborts(go_to_unknown, &flow);
    loop_run(*state);
    assert_aborts(resume, &flow); /* after done */
    ended_assert_ok(&flow.ended);
}

/* ---- what the log has ---- */

/* Runs the flow; the lines without their head into `ret`. */
static void read_log(struct flow *flow, uv_loop_t *loop, char *ret, size_t size)
{
    char line[256];
    size_t used = 0;
    FILE *log = tmpfile();

    assert_non_null(log);
    log_open(fileno(log), LOG_DEBUG);
    start(flow, loop);
    loop_run(loop);
    log_open(STDERR_FILENO, LOG_INFO);
    rewind(log);
    ret[0] = '\0';
    while (fgets(line, sizeof line, log) != NULL) {
        const char *text = strstr(line, " - DEBUG - ");

        assert_non_null(text);
        used += (size_t)snprintf(ret + used, size - used, "%s", text + 11);
        assert_true(used < size);
    }
    fclose(log);
}

/* Others look for these words. */
static void test_each_step_has_two_lines(void **state)
{
    struct flow flow = {.a.begin = READY, .b.begin = WAIT, .c = {.ends = true}};
    char lines[1024];

    read_log(&flow, *state, lines, sizeof lines);
    ended_assert_ok(&flow.ended);
    assert_string_equal(lines,
                        "alphabet: a: begins\nalphabet: a: ended\n"
                        "alphabet: b: begins\nalphabet: b: ended\n"
                        "alphabet: c: begins\nalphabet: c: ended\n"
                        "alphabet: finished\n");
}

static void test_step_that_fails_has_not_ended(void **state)
{
    struct flow flow = {.a.begin = READY, .b = {.begin = WAIT, .operation = FAILS}};
    char lines[1024];

    read_log(&flow, *state, lines, sizeof lines);
    ended_assert_failed(&flow.ended, ERR_PEER, "b: refused");
    assert_string_equal(lines,
                        "alphabet: a: begins\nalphabet: a: ended\n"
                        "alphabet: b: begins\nalphabet: b: failed\n");
}

static const char *place_said[2]; /* of the last line */

static size_t note_place(char *line, size_t size, const struct log_record *record)
{
    place_said[0] = record->place.flow;
    place_said[1] = record->place.step;
    return (size_t)snprintf(line, size, "%s", "");
}

static int say(void *flow, struct err *err)
{
    (void)flow;
    (void)err;
    log_warning("said by a step");
    assert_string_equal(place_said[0], "alphabet");
    assert_string_equal(place_said[1], "a");
    return SEQ_NEXT;
}

static const struct seq_step talking[] = {
    {"a", say, say, NULL, 0},
    {NULL, NULL, NULL, NULL, 0},
};

static void test_what_a_step_says_is_of_its_place(void **state)
{
    struct flow flow = {.a.begin = READY};

    log_set_form(note_place);
    start_table(&flow, *state, talking);
    loop_run(*state);
    ended_assert_ok(&flow.ended);
    log_warning("said by nobody");
    assert_null(place_said[0]);
    assert_null(place_said[1]);
    log_set_form(NULL);
}

static void test_a_failure_knows_its_place(void **state)
{
    struct flow flow = {.a.begin = READY, .b = {.begin = WAIT, .operation = FAILS}};

    start(&flow, *state);
    loop_run(*state);
    ended_assert_failed(&flow.ended, ERR_PEER, "b: refused");
    assert_string_equal(flow.ended.err.flow, "alphabet");
    assert_string_equal(flow.ended.err.step, "b");
    /* Which is that of this failure only. */
    err_wrap(&flow.ended.err, "wrapped");
    assert_string_equal(flow.ended.err.step, "b");
    err_set(&flow.ended.err, ERR_SYS, "another one");
    assert_null(flow.ended.err.flow);
    assert_null(flow.ended.err.step);
}

static void on_observed(void *owner, const struct observation *observation)
{
    char *told = owner;
    size_t used = strlen(told);

    assert_true(observation->seconds >= 0);
    snprintf(told + used, 96 - used, "%s/%s/%d/%d ", observation->subject,
             observation->detail, observation->what, observation->failure);
}

static void test_observer_is_told_of_each_step(void **state)
{
    struct flow flow = {.a.begin = READY, .b = {.begin = WAIT, .operation = FAILS}};
    char told[96] = "";
    char expected[96];

    observer_set(on_observed, told);
    start(&flow, *state);
    loop_run(*state);
    observer_set(NULL, NULL);
    ended_assert_failed(&flow.ended, ERR_PEER, "b: refused");
    snprintf(expected, sizeof expected,
             "alphabet/a/0/0 alphabet/a/1/0 alphabet/b/0/0 alphabet/b/1/%d ", ERR_PEER);
    assert_string_equal(told, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_steps_in_order),
        loop_test(test_finish_comes_at_once_when_ready),
        loop_test(test_empty_table),
        loop_test(test_step_without_begin_and_without_finish),
        loop_test(test_end_before_the_last_step),
        loop_test(test_go_to),
        loop_test(test_ready_steps_do_not_recurse),
        loop_test(test_begin_fails),
        loop_test(test_first_begin_fails),
        loop_test(test_operation_fails),
        loop_test(test_finish_fails),
        loop_test(test_time_out_whatever_the_operation_reports),
        loop_test(test_cancel_before_the_first_step),
        loop_test(test_cancel_while_waiting),
        loop_test(test_cancel_by_a_step_itself),
        loop_test(test_time_out_after_cancel),
        loop_test(test_cancel_after_the_time_out),
        loop_test(test_cancel_after_done),
        loop_test(test_done_may_restart_and_free),
        loop_test(test_sequence_in_a_sequence),
        loop_test(test_misuse_asserts),
        loop_test(test_each_step_has_two_lines),
        loop_test(test_step_that_fails_has_not_ended),
        loop_test(test_what_a_step_says_is_of_its_place),
        loop_test(test_a_failure_knows_its_place),
        loop_test(test_observer_is_told_of_each_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
