#include "domain/preflight.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NAME "cert-manager-preflight-0123456789abcdef"
#define THUMBPRINT "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"

static const struct preflight_file file = {.name = NAME, .text = "ours\n"};

static void expect(const struct preflight_finding *finding,
                   enum preflight_verdict verdict, const char *text)
{
    assert_string_equal(preflight_verdict_name(finding->verdict),
                        preflight_verdict_name(verdict));
    if (strstr(finding->text, text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, finding->text);
    /* Who has to do something is told what. */
    if (verdict >= PREFLIGHT_ADVICE)
        assert_string_not_equal(finding->hint, "");
}

static struct err failure(const char *message)
{
    struct err err = ERR_INIT;

    err_set(&err, ERR_NET, "%s", message);
    return err;
}

/* ---- what comes of all ---- */

static void only_a_failed_check_holds_an_order_back(void **state)
{
    static struct preflight preflight;
    struct err err = ERR_INIT;

    (void)state;
    preflight = (struct preflight){.findings = {{.verdict = PREFLIGHT_UNKNOWN}}};
    for (int i = 0; i < PREFLIGHT_CHECKS; i++)
        preflight.findings[i].verdict = i % 2 == 0 ? PREFLIGHT_UNKNOWN : PREFLIGHT_ADVICE;
    assert_int_equal(preflight_result(&preflight, &err), 0);
    preflight.findings[PREFLIGHT_DISK].verdict = PREFLIGHT_FAILED;
    strcpy(preflight.findings[PREFLIGHT_DISK].text, "full");
    preflight.findings[PREFLIGHT_PORT_80].verdict = PREFLIGHT_FAILED;
    strcpy(preflight.findings[PREFLIGHT_PORT_80].text, "silent");
    assert_int_equal(preflight_result(&preflight, &err), -1);
    assert_string_equal(err.message, "the CA is not asked: disk: full; port 80: silent");
}

static void an_error_of_many_failed_checks_is_cut(void **state)
{
    static struct preflight preflight;
    struct err err = ERR_INIT;

    (void)state;
    for (int i = 0; i < PREFLIGHT_CHECKS; i++) {
        preflight.findings[i].verdict = PREFLIGHT_FAILED;
        memset(preflight.findings[i].text, 'x', PREFLIGHT_TEXT_SIZE - 1);
    }
    assert_int_equal(preflight_result(&preflight, &err), -1);
    assert_int_equal(strlen(err.message), ERR_MESSAGE_MAX - 1);
}

static void waiting_for_dns_is_waiting_for_nothing_else(void **state)
{
    static struct preflight preflight;

    (void)state;
    assert_false(preflight_waits_for_dns(&preflight));
    preflight.findings[PREFLIGHT_DNS].verdict = PREFLIGHT_FAILED;
    assert_true(preflight_waits_for_dns(&preflight));
    preflight.findings[PREFLIGHT_CERTBOT].verdict = PREFLIGHT_FAILED;
    assert_false(preflight_waits_for_dns(&preflight));
    preflight.findings[PREFLIGHT_CERTBOT].verdict = PREFLIGHT_ADVICE;
    preflight.findings[PREFLIGHT_DNS].verdict = PREFLIGHT_ADVICE;
    assert_false(preflight_waits_for_dns(&preflight));
}

static void findings_are_the_same_in_all_parts_or_not(void **state)
{
    struct preflight_finding a = {PREFLIGHT_OK, "text", "hint"};
    struct preflight_finding b = a;

    (void)state;
    assert_true(preflight_same(&a, &b));
    b.hint[0] = 'H';
    assert_false(preflight_same(&a, &b));
    b = a;
    b.verdict = PREFLIGHT_ADVICE;
    assert_false(preflight_same(&a, &b));
}

/* ---- the machine ---- */

static void a_clock_is_plausible_in_the_life_of_this_program(void **state)
{
    struct preflight_finding finding;

    (void)state;
    preflight_judge_clock(&finding, 1795459747);
    expect(&finding, PREFLIGHT_OK, "plausible");
    preflight_judge_clock(&finding, 0);
    expect(&finding, PREFLIGHT_FAILED, "1970-01-01");
    preflight_judge_clock(&finding, 1767225599);
    expect(&finding, PREFLIGHT_FAILED, "2025-12-31");
    preflight_judge_clock(&finding, 4102444800);
    expect(&finding, PREFLIGHT_FAILED, "2100-01-01");
}

static void what_does_not_work_here_holds_an_order_back(void **state)
{
    const struct err err = failure("no room");
    struct preflight_finding finding;

    (void)state;
    preflight_judge_disk(&finding, NULL);
    expect(&finding, PREFLIGHT_OK, "writable");
    preflight_judge_disk(&finding, &err);
    expect(&finding, PREFLIGHT_FAILED, "no room");
    preflight_judge_webroot(&finding, &err);
    expect(&finding, PREFLIGHT_FAILED, "no room");
    preflight_judge_certbot(&finding, NULL, "/usr/bin/certbot", "certbot 5.1.0");
    expect(&finding, PREFLIGHT_OK, "certbot 5.1.0");
    preflight_judge_certbot(&finding, NULL, "/usr/bin/certbot", "");
    assert_string_not_equal(finding.text, "");
    preflight_judge_certbot(&finding, &err, "/opt/certbot", "");
    expect(&finding, PREFLIGHT_FAILED, "no room");
    assert_non_null(strstr(finding.hint, "/opt/certbot (certbot.path)"));
}

/* ---- names and addresses ---- */

static void a_domain_without_address_is_waited_for_and_then_not(void **state)
{
    const struct err err = failure("a.test does not resolve");
    struct preflight_finding finding;

    (void)state;
    preflight_judge_dns(&finding, NULL, "192.0.2.1", false);
    expect(&finding, PREFLIGHT_OK, "192.0.2.1");
    preflight_judge_dns(&finding, &err, "", false);
    expect(&finding, PREFLIGHT_FAILED, "a.test does not resolve");
    preflight_judge_dns(&finding, &err, "", true);
    expect(&finding, PREFLIGHT_ADVICE, "a.test does not resolve");
}

static struct preflight_answer answer(int status, const char *body, const char *location)
{
    return (struct preflight_answer){
        .status = status, .body = body, .location = location};
}

static void nginx_has_to_serve_the_file(void **state)
{
    static const struct {
        int status;
        const char *body;
        const char *location;
        enum preflight_verdict verdict;
        const char *text;
    } cases[] = {
        {200, "ours\n", "", PREFLIGHT_OK, "served"},
        {200, "ours", "", PREFLIGHT_FAILED, "HTTP status 200 with another text"},
        {200, "", "", PREFLIGHT_FAILED, "with another text"},
        {404, "ours\n", "", PREFLIGHT_FAILED, "HTTP status 404"},
        {503, "", "", PREFLIGHT_FAILED, "HTTP status 503"},
        /* Challenges would be answered all the same, but the webroot is broken. */
        {200, NAME "." THUMBPRINT, "", PREFLIGHT_ADVICE,
         "does not serve files out of /w"},
        {404, NAME "." THUMBPRINT, "", PREFLIGHT_FAILED, "HTTP status 404"},
        {200, NAME ".short", "", PREFLIGHT_FAILED, "with another text"},
        {200, NAME "x." THUMBPRINT, "", PREFLIGHT_FAILED, "with another text"},
        /* The CA follows it, to where we may not come. */
        {301, "", "https://a.test/x", PREFLIGHT_ADVICE, "https://a.test/x"},
        {304, "", "", PREFLIGHT_FAILED, "HTTP status 304"},
    };
    const struct err err = failure("connection refused");
    const struct preflight_answer none = {.why = &err, .body = "", .location = ""};
    struct preflight_finding finding;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct preflight_answer one =
            answer(cases[i].status, cases[i].body, cases[i].location);

        preflight_judge_port_80(&finding, &one, &file, "/w");
        expect(&finding, cases[i].verdict, cases[i].text);
    }
    preflight_judge_port_80(&finding, &none, &file, "/w");
    expect(&finding, PREFLIGHT_FAILED, "connection refused");
}

