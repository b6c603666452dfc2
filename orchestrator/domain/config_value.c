#include "base/text.h"
#include "domain/config_internal.h"
#include "domain/hostname.h"

#define PCRE2_CODE_UNIT_WIDTH 8

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/http.h>
#include <pcre2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

enum {
    LINE_MAX_BYTES = 4095, /* of one-line values: a path */
    WORD_MAX_BYTES = 64,
    USER_MAX_BYTES = 32,
    EMAIL_MAX_BYTES = 254,
    HOST_MAX_BYTES = 253,
    FRAGMENT_MAX_BYTES = 256 * 1024,
    LIST_MAX_ITEMS = 64,
    LIST_ITEM_MAX_BYTES = 1024,
    SECRET_MAX_BYTES = 1024,
    SOCKET_PATH_MAX_BYTES = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1,
};

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static const struct {
    const char *name;
    unsigned milliseconds;
} units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

enum { UNIT_COUNT = sizeof units / sizeof units[0] };

/* ---- what is expected ---- */

static void write_duration(char *ret, size_t size, unsigned milliseconds)
{
    size_t i = 0;

    while (i < UNIT_COUNT - 1 && milliseconds % units[i].milliseconds != 0)
        i++;
    if (milliseconds == 0)
        i = 3;
    snprintf(ret, size, "%u%s", milliseconds / units[i].milliseconds, units[i].name);
}

static void expected_duration(char *ret, const struct config_setting *setting,
                              enum config_source source)
{
    char low[16];
    char high[16];

    if (source == CONFIG_FROM_ENVIRONMENT && (setting->flags & CONFIG_ENV_SECONDS) != 0) {
        snprintf(ret, CONFIG_EXPECTED_SIZE, "a whole number of seconds from %u to %u",
                 setting->min / 1000, setting->max / 1000);
        return;
    }
    write_duration(low, sizeof low, setting->min);
    write_duration(high, sizeof high, setting->max);
    snprintf(ret, CONFIG_EXPECTED_SIZE,
             "a whole number with a unit (d, h, m, s or ms) from %s to %s", low, high);
}

const char *config_expected(char ret[CONFIG_EXPECTED_SIZE],
                            const struct config_setting *setting,
                            enum config_source source)
{
    static const char *const texts[] = {
        [CONFIG_HOSTNAME] = "a DNS name such as service.example.org",
        [CONFIG_BOOL] = "true or false",
        [CONFIG_LEVEL] = "debug, info, warning, error or fatal",
        [CONFIG_PATH] = "an absolute path without spaces and none of \" ' \\ ; { } $ #",
        [CONFIG_DIRECTORY_URL] = "an https:// URL (http:// for a loopback host only)",
        [CONFIG_EMAIL] = "an address such as admin@example.org, or \"\" for none",
        [CONFIG_WORD] = "1 to 64 letters, digits, dots, hyphens and underscores",
        [CONFIG_USER] = "the name of a user",
        [CONFIG_ENDPOINT] = "the absolute path of a socket or an http:// URL",
        [CONFIG_HOST] = "the name of a host, an IPv4 address or an IPv6 address in []",
        [CONFIG_HOST_PORT] = "host:port",
        [CONFIG_ADDRESS] = "an IPv4 or IPv6 address",
        [CONFIG_SIZE] =
            "a size such as 20m, 512k or 1g (digits, then nothing, k, m or g)",
        [CONFIG_FRAGMENT] = "nginx text",
        [CONFIG_LIST] = "a sequence of texts",
        [CONFIG_SECRET] = "a text",
    };

    if (setting->type == CONFIG_DURATION)
        expected_duration(ret, setting, source);
    else if (setting->type == CONFIG_COUNT)
        snprintf(ret, CONFIG_EXPECTED_SIZE, "a whole number from %u to %u", setting->min,
                 setting->max);
    else
        snprintf(ret, CONFIG_EXPECTED_SIZE, "%s", texts[setting->type]);
    return ret;
}

/* ---- checks: whether the text is one of its type ---- */

static bool only(const char *text, const char *allowed)
{
    return text[0] != '\0' && text[strspn(text, allowed)] == '\0';
}

static bool is_path(const char *path)
{
    return path[0] == '/' && path[strcspn(path, " \"'\\;{}$#")] == '\0';
}

static bool is_user(const char *name)
{
    return strlen(name) <= USER_MAX_BYTES && strchr(DIGITS "-", name[0]) == NULL &&
           only(name, LETTERS DIGITS "_-");
}

