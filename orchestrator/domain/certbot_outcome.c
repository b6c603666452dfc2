#include "domain/certbot_outcome.h"

#include "base/text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define TRACEBACK "Traceback (most recent call last):"
#define PROBLEM_MARK "acme.messages.Error: "
#define PROBLEM_TYPE "urn:ietf:params:acme:error:"

/*
 * What certbot and its libraries say when there is no problem document; the first that
 * is found decides.
 */
static const struct mark {
    const char *text;
    enum certbot_verdict verdict;
} marks[] = {
    {"unrecognized arguments: --preferred-profile", CERTBOT_TOO_OLD},
    {"Another instance of Certbot is already running", CERTBOT_LOCKED},
    /* the order became invalid after it was finalized; why is in certbot's own log only */
    {"acme.errors.IssuanceError", CERTBOT_CA_REFUSED},
    {"acme.errors.",
     CERTBOT_CA_UNREACHABLE}, /* no ACME: an HTTP error, no nonce, no end */
    {"requests.exceptions.", CERTBOT_CA_UNREACHABLE},
    /* certbot 2 and 4 rewrite connection errors to this */
    {"ValueError: Requesting ", CERTBOT_CA_UNREACHABLE},
    {"All authorizations were not finalized by the CA", CERTBOT_CA_UNREACHABLE},
};

/*
 * Where a traceback shows these, the order had been finalized or was about to be: acme's
 * finalize_order, begin_finalization and poll_finalization, and certbot's save_certificate.
 */
static const char *const late_marks[] = {"finalize_order", "finalization",
                                         "save_certificate"};

/* Lines of standard error that say nothing about the reason. */
static const char *const noise[] = {
    "Saving debug log to ",
    "Ask for help or search for solutions",
    "Please see the logfile",
    "See the logfile",
    "An unexpected error occurred:",
    "The following error was encountered:",
    "Either run as root, or set --config-dir",
    TRACEBACK,
};

static const char *line_end(const char *line)
{
    return line + strcspn(line, "\n");
}

/* Text up to `end` without blanks around it, as valid UTF-8 in one line. */
static void copy_text(char *ret, size_t size, const char *text, const char *end)
{
    size_t used = 0;

    while (text < end && (*text == ' ' || *text == '\t'))
        text++;
    while (end > text && (end[-1] == ' ' || end[-1] == '\r' || end[-1] == '\t'))
        end--;
    while (text < end) {
        unsigned code = 0;
        size_t len = text_character(text, (size_t)(end - text), &code);
        bool good = len > 0 && !text_is_control(code);
        size_t put = good ? len : 1;

        if (used + put >= size)
            break;
        memcpy(ret + used, good ? text : " ", put);
        used += put;
        text += len > 0 ? len : 1;
    }
    ret[used] = '\0';
}

/* Value of the first line "<blanks>LABEL value" in `text`; false when there is none. */
static bool labelled(const char *text, const char *label, char *ret, size_t size)
{
    for (const char *line = text; *line != '\0'; line = line_end(line)) {
        line += strspn(line, " \t\n");
        if (text_starts_with(line, label)) {
            copy_text(ret, size, line + strlen(label), line_end(line));
            return true;
        }
    }
    return false;
}

/*
 * "… retry after 2026-11-24 18:44:03 UTC …" of a rateLimited problem; 0 when it is not
 * there.
 */
static int64_t retry_time(const char *detail)
{
    const char *found = strstr(detail, "retry after ");
    struct tm parts = {0};
    const char *end;

    if (found == NULL)
        return 0;
    found += strlen("retry after ");
    end = strptime(found, "%Y-%m-%d %H:%M:%S", &parts);
    if (end == NULL)
        end = strptime(found, "%Y-%m-%dT%H:%M:%S", &parts);
    return end == NULL ? 0 : (int64_t)timegm(&parts);
}

/* The last problem document on standard error: a badNonce, which certbot tries again after,
 * may come before it. */
