/*
 * config_internal: what config.c (the order of the sources, environment, rules between settings),
 * config_settings.c (the tables), config_keys.c (their keys), config_value.c (one value from its
 * text), config_flags.c (the command line),
 * config_form.c (whether a text is one; nginx_conf.c asks it, too), config_yaml.c (the file),
 * config_routes.c (the rules of routes), config_authorities.c (those of CAs) and
 * config_domains.c (those of the certificate's names) share.
 */
#ifndef CM_DOMAIN_CONFIG_INTERNAL_H
#define CM_DOMAIN_CONFIG_INTERNAL_H

#include "domain/config.h"

#include <stdint.h>

enum { CONFIG_SETTING_COUNT = 84 };

enum config_type {
    CONFIG_HOSTNAME,
    CONFIG_BOOL,
    CONFIG_LEVEL,
    CONFIG_DURATION, /* milliseconds */
    CONFIG_COUNT,
    CONFIG_RATE, /* so many within so long */
    CONFIG_PATH,
    CONFIG_DIRECTORY_URL,
    CONFIG_PROXY,
    CONFIG_HOSTS, /* names, addresses and networks, separated by commas */
    CONFIG_EMAIL,
    CONFIG_WORD,
    CONFIG_NAME, /* that others gave: any text of one line */
    CONFIG_USER,
    CONFIG_ENDPOINT, /* of the guest agent */
    CONFIG_HOST,
    CONFIG_HOST_PORT,
    CONFIG_ADDRESS,
    CONFIG_LISTEN, /* an address with a port */
    CONFIG_SIZE,
    CONFIG_FRAGMENT, /* nginx text of any number of lines */
    CONFIG_SECRET,
    CONFIG_ROUTE_PATH,
    CONFIG_CHOICE,      /* bool: one of two words, see config_setting.choices */
    CONFIG_LIST,        /* of regular expressions */
    CONFIG_NETWORKS,    /* a list of addresses and networks in CIDR form */
    CONFIG_PLACES,      /* a list of host:port */
    CONFIG_NAMES,       /* a list of host names and wildcards */
    CONFIG_COMMAND,     /* a list of a program's path and its arguments */
    CONFIG_ROUTES,      /* a list of mappings, see config_route_settings */
    CONFIG_AUTHORITIES, /* the same, see config_authority_settings */
};

enum {
    CONFIG_ENV_SECONDS = 1, /* the variable is a plain number of seconds */
    CONFIG_ENV_EMPTY = 2,   /* the empty variable is a value, not "unset" */
    CONFIG_QUIET = 4,       /* the value is never repeated in a message */
    CONFIG_ENV_UPPER = 16,  /* the variable's name may be in upper case, too */
    CONFIG_REQUIRED = 8,    /* of a list's entry: there is no default */
};

struct config_setting {
    const char *key; /* path in the file, its parts joined by dots; NULL: no twin there */
    const char *variable; /* NULL: no variable */
    enum config_type type;
    unsigned min; /* of durations (milliseconds) and counts */
    unsigned max;
    const char *fallback; /* the default as the file would have it; NULL: none */
    size_t offset;        /* of the field in struct config, config_route or authority */
    unsigned flags;
    const char *choices[2]; /* of CONFIG_CHOICE: the words for false and true */
    const char *meaning;    /* one line, for the documentation */
};

extern const struct config_setting config_settings[];

/* What stands in one entry of `routes`. */
enum { CONFIG_ROUTE_SETTING_COUNT = 9 };
extern const struct config_setting config_route_settings[];

/* What stands in one entry of `acme.fallback`. */
enum { CONFIG_AUTHORITY_SETTING_COUNT = 6 };
extern const struct config_setting config_authority_settings[];

enum config_source {
    CONFIG_FROM_DEFAULT,
    CONFIG_FROM_YAML,
    CONFIG_FROM_ENVIRONMENT,
    CONFIG_FROM_FLAG
};

/* Where the value in force comes from. */
struct config_origin {
    enum config_source source;
    size_t line; /* in the file, from 1; 0: the file does not have the key */
    size_t column;
    bool upper; /* the variable's name was in upper case */
    bool bad;   /* the value could not be used */
};

struct config_load {
    struct config *config;
    struct config_report *report;
    const char *yaml_name;
    const char *reading; /* what errors call the YAML that is being read */
    bool failed;
    bool unread; /* part of the file was not understood: any setting may be in it */
    struct config_origin *origins; /* those of config */
};

/* ---- config.c ---- */