static void what_the_domain_leads_to_is_advice_at_most(void **state)
{
    const struct err err = failure("no route");
    const struct preflight_answer none = {.why = &err, .body = "", .location = ""};
    const struct preflight_answer ours = answer(200, "ours\n", "");
    const struct preflight_answer replica = answer(200, NAME "." THUMBPRINT, "");
    const struct preflight_answer other = answer(200, "welcome", "");
    const struct preflight_answer away = answer(302, "", "http://b.test/");
    struct preflight_finding finding = {.verdict = PREFLIGHT_UNKNOWN};

    (void)state;
    preflight_judge_address(&finding, "192.0.2.1", &ours, &file);
    expect(&finding, PREFLIGHT_OK, "192.0.2.1");
    preflight_judge_address(&finding, "192.0.2.2", &replica, &file);
    expect(&finding, PREFLIGHT_OK, "192.0.2.1");
    preflight_judge_address(&finding, "192.0.2.3", &none, &file);
    expect(&finding, PREFLIGHT_UNKNOWN, "no route");
    preflight_judge_address(&finding, "192.0.2.4", &other, &file);
    expect(&finding, PREFLIGHT_ADVICE, "192.0.2.4");
    preflight_judge_address(&finding, "192.0.2.5", &none, &file);
    preflight_judge_address(&finding, "192.0.2.6", &ours, &file);
    expect(&finding, PREFLIGHT_ADVICE, "192.0.2.4");
    finding = (struct preflight_finding){.verdict = PREFLIGHT_UNKNOWN};
    preflight_judge_address(&finding, "192.0.2.7", &none, &file);
    preflight_judge_address(&finding, "192.0.2.8", &ours, &file);
    expect(&finding, PREFLIGHT_UNKNOWN, "no route");
    preflight_judge_address(&finding, "192.0.2.9", &away, &file);
    expect(&finding, PREFLIGHT_ADVICE, "http://b.test/");
}

