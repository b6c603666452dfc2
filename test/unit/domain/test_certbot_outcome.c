#include "domain/certbot_outcome.h"

#include "base/text.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What certbot writes around every failure. */
#define LOG_LINE "Saving debug log to /run/w/logs/letsencrypt.log\n"
#define ABNORMAL                                                                         \
    "Exiting abnormally:\n"                                                              \
    "Traceback (most recent call last):\n"                                               \
    "  File \"/usr/bin/certbot\", line 33, in <module>\n"                                \
    "    sys.exit(load_entry_point('certbot==2.1.0', 'console_scripts', 'certbot')())\n" \
    "             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
#define TRAILER                                                                          \
    "Ask for help or search for solutions at https://community.letsencrypt.org. See "    \
    "the "                                                                               \
    "logfile /run/w/logs/letsencrypt.log or re-run Certbot with -v for more details.\n"
#define REQUESTING "Requesting a certificate for app.example.test\n"
#define AGAIN                                                                            \
    "\nDuring handling of the above exception, another exception occurred:\n\n"          \
    "Traceback (most recent call last):\n"                                               \
    "  File \"/usr/lib/python3/dist-packages/certbot/main.py\", line 19, in main\n"      \
    "    return internal_main.main(cli_args)\n"

/* certbot 2.1 with Python 3.11 hides every problem document behind this error. */
#define DEBIAN_12_END AGAIN "AttributeError: can't set attribute\n" TRAILER

#define PROBLEM "acme.messages.Error: urn:ietf:params:acme:error:"
#define LONG_256                                                                         \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"                   \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"                   \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"                   \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct certbot_outcome read_ending(int exit_status, int term_signal,
                                          const char *standard_output,
                                          const char *standard_error)
{
    const struct certbot_ending ending = {
        .exit_status = exit_status,
        .term_signal = term_signal,
        .standard_output = standard_output,
        .standard_error = standard_error,
    };
    struct certbot_outcome outcome;

    memset(&outcome, 'x', sizeof outcome);
    certbot_outcome_read(&ending, &outcome);
    return outcome;
}

static struct certbot_outcome read_failure(const char *standard_output,
                                           const char *standard_error)
{
    return read_ending(1, 0, standard_output, standard_error);
}

/* One line of UTF-8 without control characters, ended within its size. */
static void assert_shown(const char *text, size_t size)
{
    size_t left = strnlen(text, size);

    assert_true(left < size);
    while (left > 0) {
        unsigned code = 0;
        size_t len = text_character(text, left, &code);

        assert_true(len > 0);
        assert_false(text_is_control(code));
        text += len;
        left -= len;
    }
}

static void assert_sound(const struct certbot_outcome *outcome)
{
    assert_shown(outcome->problem, sizeof outcome->problem);
    assert_shown(outcome->identifier, sizeof outcome->identifier);
    assert_shown(outcome->detail, sizeof outcome->detail);
    assert_true(outcome->detail[0] != '\0' || outcome->verdict == CERTBOT_ISSUED);
}

static void assert_outcome(const struct certbot_outcome *outcome,
                           enum certbot_verdict verdict, const char *problem,
                           const char *detail)
{
    assert_sound(outcome);
    assert_string_equal(certbot_verdict_name(outcome->verdict),
                        certbot_verdict_name(verdict));
    assert_string_equal(outcome->problem, problem);
    assert_string_equal(outcome->detail, detail);
}

/* A failure that is told on standard error. */
static void expect(const char *standard_error, enum certbot_verdict verdict,
                   const char *problem, const char *detail)
{
    struct certbot_outcome outcome = read_failure(REQUESTING, standard_error);

    assert_outcome(&outcome, verdict, problem, detail);
    assert_string_equal(outcome.identifier, "");
}

/* ---- success ---- */

static void a_certificate_was_issued(void **state)
{
    struct certbot_outcome outcome = read_ending(
        0, 0,
        REQUESTING
        "\nSuccessfully received certificate.\n"
        "Certificate is saved at:            /run/w/out/cert.pem\n"
        "Intermediate CA chain is saved at:  /run/w/out/chain.pem\n"
        "Full certificate chain is saved at: /run/w/out/fullchain.pem\n"
        "This certificate expires on 2027-02-21.\n"
        "NEXT STEPS:\n"
        "- Certificates created using --csr will not be renewed automatically by "
        "Certbot. You will need to renew the certificate before it expires, by running "
        "the same Certbot command again.\n",
        LOG_LINE);

    (void)state;
    assert_outcome(&outcome, CERTBOT_ISSUED, "", "");
    assert_int_equal(outcome.retry_at, 0);
}

