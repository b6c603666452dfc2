#include "app/status_screen.h"

#include "app/control_client.h"
#include "app/terminal.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define NUMBER_MAX (INT64_C(1) << 50)

enum { LABEL_WIDTH = 13, VALUE_MAX = 4096, NARROWEST = 20 };

/* ---- members ---- */

/* Times are so far from the limits of their type that they can be added and multiplied. */
static int64_t number_of(const json_t *object, const char *name)
{
    int64_t number = json_integer_value(json_object_get(object, name));

    return number > NUMBER_MAX ? NUMBER_MAX : number < -NUMBER_MAX ? -NUMBER_MAX : number;
}

static bool is_true(const json_t *object, const char *name)
{
    return json_is_true(json_object_get(object, name));
}

/* "3 minutes ago", "in 2 days". */
static const char *away(char ret[TEXT_DURATION_SIZE + 8], const struct screen *screen,
                        int64_t when)
{
    char duration[TEXT_DURATION_SIZE];

    if (when > screen->now)
        snprintf(ret, TEXT_DURATION_SIZE + 8, "in %s",
                 text_duration(duration, when - screen->now));
    else
        snprintf(ret, TEXT_DURATION_SIZE + 8, "%s ago",
                 text_duration(duration, screen->now - when));
    return ret;
}

/* ---- lines ---- */

/* How much of the text fits into so many columns; breaks between words where there are any. */
static size_t fitting(const char *text, size_t columns, size_t *ret_next)
{
    size_t len = 0;
    size_t taken = 0;
    size_t space = 0;
    unsigned code;

    while (text[len] != '\0' && taken < columns) {
        size_t piece = text_character(text + len, strlen(text + len), &code);

        if (text[len] == ' ')
            space = len;
        len += piece == 0 ? 1 : piece;
        taken++;
    }
    if (text[len] != '\0' && text[len] != ' ' && space > 0)
        len = space;
    *ret_next = len + (text[len] == ' ');
    return len;
}

static void print_wrapped(const struct screen *screen, enum terminal_style style,
                          size_t indent, const char *text)
{
    size_t columns =
        screen->width > indent + NARROWEST ? screen->width - indent : NARROWEST;
    size_t next;

    for (;;) {
        size_t len = fitting(text, columns, &next);

        terminal_print(screen->out, style, "%.*s", (int)len, text);
        fputs(screen->line_end, screen->out);
        text += next;
        if (*text == '\0')
            return;
        fprintf(screen->out, "%*s", (int)indent, "");
    }
}

static void __attribute__((format(printf, 4, 5))) row(const struct screen *screen,
                                                      const char *label,
                                                      enum terminal_style style,
                                                      const char *format, ...)
{
    char raw[VALUE_MAX];
    char safe[2 * VALUE_MAX]; /* before it is wrapped: escaped text is longer */
    va_list args;

    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    text_escape(safe, sizeof safe, raw, strlen(raw));
    terminal_print(screen->out, TERMINAL_FAINT, "%-*s", LABEL_WIDTH, label);
    print_wrapped(screen, style, LABEL_WIDTH, safe);
}

/* ---- what is served ---- */

static void print_head(const struct screen *screen, const json_t *status)
{
    const json_t *attention = json_object_get(status, "attention");
    char up[TEXT_DURATION_SIZE];
    const json_t *text;
    size_t i;

    terminal_print(screen->out, TERMINAL_BOLD, "%s", control_text(status, "domain"));
    terminal_print(screen->out, TERMINAL_PLAIN, "  %s, cert-manager %s, up for %s",
                   control_text(status, "mode"), control_text(status, "version"),
                   text_duration(up, screen->now - number_of(status, "started_at")));
    fputs(screen->line_end, screen->out);
    json_array_foreach((json_t *)(uintptr_t)attention, i, text)
    {
        char safe[2 * VALUE_MAX];
        const char *raw = json_string_value(text);

        text_escape(safe, sizeof safe, raw == NULL ? "" : raw,
                    raw == NULL ? 0 : strlen(raw));
        terminal_print(screen->out, TERMINAL_BAD, "! ");
        print_wrapped(screen, TERMINAL_BAD, 2, safe);
    }
    if (screen_is_well(status) && !screen->past) {
        terminal_print(screen->out, TERMINAL_GOOD, "all is well");
        fputs(screen->line_end, screen->out);
    }
    fputs(screen->line_end, screen->out);
}

