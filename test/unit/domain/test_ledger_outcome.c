/* What a try came to, and what a CA counts of it. */
#include "domain/ledger_outcome.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static enum ledger_outcome of(enum certbot_verdict verdict, const char *problem,
                              bool may_have_issued)
{
    struct certbot_outcome ran = {.verdict = verdict, .may_have_issued = may_have_issued};
    const struct err failed = {.kind = ERR_PEER};

    snprintf(ran.problem, sizeof ran.problem, "%s", problem);
    return ledger_outcome_of(&ran, true, &failed);
}

static void a_run_of_certbot_says_what_it_came_to(void **state)
{
    (void)state;
    assert_int_equal(of(CERTBOT_ISSUED, "", true), LEDGER_ISSUED);
    assert_int_equal(of(CERTBOT_CHALLENGE_FAILED, "unauthorized", false),
                     LEDGER_CHALLENGE_FAILED);
    assert_int_equal(of(CERTBOT_CHALLENGE_FAILED, "caa", false), LEDGER_CAA_FORBIDS);
    assert_int_equal(of(CERTBOT_CA_REFUSED, "caa", false), LEDGER_CAA_FORBIDS);
    assert_int_equal(of(CERTBOT_CA_REFUSED, "badCSR", false), LEDGER_REFUSED);
    assert_int_equal(of(CERTBOT_RATE_LIMITED, "rateLimited", false), LEDGER_RATE_LIMITED);
    assert_int_equal(of(CERTBOT_CA_UNREACHABLE, "", false), LEDGER_UNREACHED);
    assert_int_equal(of(CERTBOT_ACCOUNT_GONE, "accountDoesNotExist", false),
                     LEDGER_REFUSED);
    assert_int_equal(of(CERTBOT_LOCAL_FAILURE, "", false), LEDGER_REFUSED);
}

static void an_end_that_nobody_saw_is_doubtful(void **state)
{
    const struct err timeout = {.kind = ERR_TIMEOUT};
    const struct err canceled = {.kind = ERR_CANCELED};
    const struct err missing = {.kind = ERR_SYS};

    (void)state;
    assert_int_equal(of(CERTBOT_KILLED, "", true), LEDGER_DOUBTFUL);
    assert_int_equal(of(CERTBOT_CA_UNREACHABLE, "", true), LEDGER_DOUBTFUL);
    assert_int_equal(of(CERTBOT_LOCAL_FAILURE, "", true), LEDGER_DOUBTFUL);
    assert_int_equal(ledger_outcome_of(NULL, true, &timeout), LEDGER_DOUBTFUL);
    assert_int_equal(ledger_outcome_of(NULL, true, &canceled), LEDGER_DOUBTFUL);
    assert_int_equal(ledger_outcome_of(NULL, true, &missing), LEDGER_REFUSED);
}

static void before_certbot_nothing_can_have_been_issued(void **state)
{
    static const struct {
        enum err_kind kind;
        enum ledger_outcome outcome;
    } cases[] = {{ERR_NET, LEDGER_UNREACHED},
                 {ERR_TIMEOUT, LEDGER_UNREACHED},
                 {ERR_PEER, LEDGER_REFUSED},
                 {ERR_CONFIG, LEDGER_CONFIGURATION}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct err err = {.kind = cases[i].kind};

        assert_int_equal(ledger_outcome_of(NULL, false, &err), cases[i].outcome);
    }
    assert_int_equal(ledger_outcome_of(NULL, true, NULL), LEDGER_ISSUED);
}

static void doubt_counts_as_everything(void **state)
{
    const unsigned everything =
        LEDGER_COUNTS_ORDER | LEDGER_COUNTS_CERTIFICATE | LEDGER_COUNTS_FAILURE;

    (void)state;
    assert_int_equal(ledger_counts(LEDGER_PENDING), everything);
    assert_int_equal(ledger_counts(LEDGER_DOUBTFUL), everything);
    assert_int_equal(ledger_counts(LEDGER_ISSUED),
                     everything & ~(unsigned)LEDGER_COUNTS_FAILURE);
    assert_int_equal(ledger_counts(LEDGER_CAA_FORBIDS),
                     ledger_counts(LEDGER_CHALLENGE_FAILED));
    assert_int_equal(ledger_counts(LEDGER_RATE_LIMITED), 0);
}

static void names_are_read_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LEDGER_OUTCOMES; i++)
        assert_int_equal(
            ledger_outcome_parse(ledger_outcome_name((enum ledger_outcome)i)), i);
    assert_int_equal(ledger_outcome_parse("Issued"), LEDGER_OUTCOMES);
    assert_int_equal(ledger_outcome_parse(""), LEDGER_OUTCOMES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_of_certbot_says_what_it_came_to),
        cmocka_unit_test(an_end_that_nobody_saw_is_doubtful),
        cmocka_unit_test(before_certbot_nothing_can_have_been_issued),
        cmocka_unit_test(doubt_counts_as_everything),
        cmocka_unit_test(names_are_read_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