/* A badNonce that was tried again after, an alternate chain that was not found. */
static void what_was_overcome_does_not_count(void **state)
{
    struct certbot_outcome outcome =
        read_ending(0, 0, "", LOG_LINE PROBLEM "badNonce :: x :: y\n");

    (void)state;
    assert_outcome(&outcome, CERTBOT_ISSUED, "", "");
}

/* ---- challenges ---- */

#define CHALLENGE_HEAD                                                                   \
    REQUESTING                                                                           \
    "\nCertbot failed to authenticate some domains (authenticator: webroot). The "       \
    "Certificate Authority reported these problems:\n"
#define CHALLENGE_HINT                                                                   \
    "\nHint: The Certificate Authority failed to download the temporary challenge "      \
    "files "                                                                             \
    "created by Certbot. Ensure that the listed domains serve their content from the "   \
    "provided --webroot-path/-w and that files created there can be downloaded from "    \
    "the "                                                                               \
    "internet.\n\n"
#define CHALLENGE_ERROR                                                                  \
    LOG_LINE ABNORMAL                                                                    \
        "certbot.errors.AuthorizationError: Some challenges have failed.\n" TRAILER

static void expect_challenge(const char *standard_output, const char *identifier,
                             const char *problem, const char *detail)
{
    struct certbot_outcome outcome = read_failure(standard_output, CHALLENGE_ERROR);

    assert_outcome(&outcome, CERTBOT_CHALLENGE_FAILED, problem, detail);
    assert_string_equal(outcome.identifier, identifier);
    outcome = read_failure(standard_output, LOG_LINE
                           "Some challenges have failed.\n" TRAILER); /* no --debug */
    assert_outcome(&outcome, CERTBOT_CHALLENGE_FAILED, problem, detail);
}

static void a_challenge_failed(void **state)
{
    (void)state;
    expect_challenge(CHALLENGE_HEAD
                     "  Domain: app.example.test\n"
                     "  Type:   unauthorized\n"
                     "  Detail: Non-200 status code from HTTP: "
                     "http://app.example.test/.well-known/acme-challenge/9mccU returned "
                     "404\n" CHALLENGE_HINT,
                     "app.example.test", "unauthorized",
                     "Non-200 status code from HTTP: "
                     "http://app.example.test/.well-known/acme-challenge/9mccU returned "
                     "404");
    /* certbot 5.5 */
    expect_challenge(CHALLENGE_HEAD
                     "  Identifier: app.example.test\n"
                     "  Type:   dns\n"
                     "  Detail: no A record: x\n" CHALLENGE_HINT,
                     "app.example.test", "dns", "no A record: x");
}

static void the_first_of_several_challenges_is_told(void **state)
{
    (void)state;
    expect_challenge(CHALLENGE_HEAD
                     "  Domain: one.example.test\n"
                     "  Type:   connection\n"
                     "  Detail: refused\n"
                     "\n"
                     "  Domain: two.example.test\n"
                     "  Type:   caa\n"
                     "  Detail: forbidden\n" CHALLENGE_HINT,
                     "one.example.test", "connection", "refused");
}

static void a_report_may_be_incomplete(void **state)
{
    struct certbot_outcome outcome = read_failure("", CHALLENGE_ERROR);
    struct err err = ERR_INIT;

    (void)state;
    assert_outcome(&outcome, CERTBOT_CHALLENGE_FAILED, "",
                   "certbot ended with status 1 and gave no reason");
    assert_string_equal(outcome.identifier, "");
    expect_challenge(CHALLENGE_HEAD "  Domain: a.test\n", "a.test", "",
                     "certbot ended with status 1 and gave no reason");
    expect_challenge(CHALLENGE_HEAD "  Domain: a.test\n  Type:\n  Detail:   \n", "a.test",
                     "", "certbot ended with status 1 and gave no reason");
    expect_challenge("Detail: behind nothing", "", "", "behind nothing");
    outcome =
        read_failure(CHALLENGE_HEAD "  Domain: a.test\n  Detail: b\n", CHALLENGE_ERROR);
    assert_int_equal(certbot_outcome_err(&outcome, &err), -1);
    assert_string_equal(err.message, "challenge failed for a.test (no type): b");
}

/* Labels before the report belong to something else. */
static void the_report_begins_behind_its_head(void **state)
{
    (void)state;
    expect_challenge("Domain: not.this\nType: nor this\nDetail: nor that\n" CHALLENGE_HEAD
                     "  Domain: app.example.test\n"
                     "  Type:   tls\n"
                     "  Detail: Domain: trick Type: trick\n",
                     "app.example.test", "tls", "Domain: trick Type: trick");
}

/* ---- problem documents ---- */

