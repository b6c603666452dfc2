#include "base/guess.h"
#include "base/text.h"
#include "domain/config_internal.h"
#include "domain/hostname.h"

#define PCRE2_CODE_UNIT_WIDTH 8

#include <ctype.h>
#include <errno.h>
#include <pcre2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    LINE_MAX_BYTES = 4095, /* of one-line values: a path */
    FRAGMENT_MAX_BYTES = 256 * 1024,
    LIST_MAX_ITEMS = 64,
    LIST_ITEM_MAX_BYTES = 1024,
    SECRET_MAX_BYTES = 1024,
    RATE_MAX_COUNT = 1000 * 1000,
};

#define DIGITS "0123456789"

static const struct {
    const char *name;
    unsigned milliseconds;
} units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

enum { UNIT_COUNT = sizeof units / sizeof units[0] };

/* ---- what is expected ---- */

const char *config_duration_text(char ret[CONFIG_DURATION_SIZE], unsigned milliseconds)
{
    size_t i = 0;

    while (i < UNIT_COUNT - 1 && milliseconds % units[i].milliseconds != 0)
        i++;
    if (milliseconds == 0)
        i = 3;
    snprintf(ret, CONFIG_DURATION_SIZE, "%u%s", milliseconds / units[i].milliseconds,
             units[i].name);
    return ret;
}

static void expected_duration(char *ret, const struct config_setting *setting,
                              enum config_source source)
{
    char low[CONFIG_DURATION_SIZE];
    char high[CONFIG_DURATION_SIZE];

    if (source == CONFIG_FROM_ENVIRONMENT && (setting->flags & CONFIG_ENV_SECONDS) != 0) {
        snprintf(ret, CONFIG_EXPECTED_SIZE, "a whole number of seconds from %u to %u",
                 setting->min / 1000, setting->max / 1000);
        return;
    }
    snprintf(ret, CONFIG_EXPECTED_SIZE,
             "a whole number with a unit (d, h, m, s or ms) from %s to %s",
             config_duration_text(low, setting->min),
             config_duration_text(high, setting->max));
}

const char *config_expected(char ret[CONFIG_EXPECTED_SIZE],
                            const struct config_setting *setting,
                            enum config_source source)
{
    static const char *const texts[] = {
        [CONFIG_HOSTNAME] = "a DNS name such as service.example.org",
        [CONFIG_BOOL] = "true or false",
        [CONFIG_LEVEL] = "debug, info, warning, error or fatal",
        [CONFIG_RATE] = "so many within at most 30 days, such as 5/7d or 300/3h",
        [CONFIG_PATH] =
            ("an absolute path of at most 1024 bytes without spaces and none of "
             "\" ' \\ ; { } $ #"),
        [CONFIG_DIRECTORY_URL] = "an https:// URL (http:// for a loopback host only)",
        [CONFIG_PROXY] = "http:// with a host and a port, without a user or a password",
        [CONFIG_HOSTS] =
            "names, addresses and networks, separated by commas, or * for all",
        [CONFIG_EMAIL] = "an address such as admin@example.org, or \"\" for none",
        [CONFIG_WORD] = "1 to 64 letters, digits, dots, hyphens and underscores",
        [CONFIG_NAME] = "1 to 255 bytes that do not begin with a hyphen or a blank",
        [CONFIG_USER] = "the name of a user",
        [CONFIG_ENDPOINT] = "the absolute path of a socket or an http:// URL",
        [CONFIG_HOST] = ("the name of a host, an IPv4 address or an IPv6 address in [], "
                         "without a port"),
        [CONFIG_HOST_PORT] = "host:port",
        [CONFIG_ADDRESS] = "an IPv4 or IPv6 address",
        [CONFIG_LISTEN] = "an address with a port such as 127.0.0.1:9464 or [::]:9464",
        [CONFIG_SIZE] = "a size such as 512k, 10MB or 1g",
        [CONFIG_FRAGMENT] = "nginx text",
        [CONFIG_SECRET] = "a text",
        [CONFIG_ROUTE_PATH] =
            ("a decoded path that begins with /, at most 1024 letters, digits and "
             "/._~!&'()*+,=:@-, without // and /../"),
        [CONFIG_LIST] = "a sequence of texts",
        [CONFIG_NAMES] = "a sequence of DNS names such as www.example.org",
        [CONFIG_COMMAND] =
            ("a sequence of texts: the absolute path of a program, and its "
             "arguments"),
        [CONFIG_NETWORKS] = "a sequence of networks such as 10.0.0.0/8 or fd00::/8",
        [CONFIG_PLACES] = "a sequence of host:port",
        [CONFIG_ROUTES] = "a sequence of mappings with path and upstream",
        [CONFIG_AUTHORITIES] = "a sequence of mappings with directory",
    };