static void print_names(const struct screen *screen, const json_t *status)
{
    char names[VALUE_MAX] = "";
    const json_t *name;
    size_t used = 0;
    size_t i;

    json_array_foreach(json_object_get(status, "domains"), i, name)
    {
        if (used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                     i == 0 ? "" : ", ", json_string_value(name));
    }
    row(screen, "names", TERMINAL_PLAIN, "%s", names);
}

static void print_certificate(const struct screen *screen, const json_t *leaf)
{
    int64_t from = number_of(leaf, "not_before");
    int64_t to = number_of(leaf, "not_after");
    int64_t left = to > screen->now ? to - screen->now : 0;
    char from_text[TEXT_TIME_SIZE];
    char to_text[TEXT_TIME_SIZE];

    if (!json_is_object(leaf)) {
        row(screen, "certificate", TERMINAL_BAD, "none is served");
        return;
    }
    row(screen, "certificate", TERMINAL_PLAIN, "issuer \"%s\", serial %s",
        control_text(leaf, "issuer"), control_text(leaf, "serial"));
    row(screen, "  sha256", TERMINAL_PLAIN, "%s", control_text(leaf, "sha256"));
    row(screen, "  valid", left == 0 ? TERMINAL_BAD : TERMINAL_PLAIN,
        "from %s to %s, %d %% left", text_time(from_text, from), text_time(to_text, to),
        to > from ? (int)(100 * left / (to - from)) : 0);
}

/* A leaf that somebody else names, by what is to be there. */
static void print_leaf(const struct screen *screen, const char *label,
                       const char *expected, const char *found, const char *suffix)
{
    if (found[0] == '\0')
        row(screen, label, TERMINAL_DOUBTFUL, "none%s", suffix);
    else if (strcmp(expected, found) == 0)
        row(screen, label, TERMINAL_GOOD, "this one%s", suffix);
    else
        row(screen, label, TERMINAL_BAD, "%s%s", found, suffix);
}

static void print_seen(const struct screen *screen, const json_t *status)
{
    const char *leaf = control_text(json_object_get(status, "certificate"), "sha256");
    const json_t *served = json_object_get(status, "served");
    const json_t *event = json_object_get(status, "last_event");
    const json_t *measurement = json_object_get(status, "measurement");
    char ago[TEXT_DURATION_SIZE + 8];
    char suffix[TEXT_DURATION_SIZE + 64];

    if (number_of(served, "probed_at") != 0 && control_text(served, "error")[0] != '\0') {
        row(screen, "  port", TERMINAL_BAD, "%s, %s", control_text(served, "error"),
            away(ago, screen, number_of(served, "probed_at")));
    } else if (number_of(served, "probed_at") != 0) {
        snprintf(suffix, sizeof suffix, ", presented %s",
                 away(ago, screen, number_of(served, "probed_at")));
        print_leaf(screen, "  port", leaf, control_text(served, "sha256"), suffix);
    }
    if (number_of(event, "at") != 0) {
        snprintf(suffix, sizeof suffix, ", by the %s %s", control_text(event, "from"),
                 away(ago, screen, number_of(event, "at")));
        print_leaf(screen, "  last event", leaf, control_text(event, "sha256"), suffix);
    }
    if (strcmp(control_text(status, "mode"), "development") == 0)
        row(screen, "  attested", TERMINAL_PLAIN, "not in development");
    else if (is_true(measurement, "attested"))
        row(screen, "  attested", TERMINAL_GOOD, "yes, by %s",
            control_text(measurement, "backend"));
    else
        row(screen, "  attested", TERMINAL_BAD, "NO: %s",
            control_text(measurement, "reason"));
}

static void print_nginx(const struct screen *screen, const json_t *nginx)
{
    const char *level = control_text(nginx, "configuration");
    const char *reason = control_text(nginx, "reason");
    bool full = strcmp(level, "full") == 0;

    row(screen, "nginx", full ? TERMINAL_PLAIN : TERMINAL_DOUBTFUL,
        "%s configuration%s%s", level, reason[0] == '\0' ? "" : ": ", reason);
}