static void the_rate_limit_is_reached(void **state)
{
    static const char detail[] =
        "too many certificates (5) already issued for this exact set of identifiers in "
        "the last 168h0m0s, retry after 2026-11-24 18:44:03 UTC: see "
        "https://letsencrypt.org/docs/rate-limits/"
        "#new-certificates-per-exact-set-of-identifiers";
    struct certbot_outcome outcome;
    char text[2048];

    (void)state;
    snprintf(text, sizeof text,
             LOG_LINE ABNORMAL
             "%srateLimited :: There were too many requests of a given "
             "type :: %s\n" DEBIAN_12_END,
             PROBLEM, detail);
    outcome = read_failure(REQUESTING, text);
    assert_outcome(&outcome, CERTBOT_RATE_LIMITED, "rateLimited", detail);
    assert_int_equal(outcome.retry_at, 1795545843);
    /* certbot 4.0 and 5.5 */
    snprintf(text, sizeof text,
             LOG_LINE ABNORMAL
             "%srateLimited :: There were too many requests of a given "
             "type :: %s\n" TRAILER,
             PROBLEM, detail);
    outcome = read_failure(REQUESTING, text);
    assert_outcome(&outcome, CERTBOT_RATE_LIMITED, "rateLimited", detail);
    assert_int_equal(outcome.retry_at, 1795545843);
}

static int64_t retry_time_of(const char *detail)
{
    struct certbot_outcome outcome;
    char text[2048];

    snprintf(text, sizeof text, PROBLEM "rateLimited :: title :: %s\n" TRAILER, detail);
    outcome = read_failure("", text);
    assert_sound(&outcome);
    assert_int_equal(outcome.verdict, CERTBOT_RATE_LIMITED);
    return outcome.retry_at;
}

static void the_time_of_a_rate_limit_is_read(void **state)
{
    static const char *const without[] = {
        "Service busy; retry later.",
        "retry after",
        "retry after ",
        "retry after tomorrow",
        "retry after 2026-11-24",
        "retry after 2026-11-24 18:44",
        "retry after 2026-13-24 18:44:03",
        "retry after 2026-11-32 18:44:03",
        "retry after 2026-11-24 25:44:03",
        "retry after 24/11/2026 18:44:03",
        "retry after 20261-11-24 18:44:03",
        "retry after -2026-11-24 18:44:03",
        "RETRY AFTER 2026-11-24 18:44:03",
    };

    (void)state;
    assert_int_equal(retry_time_of("retry after 2026-11-24 18:44:03 UTC"), 1795545843);
    assert_int_equal(retry_time_of("x, retry after 2026-11-24T18:44:03Z: y"), 1795545843);
    assert_int_equal(retry_time_of("retry after 1970-01-01 00:00:01 UTC"), 1);
    assert_int_equal(retry_time_of("retry after 9999-12-31 23:59:59 UTC"),
                     INT64_C(253402300799));
    for (size_t i = 0; i < sizeof without / sizeof without[0]; i++)
        assert_int_equal(retry_time_of(without[i]), 0);
    /* Cut off with the detail. */
    assert_int_equal(
        retry_time_of(LONG_256 LONG_256 LONG_256 "retry after 2026-11-24 18:44:03"), 0);
}

/* The zone of the process does not matter: the time is UTC. */
static void the_time_of_a_rate_limit_is_utc(void **state)
{
    (void)state;
    setenv("TZ", "America/New_York", 1);
    assert_int_equal(retry_time_of("retry after 2026-07-24 18:44:03 UTC"), 1784918643);
    unsetenv("TZ");
}

static void another_problem_has_no_time(void **state)
{
    struct certbot_outcome outcome = read_failure(
        "", PROBLEM "malformed :: x :: y, retry after 2026-11-24 18:44:03 UTC\n");

    (void)state;
    assert_int_equal(outcome.verdict, CERTBOT_CA_REFUSED);
    assert_int_equal(outcome.retry_at, 0);
}

static void the_account_is_gone(void **state)
{
    (void)state;
    expect(LOG_LINE ABNORMAL PROBLEM
           "accountDoesNotExist :: The request specified an account that does not exist "
           ":: Account https://localhost:24000/my-account/99 not found.\n" DEBIAN_12_END,
           CERTBOT_ACCOUNT_GONE, "accountDoesNotExist",
           "Account https://localhost:24000/my-account/99 not found.");
}

