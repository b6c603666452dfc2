#include "domain/hostname.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

enum { NAME_MAX_BYTES = 253, LABEL_MAX_BYTES = 63 };

/* <ctype.h> follows the locale, names do not. */
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The name goes into messages cut, for it may be anything. */
#define NAME_FORMAT "host name \"%.80s\""

static int check_characters(const char *name, struct err *err)
{
    for (const char *at = name; *at != '\0'; at++) {
        if (is_letter(*at) || is_digit(*at) || *at == '-' || *at == '.')
            continue;
        if (*at == '*')
            return err_set(err, ERR_CONFIG, NAME_FORMAT ": wildcards are not supported",
                           name);
        if (*at == ':')
            return err_set(err, ERR_CONFIG,
                           NAME_FORMAT ": an address or a port is not a host name", name);
        if ((unsigned char)*at >= 0x80)
            return err_set(err, ERR_CONFIG,
                           NAME_FORMAT
                           ": not ASCII; write an internationalised name as "
                           "A-label (\"xn--...\")",
                           name);
        return err_set(err, ERR_CONFIG,
                       NAME_FORMAT
                       ": byte 0x%02x at position %td is not allowed, only "
                       "letters, digits, hyphens and dots",
                       name, (unsigned)*at, at - name + 1);
    }
    return 0;
}

static int check_labels(const char *name, struct err *err)
{
    const char *label = name;

    for (;;) {
        size_t len = strcspn(label, ".");

        if (len == 0 && label[0] == '\0')
            return err_set(err, ERR_CONFIG, NAME_FORMAT ": ends with a dot", name);
        if (len == 0)
            return err_set(err, ERR_CONFIG, NAME_FORMAT ": has an empty label", name);
        if (len > LABEL_MAX_BYTES)
            return err_set(err, ERR_CONFIG,
                           NAME_FORMAT
                           ": label \"%.20s...\" has %zu bytes, at most %d are allowed",
                           name, label, len, LABEL_MAX_BYTES);
        if (label[0] == '-' || label[len - 1] == '-')
            return err_set(err, ERR_CONFIG,
                           NAME_FORMAT ": label \"%.*s\" begins or ends with a hyphen",
                           name, (int)len, label);
        if (label[len] == '\0')
            return 0;
        label += len + 1;
    }
}

int hostname_check(const char *name, struct err *err)
{
    struct in_addr address;
    size_t len = strlen(name);

    if (len == 0)
        return err_set(err, ERR_CONFIG, "host name is empty");
    if (len > NAME_MAX_BYTES)
        return err_set(err, ERR_CONFIG,
                       NAME_FORMAT "... has %zu bytes, at most %d are allowed", name, len,
                       NAME_MAX_BYTES);
    if (check_characters(name, err) < 0 || check_labels(name, err) < 0)
        return -1;
    if (inet_pton(AF_INET, name, &address) == 1)
        return err_set(err, ERR_CONFIG, NAME_FORMAT ": is an address, not a host name",
                       name);
    return 0;
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
            return err_set(err, ERR_CONFIG,
                           NAME_FORMAT
                           ": no CA issues for \"%s\" or names below it; use "
                           "a name of the public DNS",
                           name, kept_from_public[i]);
    }
    if (dot == NULL)
        return err_set(err, ERR_CONFIG,
                       NAME_FORMAT
                       ": has a single label, a CA needs at least two "
                       "(\"host.example\")",
                       name);
    if (strspn(top, "0123456789") == strlen(top))
        return err_set(err, ERR_CONFIG, NAME_FORMAT ": the last label is a number", name);
    return 0;
}