    if (setting->type == CONFIG_DURATION)
        expected_duration(ret, setting, source);
    else if (setting->type == CONFIG_SIZE && source == CONFIG_FROM_ENVIRONMENT)
        snprintf(ret, CONFIG_EXPECTED_SIZE,
                 "a size such as 20m, 512k or 1g (digits, then nothing, k, m or g)");
    else if (setting->type == CONFIG_COUNT)
        snprintf(ret, CONFIG_EXPECTED_SIZE, "a whole number from %u to %u", setting->min,
                 setting->max);
    else if (setting->type == CONFIG_CHOICE)
        snprintf(ret, CONFIG_EXPECTED_SIZE, "%s or %s", setting->choices[0],
                 setting->choices[1]);
    else
        snprintf(ret, CONFIG_EXPECTED_SIZE, "%s", texts[setting->type]);
    return ret;
}

const char *config_expected_item(char ret[CONFIG_EXPECTED_SIZE],
                                 const struct config_setting *setting,
                                 enum config_source source)
{
    const char *text = "a text";

    if (!config_is_list(setting))
        return config_expected(ret, setting, source);
    if (setting->type == CONFIG_NAMES)
        text = "a DNS name such as www.example.org";
    else if (setting->type == CONFIG_NETWORKS)
        text = "an address or a network such as 10.0.0.0/8 or fd00::/8";
    else if (setting->type == CONFIG_PLACES)
        text = "host:port";
    else if (setting->type == CONFIG_COMMAND)
        text = "a text, the first one an absolute path";
    snprintf(ret, CONFIG_EXPECTED_SIZE, "%s", text);
    return ret;
}

/* ---- checks of any text ---- */

static size_t longest(enum config_type type)
{
    switch (type) {
    case CONFIG_FRAGMENT:
        return FRAGMENT_MAX_BYTES;
    case CONFIG_LIST:
    case CONFIG_NETWORKS:
    case CONFIG_PLACES:
    case CONFIG_NAMES:
    case CONFIG_COMMAND:
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
        if (code == '\r')
            return err_set(err, ERR_CONFIG,
                           "byte %zu: a carriage return, as in files with the line ends "
                           "of Windows; remove it",
                           i + 1);
        if (text_is_control(code))
            return err_set(err, ERR_CONFIG, "byte %zu: control character 0x%02x", i + 1,
                           code);
    }
    return 0;
}

/* ---- assignment ---- */

/* What is probably wrong with it, to stand behind the message; "" when nobody can say. */
static const char *advice(const struct config_setting *setting, const char *text,
                          size_t len, char ret[CONFIG_EXPECTED_SIZE])
{
    static const char *const levels[] = {"debug", "info", "warning", "error", "fatal"};
    struct guess guess = guess_of(text);

    ret[0] = '\0';
    if (len >= 2 && strchr("\"'", text[0]) != NULL && text[len - 1] == text[0])
        return "; remove the quotes, which are part of it (docker's --env-file keeps "
               "them)";
    if (text[0] == ' ')
        return "; remove the blank before it";
    if (len > 0 && text[len - 1] == ' ')
        return "; remove the blank behind it";
    for (size_t i = 0; setting->type == CONFIG_LEVEL && i < 5; i++)
        guess_try(&guess, levels[i]);
    for (size_t i = 0; setting->type == CONFIG_CHOICE && i < 2; i++)
        guess_try(&guess, setting->choices[i]);
    if (guess.name != NULL)
        snprintf(ret, CONFIG_EXPECTED_SIZE, " (did you mean \"%s\"?)", guess.name);
    return ret;
}

