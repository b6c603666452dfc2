#include "domain/caa.h"

#include "base/text.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- values: issuer, and parameters behind it (RFC 8659 §4.2) ---- */

static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t");
}

/* Letters, digits and, between them, hyphens; NULL when there is no such word. */
static const char *skip_word(const char *at)
{
    const char *end = at;

    while (is_letter_or_digit(*end) || (*end == '-' && end > at))
        end++;
    return end > at && end[-1] != '-' ? end : NULL;
}

/* One label or more; `at` itself when nothing like that stands there, NULL for a broken one. */
static const char *skip_issuer(const char *at)
{
    if (*at == ';' || *at == '\0')
        return at;
    for (;;) {
        at = skip_word(at);
        if (at == NULL || *at != '.')
            return at;
        at++;
    }
}

struct part {
    const char *at;
    size_t len;
};

static bool part_is(const struct part *part, const char *text)
{
    return strlen(text) == part->len && strncasecmp(part->at, text, part->len) == 0;
}

enum { PARAMETERS_MAX = 16 };

struct issue {
    struct part issuer;
    struct {
        struct part tag;
        struct part value;
    } parameters[PARAMETERS_MAX];
    size_t count;
};

/* "tag = value" up to the next ';' or the end; NULL when it is not of that form. */
static const char *read_parameter(const char *at, struct issue *issue)
{
    const char *end = skip_word(at);
    const char *value;

    if (end == NULL || issue->count == PARAMETERS_MAX)
        return NULL;
    value = skip_space(end);
    if (*value != '=')
        return NULL;
    issue->parameters[issue->count].tag = (struct part){at, (size_t)(end - at)};
    value = skip_space(value + 1);
    for (at = value; *at > ' ' && *at < 0x7f && *at != ';'; at++)
        continue;
    issue->parameters[issue->count].value = (struct part){value, (size_t)(at - value)};
    issue->count++;
    return skip_space(at);
}

/* False when the value is not of the form: then it names nobody. */
static bool read_issue(const struct caa_record *record, struct issue *ret)
{
    const char *at = skip_space(record->value);
    const char *end = skip_issuer(at);

    *ret = (struct issue){.count = 0};
    if (record->unusable || end == NULL)
        return false;
    ret->issuer = (struct part){at, (size_t)(end - at)};
    at = skip_space(end);
    if (*at == '\0')
        return true;
    if (*at != ';')
        return false;
    at = skip_space(at + 1);
    while (*at != '\0') {
        at = read_parameter(at, ret);
        if (at == NULL || (*at != '\0' && *at != ';'))
            return false;
        if (*at == ';') {
            at = skip_space(at + 1);
            if (*at == '\0') /* another parameter has to follow */
                return false;
        }
    }
    return true;
}

/* ---- whether a record permits ---- */

/* How often the parameter is there, and its first value. */
static size_t find_parameter(const struct issue *issue, const char *tag,
                             struct part *ret_value)
{
    size_t times = 0;

    for (size_t i = 0; i < issue->count; i++) {
        if (!part_is(&issue->parameters[i].tag, tag))
            continue;
        if (times++ == 0)
            *ret_value = issue->parameters[i].value;
    }
    return times;
}

static bool list_has(const struct part *list, const char *word)
{
    const char *at = list->at;
    const char *end = list->at + list->len;

    while (at < end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        size_t len = (size_t)((comma == NULL ? end : comma) - at);

        if (len == strlen(word) && memcmp(at, word, len) == 0)
            return true;
        at += len + 1;
    }
    return false;
}

static bool is_issuer(const struct part *issuer, const struct caa_request *request)
{
    for (size_t i = 0; i < request->issuer_count; i++) {
        if (part_is(issuer, request->issuers[i]))
            return true;
    }
    return false;
}

/* RFC 8657 §3 and §4: a parameter that stands there twice cannot be met. */
static enum caa_verdict judge_parameters(const struct issue *issue,
                                         const struct caa_request *request)
{
    struct part account = {0};
    struct part methods = {0};
    size_t accounts = find_parameter(issue, "accounturi", &account);
    size_t lists = find_parameter(issue, "validationmethods", &methods);

    if (accounts > 1 || lists > 1 || (lists == 1 && !list_has(&methods, request->method)))
        return CAA_FORBIDS;
    if (accounts == 0)
        return CAA_PERMITS;
    if (request->account_url[0] == '\0')
        return CAA_UNDECIDED;
    return strlen(request->account_url) == account.len &&
                   memcmp(request->account_url, account.at, account.len) == 0
               ? CAA_PERMITS
               : CAA_FORBIDS;
}

static enum caa_verdict judge_record(const struct caa_record *record,
                                     const struct caa_request *request)
{
    struct issue issue;

    if (!read_issue(record, &issue) || issue.issuer.len == 0)
        return CAA_FORBIDS;
    if (request->issuer_count == 0)
        return judge_parameters(&issue, request) == CAA_FORBIDS ? CAA_FORBIDS
                                                                : CAA_UNDECIDED;
    return is_issuer(&issue.issuer, request) ? judge_parameters(&issue, request)
                                             : CAA_FORBIDS;
}

/* ---- the set ---- */

static bool is_known(const char *tag)
{
    /* RFC 8659 §4.2 to §4.4 and RFC 9495; what others there are no CA has to know. */
    static const char *const known[] = {"issue", "issuewild", "iodef", "issuemail"};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcasecmp(tag, known[i]) == 0)
            return true;
    }
    return false;
}

static bool set_has(const struct caa_set *set, const char *tag)
{
    for (size_t i = 0; i < set->count; i++) {
        if (strcasecmp(set->items[i].tag, tag) == 0)
            return true;
    }
    return false;
}

/* The record as a zone file has it. */
static void explain(char *ret, const char *what, const struct caa_record *record)
{
    char value[CAA_VALUE_SIZE];

    text_escape(value, sizeof value, record->value, strlen(record->value));
    snprintf(ret, CAA_WHY_SIZE, "%s: %d %s \"%.300s\"", what, record->critical ? 128 : 0,
             record->tag, value);
}

enum caa_verdict caa_judge(const struct caa_set *set, const struct caa_request *request,
                           char *ret_why)
{
    const char *tag =
        request->wildcard && set_has(set, "issuewild") ? "issuewild" : "issue";
    const struct caa_record *decisive = NULL;
    enum caa_verdict verdict = CAA_FORBIDS;

    for (size_t i = 0; i < set->count; i++) {
        if (!set->items[i].critical || is_known(set->items[i].tag))
            continue;
        explain(ret_why, "a critical record that CAs do not know", &set->items[i]);
        return CAA_FORBIDS;
    }
    for (size_t i = 0; i < set->count && verdict != CAA_PERMITS; i++) {
        enum caa_verdict one;

        if (strcasecmp(set->items[i].tag, tag) != 0)
            continue;
        one = judge_record(&set->items[i], request);
        if (decisive == NULL || (one != CAA_FORBIDS && one != verdict)) {
            decisive = &set->items[i];
            verdict = one;
        }
    }
    if (decisive == NULL) {
        snprintf(ret_why, CAA_WHY_SIZE, "no record restricts who may issue");
        return CAA_PERMITS;
    }
    explain(ret_why,
            verdict == CAA_PERMITS   ? "permitted by"
            : verdict == CAA_FORBIDS ? "not permitted by"
                                     : "it depends on",
            decisive);
    return verdict;
}

const char *caa_parent(const char *name)
{
    const char *dot = strchr(name, '.');

    return dot == NULL || dot[1] == '\0' ? NULL : dot + 1;
}