static void the_ca_refuses(void **state)
{
    static const struct {
        const char *type, *title, *detail;
    } problems[] = {
        {"unauthorized", "The client lacks sufficient authorization",
         "Account is not valid, has status \"deactivated\""},
        {"badCSR", "The CSR is unacceptable (e.g., due to a short key)",
         "Bad signature on CSR: x509: ECDSA verification failure"},
        {"serverInternal", "The server experienced an internal error", "Error creating"},
        {"caa",
         "Certification Authority Authorization (CAA) records forbid the CA from issuing "
         "a "
         "certificate",
         "While processing CAA for app.example.test: CAA record prevents issuance"},
        {"malformed", "The request message was malformed", "Unable to validate JWS"},
        {"badNonce", "The client sent an unacceptable anti-replay nonce",
         "JWS has an invalid anti-replay nonce: AAAA"},
        {"rejectedIdentifier",
         "The server will not issue certificates for the identifier",
         "Order included an identifier for which issuance is forbidden by policy: "
         "[\"app.example.test\"]"},
    };
    char text[1024];

    (void)state;
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++) {
        snprintf(text, sizeof text, LOG_LINE ABNORMAL PROBLEM "%s :: %s :: %s\n" TRAILER,
                 problems[i].type, problems[i].title, problems[i].detail);
        expect(text, CERTBOT_CA_REFUSED, problems[i].type, problems[i].detail);
    }
}

static void parts_of_a_problem_may_be_missing(void **state)
{
    (void)state;
    expect(PROBLEM "dns :: a title\n", CERTBOT_CA_REFUSED, "dns", "a title");
    expect(PROBLEM "userActionRequired :: of an unknown type\n", CERTBOT_CA_REFUSED,
           "userActionRequired", "of an unknown type");
    expect(PROBLEM "dns :: a :: b :: c\n", CERTBOT_CA_REFUSED, "dns", "b :: c");
    expect(PROBLEM "dns", CERTBOT_CA_REFUSED, "dns",
           "certbot ended with status 1 and gave no reason");
    expect(PROBLEM "dns :: a :: \n", CERTBOT_CA_REFUSED, "dns",
           "certbot ended with status 1 and gave no reason");
    expect(PROBLEM "\nother :: line :: y\n", CERTBOT_CA_REFUSED, "",
           "certbot ended with status 1 and gave no reason");
    /* A document without type, from a proxy before the CA. */
    expect("acme.messages.Error: about:blank :: Forbidden\n" TRAILER, CERTBOT_CA_REFUSED,
           "", "Forbidden");
    expect("acme.messages.Error: ", CERTBOT_CA_REFUSED, "",
           "certbot ended with status 1 and gave no reason");
    /* The type of a later line does not belong to it. */
    expect("acme.messages.Error: about:blank\nurn:ietf:params:acme:error:dns :: x\n",
           CERTBOT_CA_REFUSED, "", "about:blank");
}

static void subproblems_are_not_the_reason(void **state)
{
    (void)state;
    expect(PROBLEM
           "compound :: Specific error conditions are indicated in the \"subproblems\" "
           "array :: Two problems\n"
           "Problem for a.test: urn:ietf:params:acme:error:dns :: x :: y\n"
           "Problem for b.test: urn:ietf:params:acme:error:caa :: x :: y\n" TRAILER,
           CERTBOT_CA_REFUSED, "compound", "Two problems");
}

/* RFC 8555 §6.5: certbot sends a request again after badNonce; what came of that counts. */
static void the_last_of_two_problems_is_the_reason(void **state)
{
    (void)state;
    expect(LOG_LINE ABNORMAL PROBLEM
           "badNonce :: The client sent an unacceptable anti-replay nonce :: JWS has an "
           "invalid anti-replay nonce: AAAA\n" AGAIN PROBLEM
           "accountDoesNotExist :: The request specified an account that does not exist "
           ":: Account not found.\n" DEBIAN_12_END,
           CERTBOT_ACCOUNT_GONE, "accountDoesNotExist", "Account not found.");
}

/* certbot 5.5 says no more than the class with --debug. */
static void the_order_became_invalid(void **state)
{
    (void)state;
    expect(LOG_LINE ABNORMAL "acme.errors.IssuanceError\n" TRAILER, CERTBOT_CA_REFUSED,
           "", "acme.errors.IssuanceError");
}

/* ---- the CA is out of reach ---- */