static void what_comes_from_outside_is_escaped(void **state)
{
    const struct preflight_answer away = answer(301, "", "http://b\xff\n\x1b.test/");
    struct preflight_finding finding;

    (void)state;
    preflight_judge_port_80(&finding, &away, &file, "/w");
    expect(&finding, PREFLIGHT_ADVICE, "http://b\\xff\\x0a\\x1b.test/");
}

/* ---- CAA ---- */

static void caa_records_are_advice_at_most(void **state)
{
    static const char *const issuer = "letsencrypt.org";
    static struct caa_set set = {.count = 1};
    const struct err err = failure("no answer");
    struct preflight_caa caa = {
        .records = &set,
        .found_at = "example.test",
        .request = {.issuers = &issuer,
                    .issuer_count = 1,
                    .account_url = "",
                    .method = "http-01"},
    };
    struct preflight_finding finding;

    (void)state;
    strcpy(set.items[0].tag, "issue");
    strcpy(set.items[0].value, "letsencrypt.org");
    preflight_judge_caa(&finding, &caa);
    expect(&finding, PREFLIGHT_OK, "CAA records of example.test: permitted by");
    strcpy(set.items[0].value, "other.example");
    preflight_judge_caa(&finding, &caa);
    expect(&finding, PREFLIGHT_ADVICE, "not permitted by: 0 issue \"other.example\"");
    assert_non_null(
        strstr(finding.hint, "example.test: CAA 0 issue \"letsencrypt.org\""));
    strcpy(set.items[0].value, "letsencrypt.org; accounturi=https://x");
    preflight_judge_caa(&finding, &caa);
    expect(&finding, PREFLIGHT_UNKNOWN, "it depends on");
    caa.request.issuer_count = 0;
    preflight_judge_caa(&finding, &caa);
    expect(&finding, PREFLIGHT_UNKNOWN, "it depends on");
    assert_non_null(strstr(finding.hint, "Its directory does not say"));
    caa.found_at = "";
    preflight_judge_caa(&finding, &caa);
    expect(&finding, PREFLIGHT_OK, "no CAA records");
    caa.why = &err;
    preflight_judge_caa(&finding, &caa);
    expect(&finding, PREFLIGHT_UNKNOWN, "no answer");
}

static void checks_have_names(void **state)
{
    (void)state;
    for (int i = 0; i < PREFLIGHT_CHECKS; i++)
        assert_string_not_equal(preflight_name((enum preflight_check)i), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_failed_check_holds_an_order_back),
        cmocka_unit_test(an_error_of_many_failed_checks_is_cut),
        cmocka_unit_test(waiting_for_dns_is_waiting_for_nothing_else),
        cmocka_unit_test(findings_are_the_same_in_all_parts_or_not),
        cmocka_unit_test(a_clock_is_plausible_in_the_life_of_this_program),
        cmocka_unit_test(what_does_not_work_here_holds_an_order_back),
        cmocka_unit_test(a_domain_without_address_is_waited_for_and_then_not),
        cmocka_unit_test(nginx_has_to_serve_the_file),
        cmocka_unit_test(what_the_domain_leads_to_is_advice_at_most),
        cmocka_unit_test(what_comes_from_outside_is_escaped),
        cmocka_unit_test(caa_records_are_advice_at_most),
        cmocka_unit_test(checks_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