/* ---- what is done ---- */

/* What the plan calls by one word. */
static const char *phrase_of(const char *action)
{
    static const char *const phrases[][2] = {
        {"keys", "ask the agent for keys"},
        {"examine", "judge the stored certificate"},
        {"apply", "serve the new certificate"},
        {"repair", "serve the former certificate again"},
        {"reapply", "bring nginx and attestation in order"},
        {"evidence", "gather evidence"},
        {"renewal info", "ask the CA when to renew"},
        {"adopt", "look what others serve"},
        {"issue", "order a certificate"},
    };

    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++) {
        if (strcmp(phrases[i][0], action) == 0)
            return phrases[i][1];
    }
    return action;
}

static void print_next(const struct screen *screen, const json_t *next)
{
    const char *phrase = phrase_of(control_text(next, "action"));
    int64_t at = number_of(next, "at");
    char when[TEXT_DURATION_SIZE + 8];

    if (at == 0)
        row(screen, "next", TERMINAL_PLAIN, "%s", control_text(next, "why"));
    else if (at <= screen->now)
        row(screen, "next", TERMINAL_PLAIN, "%s: %s", phrase, control_text(next, "why"));
    else
        row(screen, "next", TERMINAL_PLAIN, "%s %s: %s", phrase, away(when, screen, at),
            control_text(next, "why"));
}

static void print_activity(const struct screen *screen, const json_t *activity)
{
    char duration[TEXT_DURATION_SIZE];

    if (!json_is_object(activity))
        row(screen, "now", TERMINAL_PLAIN, "nothing");
    else
        row(screen, "now", TERMINAL_BOLD, "%s: %s, for %s",
            control_text(activity, "flow"), control_text(activity, "step"),
            text_duration(duration, screen->now > number_of(activity, "since")
                                        ? screen->now - number_of(activity, "since")
                                        : 0));
}

static void print_outcomes(const struct screen *screen, const json_t *status)
{
    const json_t *success = json_object_get(status, "last_success");
    const json_t *failure = json_object_get(status, "last_failure");
    bool open = is_true(failure, "open");
    enum terminal_style style = open ? TERMINAL_BAD : TERMINAL_PLAIN;
    char ago[TEXT_DURATION_SIZE + 8];

    if (json_is_object(success))
        row(screen, "last success", TERMINAL_PLAIN, "%s, %s",
            control_text(success, "activity"),
            away(ago, screen, number_of(success, "at")));
    if (!json_is_object(failure)) {
        row(screen, "last failure", TERMINAL_PLAIN, "none since the start");
        return;
    }
    if (!open) {
        row(screen, "last failure", style, "%s (%s), %s, over: %s",
            control_text(failure, "activity"), control_text(failure, "kind"),
            away(ago, screen, number_of(failure, "at")), control_text(failure, "reason"));
        return;
    }
    /* Its reason is what somebody should look at, and stands above. */
    row(screen, "last failure", style, "%s (%s), %s", control_text(failure, "activity"),
        control_text(failure, "kind"), away(ago, screen, number_of(failure, "at")));
    row(screen, "  again", style, "%s, after attempt %" PRId64,
        away(ago, screen, number_of(failure, "retry_at")), number_of(failure, "attempt"));
    if (control_text(failure, "hint")[0] != '\0')
        row(screen, "  hint", style, "%s", control_text(failure, "hint"));
}

/* What another part of the screen says need not be said again, such as the leaf that is served. */
static const char *news_of(const char *kind, const json_t *request, const json_t *status)
{
    const char *text = control_text(request, "text");
    bool failed = strcmp(control_text(request, "state"), "failed") == 0;
    const char *leaf = control_text(json_object_get(status, "certificate"), "sha256");
    const json_t *failure = json_object_get(status, "last_failure");
    const char *reason = control_text(failure, "reason");

    if (strcmp(control_text(request, "state"), "done") == 0 && leaf[0] != '\0' &&
        strstr(text, leaf) != NULL)
        return "that certificate is served";
    if (failed &&
        (strcmp(kind, "reload") == 0 || (is_true(failure, "open") && reason[0] != '\0' &&
                                         strncmp(text, reason, strlen(reason)) == 0)))
        return "the reason stands above";
    return text;
}

