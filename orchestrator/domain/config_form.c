/* Whether a text is one of its type: config_has_form(). */
#include "base/text.h"
#include "domain/config_internal.h"
#include "domain/host_port.h"
#include "domain/hostname.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/http.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

enum {
    PATH_MAX_BYTES = 1024, /* nginx_conf.c allows no longer ones */
    WORD_MAX_BYTES = 64,
    NAME_MAX_BYTES = 255,
    USER_MAX_BYTES = 32,
    EMAIL_MAX_BYTES = 254,
    HOST_MAX_BYTES = 253,
    ROUTE_PATH_MAX_BYTES = 1024,
    SOCKET_PATH_MAX_BYTES = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1,
};

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static bool only(const char *text, const char *allowed)
{
    return text[0] != '\0' && text[strspn(text, allowed)] == '\0';
}

static bool is_path(const char *path)
{
    return path[0] == '/' && strlen(path) <= PATH_MAX_BYTES &&
           path[strcspn(path, " \"'\\;{}$#")] == '\0';
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

/* It becomes an argument of a program, which must not take it for an option. */
static bool is_name(const char *name)
{
    return strchr("- ", name[0]) == NULL && strlen(name) <= NAME_MAX_BYTES;
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

/* Of locations, which nginx compares with the decoded path, its slashes merged. */
static bool is_route_path(const char *path)
{
    size_t len = strlen(path);

    return path[0] == '/' && len <= ROUTE_PATH_MAX_BYTES &&
           only(path, LETTERS DIGITS "/._~!&'()*+,=:@-") && !text_ends_with(path, "/.") &&
           !text_ends_with(path, "/..") && strstr(path, "//") == NULL &&
           strstr(path, "/./") == NULL && strstr(path, "/../") == NULL;
}

bool config_parse_number(const char *text, size_t len, uint64_t *ret)
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
    return is_host(host) && config_parse_number(colon + 1, strlen(colon + 1), &port) &&
           port >= 1 && port <= 65535;
}

/* Not a name: it would be looked up, and may mean several. */
static bool is_listen(const char *text)
{
    struct host_port place;

    return is_host_port(text) && host_port_parse(&place, text) == 0 && place.literal;
}

/* An address, or a network in CIDR form (RFC 4632 §3.1) without bits behind its prefix. */
static bool is_network(const char *text)
{
    const char *slash = strchr(text, '/');
    char address[INET6_ADDRSTRLEN];
    unsigned char bytes[sizeof(struct in6_addr)];
    size_t len = slash == NULL ? strlen(text) : (size_t)(slash - text);
    int family = strchr(text, ':') == NULL ? AF_INET : AF_INET6;
    uint64_t bits = family == AF_INET ? 32 : 128;
    uint64_t prefix = bits;

    if (len >= sizeof address)
        return false;
    memcpy(address, text, len);
    address[len] = '\0';
    if (inet_pton(family, address, bytes) != 1 ||
        (slash != NULL && !config_parse_number(slash + 1, strlen(slash + 1), &prefix)))
        return false;
    for (uint64_t bit = prefix; bit < bits; bit++) {
        if ((bytes[bit / 8] >> (7 - bit % 8) & 1) != 0)
            return false;
    }
    return prefix <= bits;
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
    /* Why it is none, which the next failure of OpenSSL would be told to be about. */
    ERR_clear_error();
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

/* Not a word more: curl and certbot would each make something else of it. */
static bool is_proxy(const char *text)
{
    static const char scheme[] = "http://";

    return strncmp(text, scheme, sizeof scheme - 1) == 0 &&
           is_host_port(text + sizeof scheme - 1);
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
    return config_parse_number(text, len, &number) &&
           number <= (uint64_t)INT64_MAX >> shift;
}

bool config_parse_size(const char *text, char ret[CONFIG_SIZE_SIZE])
{
    size_t digits = strspn(text, DIGITS);
    bool has_factor = text[digits] != '\0' && strchr("kmgKMG", text[digits]) != NULL;
    const char *rest = text + digits + (has_factor ? 1 : 0);

    /* A unit is 1024 times the one before it, as everywhere in nginx. */
    if (digits == 0 || digits > CONFIG_SIZE_SIZE - 2 ||
        (rest[0] != '\0' && strcasecmp(rest, "b") != 0 &&
         (!has_factor || strcasecmp(rest, "ib") != 0)))
        return false;
    memcpy(ret, text, digits);
    memset(ret + digits, '\0', 2);
    if (has_factor)
        ret[digits] = (char)tolower((unsigned char)text[digits]);
    return is_size(ret);
}

bool config_has_form(enum config_type type, const char *text)
{
    switch (type) {
    case CONFIG_PATH:
        return is_path(text);
    case CONFIG_DIRECTORY_URL:
        return is_directory(text);
    case CONFIG_PROXY:
        return is_proxy(text);
    case CONFIG_HOSTS:
        return only(text, LETTERS DIGITS "._-:/[]*, ");
    case CONFIG_EMAIL:
        return is_email(text);
    case CONFIG_WORD:
        return is_word(text);
    case CONFIG_NAME:
        return is_name(text);
    case CONFIG_USER:
        return is_user(text);
    case CONFIG_ENDPOINT:
        return is_endpoint(text);
    case CONFIG_HOST:
        return is_host(text) || is_address(text, AF_INET6);
    case CONFIG_HOST_PORT:
    case CONFIG_PLACES:
        return is_host_port(text);
    case CONFIG_ADDRESS:
        return is_address(text, AF_INET) || is_address(text, AF_INET6);
    case CONFIG_LISTEN:
        return is_listen(text);
    case CONFIG_SIZE:
        return is_size(text);
    case CONFIG_ROUTE_PATH:
        return is_route_path(text);
    case CONFIG_NETWORKS:
        return is_network(text);
    default:
        return true;
    }
}