static bool is_word(const char *word)
{
    return strlen(word) <= WORD_MAX_BYTES && only(word, LETTERS DIGITS "._-");
}

static bool is_email(const char *email)
{
    const char *at = strrchr(email, '@');
    struct err ignored = ERR_INIT;
    size_t local;

    if (email[0] == '\0')
        return true;
    if (at == NULL || at == email || strlen(email) > EMAIL_MAX_BYTES)
        return false;
    /*
     * The dot-atom of RFC 5322 §3.2.3, and not what a program would take for an option.
     */
    local = strspn(email, LETTERS DIGITS "!#$%&'*+-/=?^_`{|}~.");
    return email + local == at && email[0] != '-' &&
           hostname_check(at + 1, &ignored) == 0;
}

static bool is_address(const char *text, int family)
{
    unsigned char address[sizeof(struct in6_addr)];

    return inet_pton(family, text, address) == 1;
}

/*
 * Names inside container networks may hold underscores, so this is wider than DNS's
 * rule.
 */
static bool is_host(const char *host)
{
    size_t len = strlen(host);
    char address[INET6_ADDRSTRLEN];

    if (host[0] == '[') {
        if (len < 3 || len - 2 >= sizeof address || host[len - 1] != ']')
            return false;
        memcpy(address, host + 1, len - 2);
        address[len - 2] = '\0';
        return is_address(address, AF_INET6);
    }
    return len <= HOST_MAX_BYTES && strchr(".-", host[0]) == NULL &&
           only(host, LETTERS DIGITS "._-");
}