static const char *find_problem(const char *text)
{
    const char *found = NULL;

    while ((text = strstr(text, PROBLEM_MARK)) != NULL) {
        text += strlen(PROBLEM_MARK);
        found = text;
    }
    return found;
}

static bool read_problem(const char *text, struct certbot_outcome *ret)
{
    const char *detail = find_problem(text);
    const char *type;
    const char *end;

    if (detail == NULL)
        return false;
    end = line_end(detail);
    type = strstr(detail, PROBLEM_TYPE);
    if (type != NULL && type < end) {
        type += strlen(PROBLEM_TYPE);
        detail = type + strspn(type,
                               "abcdefghijklmnopqrstuvwxyz"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        copy_text(ret->problem, sizeof ret->problem, type, detail);
    }
    /* "<type> :: <title> :: <detail>"; without a detail the title has to do. */
    for (int i = 0; i < 2; i++) {
        const char *next = strstr(detail, " :: ");

        if (next == NULL || next >= end)
            break;
        detail = next + strlen(" :: ");
    }
    copy_text(ret->detail, sizeof ret->detail, detail, end);
    ret->verdict = CERTBOT_CA_REFUSED;
    if (strcmp(ret->problem, "rateLimited") == 0) {
        ret->verdict = CERTBOT_RATE_LIMITED;
        ret->retry_at = retry_time(ret->detail);
    } else if (strcmp(ret->problem, "accountDoesNotExist") == 0) {
        ret->verdict = CERTBOT_ACCOUNT_GONE;
    }
    return true;
}

static bool read_challenge(const struct certbot_ending *ending,
                           struct certbot_outcome *ret)
{
    const char *report;

    if (strstr(ending->standard_error, "Some challenges have failed.") == NULL)
        return false;
    report = strstr(ending->standard_output, "reported these problems");
    if (report == NULL)
        report = ending->standard_output;
    ret->verdict = CERTBOT_CHALLENGE_FAILED;
    if (!labelled(report, "Domain:", ret->identifier, sizeof ret->identifier))
        labelled(report, "Identifier:", ret->identifier, sizeof ret->identifier);
    labelled(report, "Type:", ret->problem, sizeof ret->problem);
    labelled(report, "Detail:", ret->detail, sizeof ret->detail);
    return true;
}

static bool is_noise(const char *line)
{
    if (line + strspn(line, " \t\r") == line_end(line))
        return true;
    for (size_t i = 0; i < sizeof noise / sizeof noise[0]; i++) {
        if (text_starts_with(line, noise[i]))
            return true;
    }
    return false;
}

/* The last line with a meaning: of a Python traceback that is the exception itself. */
static void last_line(const char *text, char *ret, size_t size)
{
    const char *found = NULL;
    const char *line = text;

    while (*line != '\0') {
        if (!is_noise(line))
            found = line;
        line = line_end(line);
        line += *line == '\n';
    }
    if (found != NULL)
        copy_text(ret, size, found, line_end(found));
}

static void read_text(const struct certbot_ending *ending, struct certbot_outcome *ret)
{
    ret->verdict = CERTBOT_LOCAL_FAILURE;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (strstr(ending->standard_error, marks[i].text) != NULL) {
            ret->verdict = marks[i].verdict;
            break;
        }
    }
    if (ret->verdict == CERTBOT_TOO_OLD) {
        snprintf(
            ret->detail, sizeof ret->detail,
            "a profile needs certbot 4.0 or newer; install that, or remove the profile");
        return;
    }
    last_line(ending->standard_error, ret->detail, sizeof ret->detail);
    if (ret->detail[0] != '\0')
        return;
    if (ending->exit_status < 0) { /* a signal, or certbot would have said something */
        ret->verdict = CERTBOT_KILLED;
        snprintf(ret->detail, sizeof ret->detail,
                 "certbot was ended, by whatever it was");
        return;
    }
    last_line(ending->standard_output, ret->detail, sizeof ret->detail);
}