static void the_ca_is_out_of_reach(void **state)
{
    static const char *const lines[] = {
        "ValueError: Requesting localhost/dir: Connection refused",
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='localhost', "
        "port=14099): Max retries exceeded with url: /dir (Caused by "
        "NewConnectionError('<urllib3.connection.HTTPSConnection object at "
        "0x7f9af8fe2450>: Failed to establish a new connection: [Errno 111] Connection "
        "refused'))",
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='ca.test', "
        "port=443): Max retries exceeded with url: /dir (Caused by NameResolutionError("
        "\"Failed to resolve 'ca.test' ([Errno -2] Name or service not known)\"))",
        "requests.exceptions.SSLError: HTTPSConnectionPool(host='localhost', "
        "port=24000): "
        "Max retries exceeded with url: /dir (Caused by "
        "SSLError(SSLCertVerificationError("
        "1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed "
        "certificate (_ssl.c:992)')))",
        "requests.exceptions.ProxyError: HTTPSConnectionPool(host='ca.test', port=443)",
        "requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='ca.test', port=443): "
        "Read timed out. (read timeout=45)",
        "requests.exceptions.ConnectTimeout: HTTPSConnectionPool(host='ca.test')",
        "requests.exceptions.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
        "acme.errors.ClientError: <Response [503]>",
        "acme.errors.ClientError: <Response [502]>",
        "acme.errors.MissingNonce: Server HEAD response did not include a replay nonce, "
        "headers: {}",
        "acme.errors.TimeoutError",
        "certbot.errors.AuthorizationError: All authorizations were not finalized by the "
        "CA.",
        "All authorizations were not finalized by the CA.",
    };
    char text[2048];

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        snprintf(text, sizeof text, LOG_LINE ABNORMAL "%s\n" TRAILER, lines[i]);
        expect(text, CERTBOT_CA_UNREACHABLE, "", lines[i]);
    }
    /* As certbot 2.1 and 4.0 say it: one exception after the other. */
    expect(LOG_LINE ABNORMAL
           "ConnectionRefusedError: [Errno 111] Connection refused\n" AGAIN
           "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='localhost', "
           "port=24001): Max retries exceeded\n" AGAIN
           "ValueError: Requesting localhost/dir: Connection refused\n" TRAILER,
           CERTBOT_CA_UNREACHABLE, "",
           "ValueError: Requesting localhost/dir: Connection refused");
}

/* ---- failures at home ---- */

static void another_certbot_holds_the_lock(void **state)
{
    (void)state;
    expect("Another instance of Certbot is already running.\n" TRAILER, CERTBOT_LOCKED,
           "", "Another instance of Certbot is already running.");
    expect(LOG_LINE ABNORMAL
           "BlockingIOError: [Errno 11] Resource temporarily unavailable\n" AGAIN
           "certbot.errors.LockError: Another instance of Certbot is already "
           "running.\n" TRAILER,
           CERTBOT_LOCKED, "",
           "certbot.errors.LockError: Another instance of Certbot is already running.");
}

static void a_failure_at_home_is_told_in_one_line(void **state)
{
    static const char *const lines[] = {
        "certbot.errors.AccountNotFound: Account at /run/w/config/accounts/x does not "
        "exist",
        "certbot.errors.PluginError: /nowhere does not exist or is not a directory",
        "certbot.errors.Error: Failed to parse CSR file: /run/w/request.csr",
        "certbot.errors.Error: Unfortunately, your CSR /run/w/request.csr needs to have "
        "a "
        "SubjectAltName for every domain",
        "Client with the currently selected authenticator does not support any "
        "combination of challenges that will satisfy the CA.",
        "FileExistsError: [Errno 17] File exists: '/run/w/out/cert.pem'",
        "PermissionError: [Errno 13] Permission denied: "
        "'/w/.well-known/acme-challenge/TOKEN'",
        "Couldn't create root for NAME http-01 challenge responses: [Errno 13] "
        "Permission "
        "denied: '/w/.well-known'",
        "AttributeError: can't set attribute",
        "ValueError: Invalid EC key.",
        "josepy.errors.DeserializationError: Deserialization error: The following fields "
        "are required: creation_host",
    };
    char text[2048];

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        snprintf(text, sizeof text, LOG_LINE ABNORMAL "%s\n" TRAILER, lines[i]);
        expect(text, CERTBOT_LOCAL_FAILURE, "", lines[i]);
        /* without --debug */
        snprintf(text, sizeof text,
                 LOG_LINE "An unexpected error occurred:\n%s\n" TRAILER, lines[i]);
        expect(text, CERTBOT_LOCAL_FAILURE, "", lines[i]);
    }
    expect(
        "The following error was encountered:\n"
        "[Errno 13] Permission denied: 'C/.certbot.lock'\n"
        "Either run as root, or set --config-dir, --work-dir, and --logs-dir to "
        "writeable paths.\n" TRAILER,
        CERTBOT_LOCAL_FAILURE, "", "[Errno 13] Permission denied: 'C/.certbot.lock'");
}

static void wrong_use_is_told_in_one_line(void **state)
{
    struct certbot_outcome outcome = read_ending(
        2, 0, "",
        "usage: \n"
        "  certbot [SUBCOMMAND] [options] [-d DOMAIN] [-d DOMAIN] ...\n\n"
        "Certbot can obtain and install HTTPS/TLS/SSL certificates.  By default,\n"
        "it will attempt to use a webserver both for obtaining and installing the\n"
        "certificate. \n"
        "certbot: error: unrecognized arguments: --nonsense x\n");

    (void)state;
    assert_outcome(&outcome, CERTBOT_LOCAL_FAILURE, "",
                   "certbot: error: unrecognized arguments: --nonsense x");
}