static int refuse(const struct config_setting *setting, enum config_source source,
                  const char *text, size_t len, struct err *err)
{
    char expected[CONFIG_EXPECTED_SIZE];
    char quoted[CONFIG_QUOTED_SIZE];
    char meant[CONFIG_EXPECTED_SIZE];

    config_expected_item(expected, setting, source);
    /* What stands before an @ of a URL may be a password. */
    if ((setting->flags & CONFIG_QUIET) != 0 ||
        ((setting->type == CONFIG_DIRECTORY_URL || setting->type == CONFIG_ENDPOINT ||
          setting->type == CONFIG_PROXY) &&
         strchr(text, '@') != NULL))
        return err_set(err, ERR_CONFIG, "expected %s", expected);
    return err_set(err, ERR_CONFIG, "found %s, expected %s%s",
                   config_quoted(quoted, text, len), expected,
                   advice(setting, text, len, meant));
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
    if (factor == 0 || !config_parse_number(text, digits, &number) ||
        number > setting->max)
        return false;
    *ret = number * factor;
    return true;
}

/* "5/7d" */
static bool set_rate(struct config_rate *rate, const char *text)
{
    static const struct config_setting period = {.min = 1000,
                                                 .max = 2592000000U /* 30 days */};
    size_t digits = strspn(text, DIGITS);
    uint64_t period_ms;
    uint64_t count;

    if (!config_parse_number(text, digits, &count) || text[digits] != '/' || count == 0 ||
        count > RATE_MAX_COUNT ||
        !parse_duration(&period, CONFIG_FROM_YAML, text + digits + 1, &period_ms) ||
        period_ms < period.min || period_ms > period.max)
        return false;
    *rate =
        (struct config_rate){.count = (unsigned)count, .period_ms = (unsigned)period_ms};
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
    case CONFIG_CHOICE:
        *(bool *)field = strcmp(text, setting->choices[1]) == 0;
        return *(bool *)field || strcmp(text, setting->choices[0]) == 0;
    case CONFIG_LEVEL:
        if (log_level_parse(text, &level) < 0)
            return false;
        *(enum log_level *)field = level;
        return true;
    case CONFIG_RATE:
        return set_rate(field, text);
    case CONFIG_DURATION:
        if (!parse_duration(setting, source, text, &number))
            return false;
        break;
    default:
        if (!config_parse_number(text, len, &number))
            return false;
        /* For YAML 1.1 it were octal: let nobody wonder which it is. */
        if (source == CONFIG_FROM_YAML && text[0] == '0' && len > 1)
            return false;
        break;
    }
    if (number < setting->min || number > setting->max)
        return false;
    *(unsigned *)field = (unsigned)number;
    return true;
}

/*
 * nginx compiles it with the same library and without options, and makes a variable of each named
 * group: one that is called like a variable of its own would be refused, or change what that says.
 */
static int check_regex(const char *text, size_t len, struct err *err)
{
    enum { REASON_SIZE = 128 };
    PCRE2_UCHAR reason[REASON_SIZE] = "";
    PCRE2_SIZE offset = 0;
    int problem = 0;
    char quoted[CONFIG_QUOTED_SIZE];
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)text, len, 0, &problem, &offset, NULL);
    uint32_t names = 0;

    if (code != NULL) {
        pcre2_pattern_info(code, PCRE2_INFO_NAMECOUNT, &names);
        pcre2_code_free(code);
        if (names == 0)
            return 0;
        return err_set(
            err, ERR_CONFIG,
            "%s has a named group, which nginx would make a variable of; leave "
            "the name out",
            config_quoted(quoted, text, len));
    }
    if (strcmp(text, "*") == 0)
        return err_set(err, ERR_CONFIG,
                       "\"*\" is not a regular expression; for any origin write \".*\"");
    pcre2_get_error_message(problem, reason, sizeof reason);
    return err_set(err, ERR_CONFIG, "%s is not a regular expression: %s at offset %zu",
                   config_quoted(quoted, text, len), (const char *)reason, offset);
}

/* Names are compared and shown in lower case (RFC 4343). */
static void to_lower_case(char *name)
{
    for (; *name != '\0'; name++)
        *name = (char)tolower((unsigned char)*name);
}

/* No shell looks for the program. An argument may be any text, the empty one, too. */
static int check_word(const char *text, bool is_program, struct err *err)
{
    char quoted[CONFIG_QUOTED_SIZE];

    if (!is_program || config_has_form(CONFIG_PATH, text))
        return 0;
    return err_set(err, ERR_CONFIG,
                   "found %s, expected the absolute path of a program first",
                   config_quoted(quoted, text, strlen(text)));
}