static bool parse_number(const char *text, size_t len, uint64_t *ret)
{
    uint64_t number = 0;

    if (len == 0)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned digit = (unsigned)(text[i] - '0');

        if (text[i] < '0' || text[i] > '9' || number > (UINT64_MAX - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *ret = number;
    return true;
}

static bool is_host_port(const char *text)
{
    const char *colon = strrchr(text, ':');
    char host[HOST_MAX_BYTES + 3];
    size_t len = colon == NULL ? 0 : (size_t)(colon - text);
    uint64_t port;

    if (len == 0 || len >= sizeof host)
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    return is_host(host) && parse_number(colon + 1, strlen(colon + 1), &port) &&
           port >= 1 && port <= 65535;
}

static bool is_loopback(const char *host)
{
    static const char v6[] = "::1";

    return strcasecmp(host, "localhost") == 0 || strcmp(host, v6) == 0 ||
           strcmp(host, "[::1]") == 0 ||
           (is_address(host, AF_INET) && strncmp(host, "127.", 4) == 0);
}

/*
 * http:// or https:// and a host. `ret_plain`: http://, `ret_local`: to a loopback
 * host.
 */
static bool is_url(const char *url, bool *ret_plain, bool *ret_local)
{
    char *user = NULL;
    char *host = NULL;
    char *fragment = NULL;
    bool good = false;

    *ret_plain = strncmp(url, "http://", 7) == 0;
    *ret_local = false;
    if (!*ret_plain && strncmp(url, "https://", 8) != 0)
        return false;
    if (!only(url, LETTERS DIGITS "-._~:/?[]@!&()*+,=%"))
        return false;
    if (OSSL_parse_url(url, NULL, &user, &host, NULL, NULL, NULL, NULL, &fragment) == 1) {
        good = user[0] == '\0' && fragment[0] == '\0' &&
               (is_host(host) || is_address(host, AF_INET6));
        *ret_local = is_loopback(host);
    }
    OPENSSL_free(user);
    OPENSSL_free(host);
    OPENSSL_free(fragment);
    return good;
}

static bool is_directory(const char *url)
{
    bool plain;
    bool local;

    return is_url(url, &plain, &local) && (!plain || local);
}

static bool is_endpoint(const char *text)
{
    bool plain;
    bool local;

    if (text[0] == '/')
        return is_path(text) && strlen(text) <= SOCKET_PATH_MAX_BYTES;
    return is_url(text, &plain, &local) && plain;
}

/* As nginx reads client_max_body_size, which is an off_t. */
static bool is_size(const char *text)
{
    static const struct {
        char letter;
        unsigned shift;
    } factors[] = {{'k', 10}, {'m', 20}, {'g', 30}};
    size_t len = strlen(text);
    uint64_t number;
    unsigned shift = 0;

    for (size_t i = 0; len > 0 && i < sizeof factors / sizeof factors[0]; i++) {
        if (tolower((unsigned char)text[len - 1]) == factors[i].letter) {
            shift = factors[i].shift;
            len--;
            break;
        }
    }
    return parse_number(text, len, &number) && number <= (uint64_t)INT64_MAX >> shift;
}

static bool has_form(enum config_type type, const char *text)
{
    switch (type) {
    case CONFIG_PATH:
        return is_path(text);
    case CONFIG_DIRECTORY_URL:
        return is_directory(text);
    case CONFIG_EMAIL:
        return is_email(text);
    case CONFIG_WORD:
        return is_word(text);
    case CONFIG_USER:
        return is_user(text);
    case CONFIG_ENDPOINT:
        return is_endpoint(text);
    case CONFIG_HOST:
        return is_host(text) || is_address(text, AF_INET6);
    case CONFIG_HOST_PORT:
        return is_host_port(text);
    case CONFIG_ADDRESS:
        return is_address(text, AF_INET) || is_address(text, AF_INET6);
    case CONFIG_SIZE:
        return is_size(text);
    default:
        return true;
    }
}

static size_t longest(enum config_type type)
{
    switch (type) {
    case CONFIG_FRAGMENT:
        return FRAGMENT_MAX_BYTES;
    case CONFIG_LIST:
        return LIST_ITEM_MAX_BYTES;
    case CONFIG_SECRET:
        return SECRET_MAX_BYTES;
    default:
        return LINE_MAX_BYTES;
    }
}

/*
 * Length and characters. Positions are said without repeating the value: it may be
 * secret.
 */
static int check_text(const struct config_setting *setting, const char *text, size_t len,
                      struct err *err)
{
    size_t max = longest(setting->type);
    size_t size;

    if (len > max)
        return err_set(err, ERR_CONFIG, "%zu bytes long, at most %zu are allowed", len,
                       max);
    for (size_t i = 0; i < len; i += size) {
        unsigned code;

        size = text_character(text + i, len - i, &code);
        if (size == 0)
            return err_set(err, ERR_CONFIG, "byte %zu: not valid UTF-8", i + 1);
        if (setting->type == CONFIG_FRAGMENT &&
            (code == '\n' || code == '\r' || code == '\t'))
            continue;
        if (text_is_control(code))
            return err_set(err, ERR_CONFIG, "byte %zu: control character 0x%02x", i + 1,
                           code);
    }
    return 0;
}

/* ---- assignment ---- */

static int refuse(const struct config_setting *setting, enum config_source source,
                  const char *text, size_t len, struct err *err)
{
    char expected[CONFIG_EXPECTED_SIZE];
    char quoted[CONFIG_QUOTED_SIZE];

    config_expected(expected, setting, source);
    /* What stands before an @ of a URL may be a password. */
    if ((setting->flags & CONFIG_QUIET) != 0 ||
        ((setting->type == CONFIG_DIRECTORY_URL || setting->type == CONFIG_ENDPOINT) &&
         strchr(text, '@') != NULL))
        return err_set(err, ERR_CONFIG, "expected %s", expected);
    return err_set(err, ERR_CONFIG, "found %s, expected %s",
                   config_quoted(quoted, text, len), expected);
}

static bool parse_duration(const struct config_setting *setting,
                           enum config_source source, const char *text, uint64_t *ret)
{
    size_t digits = strspn(text, DIGITS);
    uint64_t factor = 0;
    uint64_t number;

    if (source == CONFIG_FROM_ENVIRONMENT && (setting->flags & CONFIG_ENV_SECONDS) != 0) {
        factor = text[digits] == '\0' ? 1000 : 0;
    } else {
        for (size_t i = 0; i < UNIT_COUNT; i++) {
            if (strcmp(text + digits, units[i].name) == 0)
                factor = units[i].milliseconds;
        }
    }
    if (factor == 0 || !parse_number(text, digits, &number) || number > setting->max)
        return false;
    *ret = number * factor;
    return true;
}

/* Numbers and enumerations: whether the text is one, and it fits. */
static bool set_scalar(void *field, const struct config_setting *setting,
                       enum config_source source, const char *text, size_t len)
{
    uint64_t number = 0;
    enum log_level level;

    switch (setting->type) {
    case CONFIG_BOOL:
        if (source == CONFIG_FROM_ENVIRONMENT)
            *(bool *)field = strcasecmp(text, "true") == 0;
        else if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
            *(bool *)field = text[0] == 't';
        else
            return false;
        return true;
    case CONFIG_LEVEL:
        if (log_level_parse(text, &level) < 0)
            return false;
        *(enum log_level *)field = level;
        return true;
    case CONFIG_DURATION:
        if (!parse_duration(setting, source, text, &number))
            return false;
        break;
    default:
        if (!parse_number(text, len, &number))
            return false;
        break;
    }
    if (number < setting->min || number > setting->max)
        return false;
    *(unsigned *)field = (unsigned)number;
    return true;
}

/* nginx compiles it with the same library and without options. */
static int check_regex(const char *text, size_t len, struct err *err)
{
    enum { REASON_SIZE = 128 };
    PCRE2_UCHAR reason[REASON_SIZE] = "";
    PCRE2_SIZE offset = 0;
    int problem = 0;
    char quoted[CONFIG_QUOTED_SIZE];
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)text, len, 0, &problem, &offset, NULL);

    pcre2_code_free(code);
    if (code != NULL)
        return 0;
    pcre2_get_error_message(problem, reason, sizeof reason);
    return err_set(err, ERR_CONFIG, "%s is not a regular expression: %s at offset %zu",
                   config_quoted(quoted, text, len), (const char *)reason, offset);
}

