#include "domain/preflight.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* 2026-01-01: this program is younger. And the year 2100: it will not be run then. */
static const int64_t earliest = 1767225600;
static const int64_t latest = 4102444800;

const char *preflight_name(enum preflight_check check)
{
    static const char *const names[PREFLIGHT_CHECKS] = {
        [PREFLIGHT_CLOCK] = "clock",     [PREFLIGHT_DISK] = "disk",
        [PREFLIGHT_DNS] = "dns",         [PREFLIGHT_PORT_80] = "port 80",
        [PREFLIGHT_ADDRESS] = "address", [PREFLIGHT_CERTBOT] = "certbot",
        [PREFLIGHT_CAA] = "caa",
    };

    return names[check];
}

const char *preflight_verdict_name(enum preflight_verdict verdict)
{
    static const char *const names[] = {
        [PREFLIGHT_UNKNOWN] = "unknown",
        [PREFLIGHT_OK] = "ok",
        [PREFLIGHT_ADVICE] = "advice",
        [PREFLIGHT_FAILED] = "failed",
    };

    return names[verdict];
}

bool preflight_same(const struct preflight_finding *a, const struct preflight_finding *b)
{
    return a->verdict == b->verdict && strcmp(a->text, b->text) == 0 &&
           strcmp(a->hint, b->hint) == 0;
}

int preflight_result(const struct preflight *preflight, struct err *err)
{
    char texts[ERR_MESSAGE_MAX] = "";
    size_t len = 0;

    for (int i = 0; i < PREFLIGHT_CHECKS && len < sizeof texts; i++) {
        if (preflight->findings[i].verdict == PREFLIGHT_FAILED)
            len += (size_t)snprintf(
                texts + len, sizeof texts - len, "%s%s: %s", len == 0 ? "" : "; ",
                preflight_name((enum preflight_check)i), preflight->findings[i].text);
    }
    return len == 0 ? 0 : err_set(err, ERR_SYS, "the CA is not asked: %s", texts);
}

bool preflight_waits_for_dns(const struct preflight *preflight)
{
    for (int i = 0; i < PREFLIGHT_CHECKS; i++) {
        if ((preflight->findings[i].verdict == PREFLIGHT_FAILED) != (i == PREFLIGHT_DNS))
            return false;
    }
    return true;
}

/* ---- the checks ---- */

static void find(struct preflight_finding *ret, enum preflight_verdict verdict,
                 const char *format, ...) __attribute__((format(printf, 3, 4)));

static void find(struct preflight_finding *ret, enum preflight_verdict verdict,
                 const char *format, ...)
{
    char raw[PREFLIGHT_TEXT_SIZE];
    va_list arguments;

    *ret = (struct preflight_finding){.verdict = verdict};
    va_start(arguments, format);
    vsnprintf(raw, sizeof raw, format, arguments);
    va_end(arguments);
    /* Some of it comes from outside, and the status is JSON. */
    text_escape(ret->text, sizeof ret->text, raw, strlen(raw));
}