static void a_certbot_without_profiles_is_too_old(void **state)
{
    struct certbot_outcome outcome =
        read_ending(2, 0, "",
                    "usage: \n"
                    "certbot: error: unrecognized arguments: --preferred-profile x\n");

    (void)state;
    assert_outcome(
        &outcome, CERTBOT_TOO_OLD, "",
        "a profile needs certbot 4.0 or newer; install that, or remove the profile");
}

static void a_signal_ended_certbot(void **state)
{
    struct certbot_outcome outcome = read_ending(-1, SIGKILL, REQUESTING, LOG_LINE);

    (void)state;
    assert_outcome(&outcome, CERTBOT_KILLED, "",
                   "certbot was ended by signal 9 (Killed)");
    outcome = read_ending(-1, SIGTERM, "", PROBLEM "rateLimited :: x :: y\n");
    assert_outcome(&outcome, CERTBOT_KILLED, "",
                   "certbot was ended by signal 15 (Terminated)");
}

static void a_failure_without_words_is_told(void **state)
{
    struct certbot_outcome outcome = read_ending(77, 0, "", "");

    (void)state;
    assert_outcome(&outcome, CERTBOT_LOCAL_FAILURE, "",
                   "certbot ended with status 77 and gave no reason");
    expect(LOG_LINE "\n \n\t\r\n" TRAILER, CERTBOT_LOCAL_FAILURE, "",
           "Requesting a certificate for app.example.test");
    expect("the reason\n  \n\n", CERTBOT_LOCAL_FAILURE, "", "the reason");
    expect("no line end", CERTBOT_LOCAL_FAILURE, "", "no line end");
    expect("  with blanks \t\r\n", CERTBOT_LOCAL_FAILURE, "", "with blanks");
}

/* ---- hostile text ---- */

/* Nobody saw how it ended: its words decide, as far as there are any. */
static void the_end_was_not_seen(void **state)
{
    struct certbot_outcome outcome;

    (void)state;
    outcome = read_ending(-1, 0, REQUESTING, LOG_LINE);
    assert_int_equal(outcome.verdict, CERTBOT_KILLED);
    assert_string_equal(outcome.detail, "certbot was ended, by whatever it was");
    outcome = read_ending(-1, 0, "", "");
    assert_int_equal(outcome.verdict, CERTBOT_KILLED);
    outcome = read_ending(-1, 0, REQUESTING,
                          LOG_LINE PROBLEM "rateLimited :: title :: too many\n" TRAILER);
    assert_int_equal(outcome.verdict, CERTBOT_RATE_LIMITED);
    outcome = read_ending(-1, 0, "", LOG_LINE "OSError: No space left\n" TRAILER);
    assert_int_equal(outcome.verdict, CERTBOT_LOCAL_FAILURE);
    assert_string_equal(outcome.detail, "OSError: No space left");
}