/*
 * Whether there may be a certificate that nobody has got. A CA that says what is wrong has issued
 * none; everything else is told by the traceback, and status 2 by an option before all of it.
 */
static bool may_have_issued(const struct certbot_ending *ending,
                            const struct certbot_outcome *outcome)
{
    if (outcome->problem[0] != '\0' || outcome->verdict == CERTBOT_CHALLENGE_FAILED ||
        outcome->verdict == CERTBOT_CA_REFUSED || outcome->verdict == CERTBOT_LOCKED)
        return false;
    for (size_t i = 0; i < sizeof late_marks / sizeof late_marks[0]; i++) {
        if (strstr(ending->standard_error, late_marks[i]) != NULL)
            return true;
    }
    return ending->exit_status != 2 && strstr(ending->standard_error, TRACEBACK) == NULL;
}

void certbot_outcome_read(const struct certbot_ending *ending,
                          struct certbot_outcome *ret)
{
    *ret = (struct certbot_outcome){.verdict = CERTBOT_ISSUED, .may_have_issued = true};
    if (ending->exit_status == 0)
        return;
    if (ending->term_signal != 0) {
        ret->verdict = CERTBOT_KILLED;
        snprintf(ret->detail, sizeof ret->detail, "certbot was ended by signal %d (%s)",
                 ending->term_signal, strsignal(ending->term_signal));
        return;
    }
    if (!read_challenge(ending, ret) && !read_problem(ending->standard_error, ret))
        read_text(ending, ret);
    ret->may_have_issued = may_have_issued(ending, ret);
    if (ret->detail[0] == '\0')
        snprintf(ret->detail, sizeof ret->detail,
                 "certbot ended with status %d and gave no reason", ending->exit_status);
}

const char *certbot_verdict_name(enum certbot_verdict verdict)
{
    static const char *const names[] = {
        [CERTBOT_ISSUED] = "issued",
        [CERTBOT_CHALLENGE_FAILED] = "challenge failed",
        [CERTBOT_RATE_LIMITED] = "rate limited",
        [CERTBOT_CA_UNREACHABLE] = "CA unreachable",
        [CERTBOT_CA_REFUSED] = "CA refused",
        [CERTBOT_ACCOUNT_GONE] = "account gone",
        [CERTBOT_LOCKED] = "lock held",
        [CERTBOT_KILLED] = "killed",
        [CERTBOT_TOO_OLD] = "certbot too old",
        [CERTBOT_LOCAL_FAILURE] = "local failure",
    };
    return names[verdict];
}

int certbot_outcome_err(const struct certbot_outcome *outcome, struct err *err)
{
    static const enum err_kind kinds[] = {
        [CERTBOT_ISSUED] = ERR_NONE,       [CERTBOT_CHALLENGE_FAILED] = ERR_PEER,
        [CERTBOT_RATE_LIMITED] = ERR_PEER, [CERTBOT_CA_UNREACHABLE] = ERR_NET,
        [CERTBOT_CA_REFUSED] = ERR_PEER,   [CERTBOT_ACCOUNT_GONE] = ERR_PEER,
        [CERTBOT_LOCKED] = ERR_SYS,        [CERTBOT_KILLED] = ERR_SYS,
        [CERTBOT_TOO_OLD] = ERR_CONFIG,    [CERTBOT_LOCAL_FAILURE] = ERR_SYS,
    };
    const char *name = certbot_verdict_name(outcome->verdict);
    enum err_kind kind = kinds[outcome->verdict];

    if (outcome->identifier[0] != '\0')
        return err_set(err, kind, "%s for %s (%s): %s", name, outcome->identifier,
                       outcome->problem[0] == '\0' ? "no type" : outcome->problem,
                       outcome->detail);
    if (outcome->problem[0] != '\0')
        return err_set(err, kind, "%s (%s): %s", name, outcome->problem, outcome->detail);
    return err_set(err, kind, "%s: %s", name, outcome->detail);
}
