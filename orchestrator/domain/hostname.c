#include "domain/hostname.h"

#include "base/text.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { NAME_MAX_BYTES = 253, LABEL_MAX_BYTES = 63 };

#define DIGITS "0123456789"
#define EXAMPLE "service.example.org"

/* <ctype.h> follows the locale, names do not. */
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* ---- messages: the name, cut because it may be anything, and what is wrong with it ---- */

__attribute__((format(printf, 3, 4))) static int refuse(struct err *err, const char *name,
                                                        const char *format, ...)
{
    enum { SHOWN_MAX_BYTES = 80 };
    char problem[NAME_MAX_BYTES + 160];
    size_t shown = strlen(name);
    bool cut = shown > SHOWN_MAX_BYTES;
    va_list args;

    if (cut) {
        shown = SHOWN_MAX_BYTES;
        while (shown > 0 && ((unsigned char)name[shown] & 0xc0) == 0x80)
            shown--; /* not inside a character */
    }
    va_start(args, format);
    vsnprintf(problem, sizeof problem, format, args);
    va_end(args);
    return err_set(err, ERR_CONFIG, "\"%.*s%s\" %s", (int)shown, name, cut ? "…" : "",
                   problem);
}

/* ---- syntax ---- */

static int refuse_character(const char *name, const char *at, struct err *err)
{
    unsigned char c = (unsigned char)*at;
    unsigned code = c;

    if (c == '*')
        return refuse(err, name, "is a wildcard; expected one name such as " EXAMPLE);
    if (c == ' ')
        return refuse(err, name, "has a blank at position %td; remove the blank",
                      at - name + 1);
    if (c >= 0x80) {
        text_character(at, strlen(at), &code);
        return refuse(err, name,
                      "is not ASCII, it has U+%04X at position %td; write an "
                      "internationalised name as A-label (\"xn--...\")",
                      code, at - name + 1);
    }
    if (c < ' ' || c == 0x7f)
        return refuse(err, name, "has the byte 0x%02x at position %td; remove it",
                      (unsigned)c, at - name + 1);
    return refuse(err, name,
                  "has a character that is not allowed, '%c' at position %td; expected "
                  "letters, digits, hyphens and dots",
                  c, at - name + 1);
}

static int check_characters(const char *name, struct err *err)
{
    for (const char *at = name; *at != '\0'; at++) {
        if (!is_letter(*at) && !is_digit(*at) && *at != '-' && *at != '.')
            return refuse_character(name, at, err);
    }
    return 0;
}

static int check_labels(const char *name, struct err *err)
{
    const char *label = name;

    for (;;) {
        size_t len = strcspn(label, ".");

        if (len == 0 && label[0] == '\0')
            return refuse(err, name, "ends with a dot; remove the dot");
        if (len == 0)
            return refuse(err, name,
                          "has an empty label at position %td; remove the dot there",
                          label - name + 1);
        if (len > LABEL_MAX_BYTES)
            return refuse(err, name,
                          "has a label (\"%.20s…\") of %zu bytes; at most %d are allowed",
                          label, len, LABEL_MAX_BYTES);
        if (label[0] == '-' || label[len - 1] == '-')
            return refuse(err, name,
                          "has a label (\"%.*s\") that begins or ends with a hyphen; "
                          "hyphens are allowed only inside",
                          (int)len, label);
        if (label[len] == '\0')
            return 0;
        label += len + 1;
    }
}

/* ---- what people write in place of a name ---- */

/* IPv4, or IPv6 with or without [] and, behind them, a port. */
static bool is_address(const char *text)
{
    unsigned char address[sizeof(struct in6_addr)];
    char inside[INET6_ADDRSTRLEN];
    size_t len;

    if (text[0] != '[')
        return inet_pton(AF_INET, text, address) == 1 ||
               inet_pton(AF_INET6, text, address) == 1;
    len = strcspn(text + 1, "]");
    if (len >= sizeof inside || text[len + 1] != ']')
        return false;
    memcpy(inside, text + 1, len);
    inside[len] = '\0';
    return inet_pton(AF_INET6, inside, address) == 1;
}