/* The same as one more line of the report. A bounded number is kept. */
void config_error(struct config_load *load, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* There is no memory for it, or not for reading it. */
void config_lacks_memory(struct config_load *load, const char *of);
/* The error in the words of the caller; `err` says whether it is the value's. */
void config_error_of(struct config_load *load, const struct err *err, const char *format,
                     ...) __attribute__((format(printf, 3, 4)));
void config_warn(struct config_load *load, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
bool config_errors_full(const struct config_load *load);

/* Index of the setting that has this field. */
size_t config_index_of(size_t offset);

/* How a person would name the setting that has to be changed. */
enum { CONFIG_NAME_SIZE = 512 };
const char *config_name_of(const struct config_load *load, size_t i,
                           char ret[CONFIG_NAME_SIZE]);

/* The name that the variable of a setting has, or had when it was found. */
enum { CONFIG_VARIABLE_SIZE = 64 };
const char *config_variable_of(const struct config_setting *setting, bool upper,
                               char ret[CONFIG_VARIABLE_SIZE]);

/* ---- config_keys.c ---- */

enum { CONFIG_KEY_SIZE = 64 };

bool config_find_key(const char *key, size_t *ret);

/* The first setting in the section, such as "nginx". */
bool config_find_section(const char *section, size_t *ret);

/* Behind the last dot. */
const char *config_last_part(const char *key);

/*
 * The key that was probably meant: that of the variable which is called so, else the one
 * spelled nearly so, else the one of the same name in another section. A section that was probably meant is named without its
 * settings.
 */
bool config_suggest_key(const char *key, char ret[CONFIG_KEY_SIZE]);

/* Length of "nginx" in "nginx.path"; 0: it is in no section. */
size_t config_section_len(size_t i);
bool config_same_section(size_t a, size_t b);

/* Whether no setting before it is in its section. The table need not keep them together. */
bool config_begins_section(size_t i);

/* ---- config_flags.c ---- */

void config_flags_apply(struct config_load *load, const char *const *flags);

/* ---- config_value.c ---- */

/*
 * One value into its field of `object`, a struct config, config_route or authority. The error
 * says what was found and what is expected, without a name before it. For lists the text is
 * one more item. `text` ends with a zero byte.
 */
int config_value_set(void *object, const struct config_setting *setting,
                     enum config_source source, const char *text, size_t len,
                     struct err *err);
void config_value_clear(void *object, const struct config_setting *setting);
bool config_is_list(const struct config_setting *setting);

/* Of lists: how many items they may have, and whether they do. */
size_t config_list_max(const struct config_setting *setting);
bool config_list_is_full(const void *object, const struct config_setting *setting);

/* What the setting accepts: "a whole number from 1 to 65535". */
#define CONFIG_EXPECTED_SIZE 160
const char *config_expected(char ret[CONFIG_EXPECTED_SIZE],
                            const struct config_setting *setting,
                            enum config_source source);

/* The same for what stands in a list. */
const char *config_expected_item(char ret[CONFIG_EXPECTED_SIZE],
                                 const struct config_setting *setting,
                                 enum config_source source);

/* "30d", "1h", "90s": with the largest unit that says it exactly. */
#define CONFIG_DURATION_SIZE 16
const char *config_duration_text(char ret[CONFIG_DURATION_SIZE], unsigned milliseconds);

/* ---- config_form.c ---- */

/* Whether the text is one of its type: true for types that say nothing about its form. */
bool config_has_form(enum config_type type, const char *text);

/*
 * A size as people write it ("10MB", "512k", "1GiB") as nginx reads it ("10m", "512k", "1g"): false for
 * what is none, and for one that is too large.
 */
enum { CONFIG_SIZE_SIZE = 24 };
bool config_parse_size(const char *text, char ret[CONFIG_SIZE_SIZE]);

/* Digits only, into `ret`; false when there are none or the number is too large. */
bool config_parse_number(const char *text, size_t len, uint64_t *ret);

/* ---- config_text.c ---- */

/* `text` in double quotes for a message: what nobody sees is escaped, and it is cut when it is long. */
#define CONFIG_QUOTED_SIZE 130
const char *config_quoted(char ret[CONFIG_QUOTED_SIZE], const char *text, size_t len);

/* ---- config_domains.c ---- */

/* The names of the certificate are put together, and checked. */
void config_domains_check(struct config_load *load);

/* ---- config_routes.c ---- */

enum { CONFIG_ROUTES_MAX = 200 };

/* One more route with its defaults, or NULL without memory. */
struct config_route *config_route_add(struct config_routes *routes);
void config_routes_clear(struct config_routes *routes);

/* The rules between routes, and between routes and the other settings. */
void config_routes_check(struct config_load *load);

/* ---- config_authorities.c ---- */

/* One more for acme.fallback, or NULL when there are AUTHORITIES_MAX. */
struct authority *config_authority_add(struct authorities *authorities);

/* Those of acme.fallback: the main one's values are settings of their own. */
void config_authorities_clear(struct authorities *authorities);

/* The directory of the main one is decided on, and the rules between CAs. */
void config_authorities_check(struct config_load *load);

/* ---- config_yaml.c ---- */

void config_yaml_apply(struct config_load *load, const char *yaml, size_t len);

/* A list in the form of YAML into the setting, in place of what is there; whether it is good. */
bool config_yaml_set(struct config_load *load, size_t i, const char *yaml, size_t len);

#endif