/* `count`: how many stand before it. */
static int check_item(const struct config_setting *setting, enum config_source source,
                      size_t count, const char *text, size_t len, struct err *err)
{
    if (setting->type == CONFIG_COMMAND)
        return check_word(text, count == 0, err);
    if (len == 0)
        return err_set(err, ERR_CONFIG, "found an empty text");
    switch (setting->type) {
    case CONFIG_LIST:
        return check_regex(text, len, err);
    case CONFIG_NAMES:
        return hostname_check_pattern(text, err);
    default:
        return config_has_form(setting->type, text)
                   ? 0
                   : refuse(setting, source, text, len, err);
    }
}

size_t config_list_max(const struct config_setting *setting)
{
    return setting->type == CONFIG_NAMES ? CONFIG_DOMAINS_MAX : LIST_MAX_ITEMS;
}

bool config_list_is_full(const void *object, const struct config_setting *setting)
{
    const struct config_list *list =
        (const void *)((const char *)object + setting->offset);

    return list->count >= config_list_max(setting);
}

static int add_item(struct config_list *list, const struct config_setting *setting,
                    enum config_source source, const char *text, size_t len,
                    struct err *err)
{
    size_t max = config_list_max(setting);
    char **longer;

    if (list->count >= max)
        return err_set(err, ERR_CONFIG, "more than %zu items", max);
    if (check_item(setting, source, list->count, text, len, err) < 0)
        return -1;
    longer = realloc(list->items, (list->count + 1) * sizeof *longer);
    if (longer == NULL)
        return err_sys(err, ENOMEM, "cannot keep the value");
    list->items = longer;
    longer[list->count] = strdup(text);
    if (longer[list->count] == NULL)
        return err_sys(err, ENOMEM, "cannot keep the value");
    if (setting->type == CONFIG_NAMES)
        to_lower_case(longer[list->count]);
    list->count++;
    return 0;
}

static int set_string(char **field, const struct config_setting *setting,
                      enum config_source source, const char *text, size_t len,
                      struct err *err)
{
    char size[CONFIG_SIZE_SIZE];
    char *copy;

    /* The variable is as narrow as it always was. */
    if (setting->type == CONFIG_SIZE && source != CONFIG_FROM_ENVIRONMENT) {
        if (!config_parse_size(text, size))
            return refuse(setting, source, text, len, err);
        text = size;
    } else if (setting->type == CONFIG_HOSTNAME) {
        if (hostname_check(text, err) < 0)
            return -1;
    } else if (!config_has_form(setting->type, text)) {
        return refuse(setting, source, text, len, err);
    }
    copy = strdup(text);
    if (copy == NULL)
        return err_sys(err, ENOMEM, "cannot keep the value");
    if (setting->type == CONFIG_HOSTNAME)
        to_lower_case(copy);
    free(*field);
    *field = copy;
    return 0;
}

bool config_is_list(const struct config_setting *setting)
{
    return setting->type == CONFIG_LIST || setting->type == CONFIG_NETWORKS ||
           setting->type == CONFIG_PLACES || setting->type == CONFIG_NAMES ||
           setting->type == CONFIG_COMMAND;
}

int config_value_set(void *object, const struct config_setting *setting,
                     enum config_source source, const char *text, size_t len,
                     struct err *err)
{
    void *field = (char *)object + setting->offset;
    struct secret *secret;

    if (check_text(setting, text, len, err) < 0)
        return -1;
    switch (setting->type) {
    case CONFIG_BOOL:
    case CONFIG_LEVEL:
    case CONFIG_DURATION:
    case CONFIG_COUNT:
    case CONFIG_RATE:
    case CONFIG_CHOICE:
        if (!set_scalar(field, setting, source, text, len))
            return refuse(setting, source, text, len, err);
        return 0;
    case CONFIG_LIST:
    case CONFIG_NETWORKS:
    case CONFIG_PLACES:
    case CONFIG_NAMES:
    case CONFIG_COMMAND:
        return add_item(field, setting, source, text, len, err);
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

void config_value_clear(void *object, const struct config_setting *setting)
{
    void *field = (char *)object + setting->offset;
    struct config_list *list = field;

    switch (setting->type) {
    case CONFIG_BOOL:
    case CONFIG_LEVEL:
    case CONFIG_DURATION:
    case CONFIG_COUNT:
    case CONFIG_RATE:
    case CONFIG_CHOICE:
        break;
    case CONFIG_ROUTES:
        config_routes_clear(field);
        break;
    case CONFIG_AUTHORITIES:
        config_authorities_clear(field);
        break;
    case CONFIG_LIST:
    case CONFIG_NETWORKS:
    case CONFIG_PLACES:
    case CONFIG_NAMES:
    case CONFIG_COMMAND:
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