static void advise(struct preflight_finding *ret, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void advise(struct preflight_finding *ret, const char *format, ...)
{
    char raw[PREFLIGHT_TEXT_SIZE];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(raw, sizeof raw, format, arguments);
    va_end(arguments);
    text_escape(ret->hint, sizeof ret->hint, raw, strlen(raw));
}

void preflight_skip(struct preflight_finding *ret, const char *why)
{
    find(ret, PREFLIGHT_UNKNOWN, "not looked at: %s", why);
}

void preflight_judge_clock(struct preflight_finding *ret, int64_t now)
{
    char date[TEXT_TIME_SIZE];

    if (now >= earliest && now < latest) {
        find(ret, PREFLIGHT_OK, "plausible");
        return;
    }
    find(ret, PREFLIGHT_FAILED, "this machine's clock says %s", text_time(date, now));
    advise(ret,
           "set the clock, of the host or by NTP: no certificate is valid then, not "
           "even that of the CA's own server");
}

void preflight_judge_disk(struct preflight_finding *ret, const struct err *why)
{
    if (why == NULL) {
        find(ret, PREFLIGHT_OK, "writable");
        return;
    }
    find(ret, PREFLIGHT_FAILED, "%.500s", why->message);
    advise(ret,
           "make room on the volume of tls.dir, or mount it writable: a certificate "
           "that cannot be kept is not ordered");
}

void preflight_judge_dns(struct preflight_finding *ret, const struct err *why,
                         const char *addresses, bool last)
{
    if (why == NULL) {
        find(ret, PREFLIGHT_OK, "%s", addresses);
        return;
    }
    find(ret, last ? PREFLIGHT_ADVICE : PREFLIGHT_FAILED, "%.500s", why->message);
    if (last)
        advise(ret,
               "the CA is asked all the same, it may see another DNS; is the domain's "
               "A or AAAA record there?");
    else
        advise(ret,
               "is the domain's A or AAAA record there? It is looked up again "
               "(acme.resolve_wait), and in the end the CA is asked all the same "
               "(acme.resolve_max_tries)");
}

static bool is_file(const struct preflight_answer *answer,
                    const struct preflight_file *file)
{
    return answer->why == NULL && answer->status == 200 &&
           strcmp(answer->body, file->text) == 0;
}

/* "<token>.<thumbprint>": 43 characters are a SHA-256 in base64url. */
static bool is_computed(const struct preflight_answer *answer,
                        const struct preflight_file *file)
{
    size_t len = strlen(file->name);

    return answer->why == NULL && answer->status == 200 &&
           strncmp(answer->body, file->name, len) == 0 && answer->body[len] == '.' &&
           strlen(answer->body + len + 1) == 43;
}

static bool is_redirect(const struct preflight_answer *answer)
{
    return answer->why == NULL && answer->status >= 300 && answer->status < 400 &&
           answer->location[0] != '\0';
}

void preflight_judge_webroot(struct preflight_finding *ret, const struct err *why)
{
    find(ret, PREFLIGHT_FAILED, "no challenge file can be written: %.450s", why->message);
    advise(ret, "nginx.webroot has to be a folder that we may write to");
}

void preflight_judge_port_80(struct preflight_finding *ret,
                             const struct preflight_answer *answer,
                             const struct preflight_file *file, const char *webroot)
{
    if (is_file(answer, file)) {
        find(ret, PREFLIGHT_OK, "challenge files are served");
    } else if (is_computed(answer, file)) {
        find(ret, PREFLIGHT_ADVICE,
             "nginx answers challenges, but does not serve files out of %s", webroot);
        advise(ret,
               "is nginx.webroot the folder that nginx serves below "
               "/.well-known/acme-challenge/, and may its workers read it?");
    } else if (is_redirect(answer)) {
        /* RFC 8555 §8.3: the CA may follow it, we need not be able to. */
        find(ret, PREFLIGHT_ADVICE, "nginx redirects challenges to %.300s",
             answer->location);
        advise(ret,
               "the CA follows redirects, to ports 80 and 443 only; better let the base "
               "template serve /.well-known/acme-challenge/ itself");
    } else if (answer->why != NULL) {
        find(ret, PREFLIGHT_FAILED, "nginx does not answer: %.400s",
             answer->why->message);
        advise(ret,
               "the CA would not get an answer, either: does nginx run, and listen where "
               "nginx.address and nginx.http_port say?");
    } else {
        find(ret, PREFLIGHT_FAILED,
             "nginx does not serve challenge files: HTTP status %d%s", answer->status,
             answer->status == 200 ? " with another text" : "");
        advise(
            ret,
            "the base template has to serve /.well-known/acme-challenge/ on port 80 out "
            "of %s (nginx.webroot), which nginx's workers must be able to read",
            webroot);
    }
}

/* How much a verdict weighs in what several addresses have. */
static int weight(enum preflight_verdict verdict)
{
    return verdict == PREFLIGHT_ADVICE ? 2 : verdict == PREFLIGHT_UNKNOWN ? 1 : 0;
}

void preflight_judge_address(struct preflight_finding *ret, const char *address,
                             const struct preflight_answer *answer,
                             const struct preflight_file *file)
{
    struct preflight_finding one;

    if (is_file(answer, file)) {
        find(&one, PREFLIGHT_OK, "%s serves challenge files", address);
    } else if (is_computed(answer, file)) {
        find(&one, PREFLIGHT_OK, "%s answers challenges", address);
    } else if (answer->why != NULL) {
        find(&one, PREFLIGHT_UNKNOWN,
             "port 80 of the domain is not reached from here: %.400s",
             answer->why->message);
        advise(&one,
               "that is usual behind NAT; the CA has to reach %s, port 80, from "
               "anywhere",
               address);
    } else if (is_redirect(answer)) {
        find(&one, PREFLIGHT_ADVICE, "%s redirects challenges to %.300s", address,
             answer->location);
        advise(&one,
               "the CA follows redirects, to ports 80 and 443 only: do they end here?");
    } else {
        find(&one, PREFLIGHT_ADVICE,
             "%s answers for the domain, but not with our file: HTTP "
             "status %d",
             address, answer->status);
        advise(&one,
               "does the domain's A or AAAA record lead here, and is "
               "/.well-known/acme-challenge/ of port 80 passed on?");
    }
    if (ret->text[0] == '\0' || weight(one.verdict) > weight(ret->verdict))
        *ret = one;
}

void preflight_judge_certbot(struct preflight_finding *ret, const struct err *why,
                             const char *path, const char *version)
{
    if (why == NULL) {
        find(ret, PREFLIGHT_OK, "%.100s", version[0] == '\0' ? "it can be run" : version);
        return;
    }
    find(ret, PREFLIGHT_FAILED, "%.500s", why->message);
    advise(ret, "is certbot installed, and is it %.300s (certbot.path)?", path);
}

void preflight_judge_caa(struct preflight_finding *ret, const struct preflight_caa *caa)
{
    char why[CAA_WHY_SIZE];

    if (caa->why != NULL) {
        find(ret, PREFLIGHT_UNKNOWN, "%.500s", caa->why->message);
        advise(ret, "a CA that gets no answer, either, does not issue");
        return;
    }
    if (caa->found_at[0] == '\0') {
        find(ret, PREFLIGHT_OK, "there are no CAA records");
        return;
    }
    switch (caa_judge(caa->records, &caa->request, why)) {
    case CAA_PERMITS:
        find(ret, PREFLIGHT_OK, "CAA records of %.80s: %s", caa->found_at, why);
        break;
    case CAA_UNDECIDED:
        find(ret, PREFLIGHT_UNKNOWN, "CAA records of %.80s: %s", caa->found_at, why);
        advise(ret, "%s",
               caa->request.issuer_count == 0
                   ? "is that this CA? Its directory does not say what it is called"
                   : "is that our account? Its URL is not known yet");
        break;
    case CAA_FORBIDS:
        find(ret, PREFLIGHT_ADVICE, "CAA records of %.80s: %s", caa->found_at, why);
        advise(
            ret, "the CA will refuse; add a record for %.80s: CAA 0 issue \"%.80s\"%s",
            caa->found_at,
            caa->request.issuer_count == 0 ? "<name of the CA>" : caa->request.issuers[0],
            caa->request.account_url[0] == '\0'
                ? ""
                : ", where accounturi, if any, is our account, and validationmethods, if "
                  "any, has http-01");
        break;
    }
}
