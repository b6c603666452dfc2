/*
 * The unit tests, while something fails: it takes the place of cmocka's runner. A test may fail
 * then, since it does not expect that; what must not be is a crash, a finding of a sanitizer, or one
 * that does not end. What a test that was given up leaves behind says nothing, so leaks are for the
 * scenarios.
 *
 * TORTURE_ONLY=TEXT: only tests with that in their name, TORTURE_KIND=KIND: only that kind.
 */

#include "trial.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

typedef int run_group_fn(const char *name, const struct CMUnitTest *tests, size_t count,
                         CMFixtureFunction setup, CMFixtureFunction teardown);

static run_group_fn *run_group;

struct single {
    const char *group;
    const struct CMUnitTest *test;
    CMFixtureFunction setup;
    CMFixtureFunction teardown;
};

static bool run_single(void *owner, const struct fault *fault,
                       struct trial_report *report)
{
    struct single *single = owner;

    faults_arm(fault);
    report->failed =
        run_group(single->group, single->test, 1, single->setup, single->teardown) != 0;
    return report->failed && fault->at == 0;
}

/* A failed assertion: cmocka would go on with the teardown. */
void _fail(const char *file, int line);
void _fail(const char *file, int line)
{
    fprintf(stderr, "%s:%d\n", file, line);
    trial_give_up();
}

/* cmocka would make a failed test of a crash. */
typedef void (*handler)(int);
handler signal(int number, handler to);
handler signal(int number, handler to)
{
    static handler (*real)(int, handler);

    if (real == NULL) {
        void *found = fault_real("signal");
        memcpy(&real, &found, sizeof real);
    }
    switch (number) {
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGABRT:
        return SIG_DFL; /* nor may it take the sanitizer's handlers away when it is through */
    default:
        return real(number, to);
    }
}

/* Long by themselves, since they repeat one thing very often or wait: failures show nothing more there. */
static bool is_long(const char *name)
{
    return strcmp(name, "openings_without_an_end_are_read_once") == 0 ||
           strcmp(name, "random_texts_can_be_loaded_again") == 0 ||
           strcmp(name, "test_one_that_cannot_be_ended_is_left_alone") == 0;
}

static bool is_wanted(const char *variable, const char *name)
{
    const char *wanted = getenv(variable);

    return wanted == NULL || strstr(name, wanted) != NULL;
}

int _cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests,
                            size_t count, CMFixtureFunction setup,
                            CMFixtureFunction teardown)
{
    struct trial_sum all = {0};
    void *found = fault_real("_cmocka_run_group_tests");

    memcpy(&run_group, &found, sizeof run_group);
    trial_warm_up();
    setenv("LOOP_LIMIT_MS", "8000",
           0); /* before a trial ends: a test that waits in vain has noticed */
    for (size_t i = 0; i < count; i++) {
        struct single single = {name, &tests[i], setup, teardown};

        if (!is_wanted("TORTURE_ONLY", tests[i].name) || is_long(tests[i].name))
            continue;
        for (enum fault_kind kind = FAULT_MEMORY; kind < FAULT_KINDS; kind++) {
            struct trial_sum sum;

            if (!is_wanted("TORTURE_KIND", fault_kind_name(kind)))
                continue;
            sum = trial_run_all(tests[i].name, kind, false, run_single, &single);
            all.calls += sum.calls;
            all.trials += sum.trials;
            all.noticed += sum.noticed;
            all.findings += sum.findings;
        }
    }
    printf(
        "%zu tests, %lu calls, %lu runs with a failure, %lu noticed it, %lu findings\n",
        count, all.calls, all.trials, all.noticed, all.findings);
    fflush(stdout);
    _exit(all.findings > 0); /* leaks have been judged */
}