/* Of what nobody has got: whether there may be a certificate all the same. */
static void how_far_an_order_came_is_seen_in_the_traceback(void **state)
{
    static const struct {
        int exit_status;
        const char *standard_error;
        bool may_have_issued;
    } endings[] = {
        {1,
         ABNORMAL "    orderr = self._get_order_and_authorizations(csr.data)\n"
                  "requests.exceptions.ConnectionError: refused\n",
         false},
        {1,
         ABNORMAL "    orderr = self.acme.finalize_order(\n"
                  "requests.exceptions.ConnectionError: reset\n",
         true},
        {1,
         ABNORMAL "    return self.poll_finalization(orderr, deadline)\n"
                  "acme.errors.TimeoutError\n",
         true},
        {1,
         ABNORMAL "    orderr = self.acme.finalize_order(\n"
                  "acme.errors.IssuanceError\n",
         false},
        {1,
         ABNORMAL "    orderr = self.acme.finalize_order(\n" PROBLEM
                  "badCSR :: refused :: weak key\n",
         false},
        {1,
         ABNORMAL "    path = self.save_certificate(cert, chain)\n"
                  "FileExistsError: [Errno 17] File exists: '/out/cert.pem'\n",
         true},
        {1, ABNORMAL "certbot.errors.AuthorizationError: Some challenges have failed.\n",
         false},
        {1, "Another instance of Certbot is already running.\n", false},
        {2, "certbot: error: unrecognized arguments: --x\n", false},
        {1, "a failure without a traceback\n", true},
        {-1, LOG_LINE, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        struct certbot_outcome outcome =
            read_ending(endings[i].exit_status, 0, REQUESTING, endings[i].standard_error);

        if (outcome.may_have_issued != endings[i].may_have_issued)
            fail_msg("%s", endings[i].standard_error);
    }
    assert_true(read_ending(-1, SIGKILL, "", "").may_have_issued);
}

static void control_characters_and_broken_text_become_blanks(void **state)
{
    (void)state;
    expect("a\x1b[31mred\x07\x7f\n", CERTBOT_LOCAL_FAILURE, "", "a [31mred  ");
    expect("a\rb\tc\n", CERTBOT_LOCAL_FAILURE, "", "a b c");
    expect("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x94\x92\n", CERTBOT_LOCAL_FAILURE, "",
           "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x94\x92");
    expect(
        "csi \xc2\x9b"
        "2J\n",
        CERTBOT_LOCAL_FAILURE, "", "csi  2J");
    expect("a\xff\xfe\xc3(\xe2\x82\n", CERTBOT_LOCAL_FAILURE, "", "a   (  ");
    expect(PROBLEM "dns :: x :: \x1b]0;title\x07\n", CERTBOT_CA_REFUSED, "dns",
           " ]0;title ");
    expect_challenge(CHALLENGE_HEAD
                     "  Domain: a\x01\xff.test\n  Type: \x1b[1mdns\n"
                     "  Detail: \xc2\x85 x\n",
                     "a  .test", " [1mdns", "  x");
}

static void long_text_is_cut_between_characters(void **state)
{
    struct certbot_outcome outcome;
    char text[1600];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    outcome = read_failure("", text);
    assert_sound(&outcome);
    assert_int_equal(strlen(outcome.detail), sizeof outcome.detail - 1);
    for (size_t i = 0; i < sizeof text - 1; i += 3)
        memcpy(text + i, "\xe2\x82\xac", 3);
    for (size_t start = 0; start < 3; start++) {
        outcome = read_failure("", text + start);
        assert_sound(&outcome);
        assert_true(strlen(outcome.detail) >= sizeof outcome.detail - 3);
    }
    snprintf(text, sizeof text, CHALLENGE_HEAD "Domain: %s%s\nType: %s\n", LONG_256,
             LONG_256, LONG_256);
    outcome = read_failure(text, CHALLENGE_ERROR);
    assert_sound(&outcome);
    assert_int_equal(strlen(outcome.identifier), sizeof outcome.identifier - 1);
    assert_int_equal(strlen(outcome.problem), sizeof outcome.problem - 1);
}

static void a_type_of_other_characters_is_not_a_type(void **state)
{
    (void)state;
    expect(PROBLEM "rateLimited2 :: x :: y\n", CERTBOT_RATE_LIMITED, "rateLimited", "y");
    expect(PROBLEM "../../etc :: x :: y\n", CERTBOT_CA_REFUSED, "", "y");
    expect(PROBLEM LONG_256 " :: x :: y\n", CERTBOT_CA_REFUSED, "", "y");
}

/* Every text that can come from outside, in every place: only the form is looked at. */
static void no_text_does_harm(void **state)
{
    static const char *const pieces[] = {
        "acme.messages.Error: ",
        "urn:ietf:params:acme:error:",
        "rateLimited",
        " :: ",
        "retry after ",
        "2026-11-24 18:44:03",
        "Some challenges have failed.",
        "reported these problems",
        "Domain:",
        "Identifier:",
        "Type:",
        "Detail:",
        "\n",
        " ",
        "\t",
        "\r",
        "\xff",
        "\xc2",
        "\x1b[2J",
        "Traceback (most recent call last):",
        "See the logfile",
        "acme.errors.",
        "\xc3\xa9",
    };
    const size_t count = sizeof pieces / sizeof pieces[0];
    uint64_t bits = 1;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        char text[2][1024] = {"", ""};
        struct certbot_outcome outcome;
        struct err err = ERR_INIT;

        for (int i = 0; i < 40; i++) {
            char *at = text[i % 2];
            size_t used = strlen(at);

            bits = bits * UINT64_C(6364136223846793005) + 1442695040888963407U;
            snprintf(at + used, sizeof text[0] - used, "%s",
                     pieces[(bits >> 33) % count]);
        }
        outcome = read_failure(text[0], text[1]);
        assert_sound(&outcome);
        assert_int_not_equal(outcome.verdict, CERTBOT_ISSUED);
        assert_int_equal(certbot_outcome_err(&outcome, &err), -1);
        assert_int_not_equal(err.kind, ERR_NONE);
    }
}