/* The name is a part of the text: the message says which, when it can be used. */
static int refuse_surplus(struct err *err, const char *text, const char *what,
                          const char *name, size_t len)
{
    char only[NAME_MAX_BYTES + 1];
    struct err ignored = ERR_INIT;

    if (len > 0 && len <= NAME_MAX_BYTES) {
        memcpy(only, name, len);
        only[len] = '\0';
        if (check_characters(only, &ignored) == 0 && check_labels(only, &ignored) == 0 &&
            !is_address(only))
            return refuse(err, text, "%s; write only the name: %s", what, only);
    }
    return refuse(err, text, "%s; write only the name, such as " EXAMPLE, what);
}

static int check_nature(const char *text, struct err *err)
{
    const char *scheme = strstr(text, "://");
    size_t len = strcspn(text, ":/");
    size_t digits;

    /* What stands before it may be a password: the text is not repeated. */
    if (strchr(text, '@') != NULL)
        return err_set(err, ERR_CONFIG,
                       "has an @ in it; expected a name such as " EXAMPLE);
    if (strpbrk(text, "\"'") != NULL)
        return refuse(err, text,
                      "has quotes in it; remove them (docker's --env-file keeps them)");
    if (scheme != NULL)
        return refuse_surplus(err, text, "is a URL", scheme + 3,
                              strcspn(scheme + 3, "/:?#"));
    if (is_address(text))
        return refuse(err, text, "is an address; expected a name such as " EXAMPLE);
    if (text[len] == '/')
        return refuse_surplus(err, text, "has a path", text, len);
    if (text[len] == ':') {
        digits = strspn(text + len + 1, DIGITS);
        if (digits > 0 &&
            (text[len + 1 + digits] == '\0' || text[len + 1 + digits] == '/'))
            return refuse_surplus(err, text, "has a port", text, len);
    }
    return 0;
}

int hostname_check(const char *name, struct err *err)
{
    size_t len = strlen(name);

    if (len == 0)
        return refuse(err, name, "is empty; expected a name such as " EXAMPLE);
    if (check_nature(name, err) < 0)
        return -1;
    if (len > NAME_MAX_BYTES)
        return refuse(err, name, "has %zu bytes; at most %d are allowed", len,
                      NAME_MAX_BYTES);
    if (check_characters(name, err) < 0)
        return -1;
    return check_labels(name, err);
}

bool hostname_is_wildcard(const char *pattern)
{
    return pattern[0] == '*' && pattern[1] == '.';
}

int hostname_check_pattern(const char *pattern, struct err *err)
{
    return hostname_check(hostname_is_wildcard(pattern) ? pattern + 2 : pattern, err);
}

/*
 * Top-level names that the public DNS will never hold: RFC 6761 §6.3 and §6.4, RFC 6762
 * §3, RFC 7686. Names that private networks do have in their own DNS (home.arpa,
 * internal) are not among them: a private CA may know them.
 */
static const char *const kept_from_public[] = {"localhost", "invalid", "local", "onion"};

int hostname_check_public(const char *name, struct err *err)
{
    const char *dot;
    const char *top;

    if (hostname_check(name, err) < 0)
        return -1;
    dot = strrchr(name, '.');
    top = dot == NULL ? name : dot + 1;
    for (size_t i = 0; i < sizeof kept_from_public / sizeof *kept_from_public; i++) {
        if (strcasecmp(top, kept_from_public[i]) == 0)
            return refuse(err, name,
                          "cannot get a certificate: no CA issues for \"%s\" or names "
                          "below it",
                          kept_from_public[i]);
    }
    if (dot == NULL)
        return refuse(err, name,
                      "has a single label, a CA needs at least two (" EXAMPLE ")");
    if (strspn(top, DIGITS) == strlen(top))
        return refuse(err, name, "cannot get a certificate: its last label is a number");
    return 0;
}