static void print_requests(const struct screen *screen, const json_t *status)
{
    const char *kind;
    json_t *request;

    json_object_foreach(json_object_get(status, "requests"), kind, request)
    {
        const char *news = news_of(kind, request, status);

        row(screen, kind, TERMINAL_PLAIN, "request %" PRId64 ", %s%s%s",
            number_of(request, "id"), control_text(request, "state"),
            news[0] == '\0' ? "" : ": ", news);
    }
}

/* ---- whom it works with ---- */

static void print_limits(const struct screen *screen, const json_t *limits)
{
    char texts[VALUE_MAX] = "";
    char when[TEXT_DURATION_SIZE + 8];
    bool used_up = false;
    const char *name;
    json_t *limit;
    size_t used = 0;

    json_object_foreach((json_t *)(uintptr_t)limits, name, limit)
    {
        int64_t left = number_of(limit, "left");

        if (used < sizeof texts)
            used += (size_t)snprintf(
                texts + used, sizeof texts - used, "%s%s %" PRId64 " of %" PRId64 "%s%s",
                used == 0 ? "" : ", ", name, left, number_of(limit, "limit"),
                left == 0 ? " " : "",
                left == 0 ? away(when, screen, number_of(limit, "next_at")) : "");
        used_up = used_up || left == 0;
    }
    if (used > 0)
        row(screen, "  left", used_up ? TERMINAL_BAD : TERMINAL_PLAIN, "%s", texts);
}

static void print_authorities(const struct screen *screen, const json_t *status)
{
    const json_t *authority;
    size_t i;

    json_array_foreach(json_object_get(status, "authorities"), i, authority)
    {
        const char *account = control_text(authority, "account");

        row(screen, "CA", TERMINAL_PLAIN, "%s", control_text(authority, "directory"));
        row(screen, "  account",
            strcmp(control_text(authority, "account_state"), "valid") == 0 ||
                    account[0] == '\0'
                ? TERMINAL_PLAIN
                : TERMINAL_BAD,
            "%s%s%s", account, account[0] == '\0' ? "" : ", ",
            control_text(authority, "account_state"));
        print_limits(screen, json_object_get(authority, "limits"));
    }
}

static void print_parts(const struct screen *screen, const json_t *status)
{
    const json_t *agent = json_object_get(status, "agent");
    const json_t *certbot = json_object_get(status, "certbot");
    const char *version = control_text(agent, "version");
    const char *app = control_text(agent, "app_name");
    const char *error = control_text(certbot, "error");

    if (json_is_object(agent))
        row(screen, "agent", TERMINAL_PLAIN, "%s, %s%s%s%s",
            control_text(agent, "endpoint"),
            version[0] == '\0' ? "version not known" : "version ", version,
            app[0] == '\0' ? "" : ", application ", app);
    if (json_is_object(certbot))
        row(screen, "certbot", error[0] == '\0' ? TERMINAL_PLAIN : TERMINAL_BAD, "%s, %s",
            control_text(certbot, "path"),
            error[0] != '\0' ? error
            : control_text(certbot, "version")[0] != '\0'
                ? control_text(certbot, "version")
                : "version not known yet");
}

static void print_hardening(const struct screen *screen, const json_t *hardening)
{
    const char *missing = control_text(hardening, "missing");

    if (missing[0] != '\0')
        row(screen, "hardening", TERMINAL_PLAIN, "not all of it is in force: %s",
            missing);
}

void screen_print(const struct screen *screen, const json_t *status)
{
    print_head(screen, status);
    print_names(screen, status);
    print_certificate(screen, json_object_get(status, "certificate"));
    print_seen(screen, status);
    print_nginx(screen, json_object_get(status, "nginx"));
    print_next(screen, json_object_get(status, "next_action"));
    print_activity(screen, json_object_get(status, "activity"));
    print_outcomes(screen, status);
    print_requests(screen, status);
    print_authorities(screen, status);
    print_parts(screen, status);
    print_hardening(screen, json_object_get(status, "hardening"));
}

bool screen_is_well(const json_t *status)
{
    return json_array_size(json_object_get(status, "attention")) == 0;
}