static void a_megabyte_is_read(void **state)
{
    static const char *const endings[] = {"", "\n", "\n" PROBLEM "rateLimited :: a :: b"};
    const size_t size = 1024 * 1024;
    char *text = malloc(size + 256);

    (void)state;
    assert_non_null(text);
    for (int fill = 1; fill < 256; fill += 31) {
        for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
            struct certbot_outcome outcome;

            memset(text, fill, size);
            strcpy(text + size, endings[i]);
            outcome = read_failure(text, text);
            assert_sound(&outcome);
            assert_int_equal(outcome.verdict,
                             i == 2 ? CERTBOT_RATE_LIMITED : CERTBOT_LOCAL_FAILURE);
        }
    }
    free(text);
}

/* ---- as an error ---- */

static void an_outcome_is_an_error_of_its_kind(void **state)
{
    static const struct {
        enum certbot_verdict verdict;
        enum err_kind kind;
        const char *message;
    } expected[] = {
        {CERTBOT_CHALLENGE_FAILED, ERR_PEER, "challenge failed: why"},
        {CERTBOT_RATE_LIMITED, ERR_PEER, "rate limited: why"},
        {CERTBOT_CA_UNREACHABLE, ERR_NET, "CA unreachable: why"},
        {CERTBOT_CA_REFUSED, ERR_PEER, "CA refused: why"},
        {CERTBOT_ACCOUNT_GONE, ERR_PEER, "account gone: why"},
        {CERTBOT_LOCKED, ERR_SYS, "lock held: why"},
        {CERTBOT_KILLED, ERR_SYS, "killed: why"},
        {CERTBOT_TOO_OLD, ERR_CONFIG, "certbot too old: why"},
        {CERTBOT_LOCAL_FAILURE, ERR_SYS, "local failure: why"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const struct certbot_outcome outcome = {.verdict = expected[i].verdict,
                                                .detail = "why"};
        struct err err = ERR_INIT;

        assert_int_equal(certbot_outcome_err(&outcome, &err), -1);
        assert_int_equal(err.kind, expected[i].kind);
        assert_string_equal(err.message, expected[i].message);
    }
}

static void the_error_names_domain_and_problem(void **state)
{
    struct certbot_outcome outcome = {
        .verdict = CERTBOT_CHALLENGE_FAILED,
        .problem = "dns",
        .identifier = "app.example.test",
        .detail = "no record",
    };
    struct err err = ERR_INIT;

    (void)state;
    certbot_outcome_err(&outcome, &err);
    assert_string_equal(err.message,
                        "challenge failed for app.example.test (dns): no record");
    outcome.identifier[0] = '\0';
    certbot_outcome_err(&outcome, &err);
    assert_string_equal(err.message, "challenge failed (dns): no record");
    assert_string_equal(certbot_verdict_name(CERTBOT_ISSUED), "issued");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_certificate_was_issued),
        cmocka_unit_test(what_was_overcome_does_not_count),
        cmocka_unit_test(a_challenge_failed),
        cmocka_unit_test(the_first_of_several_challenges_is_told),
        cmocka_unit_test(a_report_may_be_incomplete),
        cmocka_unit_test(the_report_begins_behind_its_head),
        cmocka_unit_test(the_rate_limit_is_reached),
        cmocka_unit_test(the_time_of_a_rate_limit_is_read),
        cmocka_unit_test(the_time_of_a_rate_limit_is_utc),
        cmocka_unit_test(another_problem_has_no_time),
        cmocka_unit_test(the_account_is_gone),
        cmocka_unit_test(the_ca_refuses),
        cmocka_unit_test(parts_of_a_problem_may_be_missing),
        cmocka_unit_test(subproblems_are_not_the_reason),
        cmocka_unit_test(the_last_of_two_problems_is_the_reason),
        cmocka_unit_test(the_order_became_invalid),
        cmocka_unit_test(the_ca_is_out_of_reach),
        cmocka_unit_test(another_certbot_holds_the_lock),
        cmocka_unit_test(a_failure_at_home_is_told_in_one_line),
        cmocka_unit_test(wrong_use_is_told_in_one_line),
        cmocka_unit_test(a_certbot_without_profiles_is_too_old),
        cmocka_unit_test(a_signal_ended_certbot),
        cmocka_unit_test(a_failure_without_words_is_told),
        cmocka_unit_test(the_end_was_not_seen),
        cmocka_unit_test(how_far_an_order_came_is_seen_in_the_traceback),
        cmocka_unit_test(control_characters_and_broken_text_become_blanks),
        cmocka_unit_test(long_text_is_cut_between_characters),
        cmocka_unit_test(a_type_of_other_characters_is_not_a_type),
        cmocka_unit_test(no_text_does_harm),
        cmocka_unit_test(a_megabyte_is_read),
        cmocka_unit_test(an_outcome_is_an_error_of_its_kind),
        cmocka_unit_test(the_error_names_domain_and_problem),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