static int add_item(struct config_list *list, const char *text, size_t len,
                    struct err *err)
{
    char **longer;

    if (list->count >= LIST_MAX_ITEMS)
        return err_set(err, ERR_CONFIG, "more than %d items", LIST_MAX_ITEMS);
    if (len == 0)
        return err_set(err, ERR_CONFIG, "found an empty text");
    if (check_regex(text, len, err) < 0)
        return -1;
    longer = realloc(list->items, (list->count + 1) * sizeof *longer);
    if (longer == NULL)
        return err_sys(err, ENOMEM, "cannot keep the value");
    list->items = longer;
    longer[list->count] = strdup(text);
    if (longer[list->count] == NULL)
        return err_sys(err, ENOMEM, "cannot keep the value");
    list->count++;
    return 0;
}

static int set_string(char **field, const struct config_setting *setting,
                      enum config_source source, const char *text, size_t len,
                      struct err *err)
{
    char *copy;

    if (setting->type == CONFIG_HOSTNAME) {
        if (hostname_check(text, err) < 0)
            return -1;
    } else if (!has_form(setting->type, text)) {
        return refuse(setting, source, text, len, err);
    }
    copy = strdup(text);
    if (copy == NULL)
        return err_sys(err, ENOMEM, "cannot keep the value");
    for (char *c = copy; setting->type == CONFIG_HOSTNAME && *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    free(*field);
    *field = copy;
    return 0;
}

int config_value_set(struct config *config, const struct config_setting *setting,
                     enum config_source source, const char *text, size_t len,
                     struct err *err)
{
    void *field = (char *)config + setting->offset;
    struct secret *secret;

    if (check_text(setting, text, len, err) < 0)
        return -1;
    switch (setting->type) {
    case CONFIG_BOOL:
    case CONFIG_LEVEL:
    case CONFIG_DURATION:
    case CONFIG_COUNT:
        if (!set_scalar(field, setting, source, text, len))
            return refuse(setting, source, text, len, err);
        return 0;
    case CONFIG_LIST:
        return add_item(field, text, len, err);
    case CONFIG_SECRET:
        secret = secret_copy(text, len);
        if (secret == NULL)
            return err_sys(err, ENOMEM, "no secure memory left");
        secret_free(*(struct secret **)field);
        *(struct secret **)field = secret;
        return 0;
    default:
        return set_string(field, setting, source, text, len, err);
    }
}

void config_value_clear(struct config *config, const struct config_setting *setting)
{
    void *field = (char *)config + setting->offset;
    struct config_list *list = field;

    switch (setting->type) {
    case CONFIG_BOOL:
    case CONFIG_LEVEL:
    case CONFIG_DURATION:
    case CONFIG_COUNT:
        break;
    case CONFIG_LIST:
        for (size_t i = 0; i < list->count; i++)
            free(list->items[i]);
        free(list->items);
        *list = (struct config_list){.count = 0};
        break;
    case CONFIG_SECRET:
        secret_free(*(struct secret **)field);
        *(struct secret **)field = NULL;
        break;
    default:
        free(*(char **)field);
        *(char **)field = NULL;
        break;
    }
}
