#include "domain/nginx_conf_internal.h"

#include "domain/config_internal.h"
#include "domain/hostname.h"
#include "domain/template.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HTTPS_DEFAULT_PORT = 443,
    HTTP2_DIRECTIVE_SINCE = 1025001, /* before: a parameter of listen */
    PORT_MAX = 65535,
    PATH_MAX_BYTES = 1024,
};

#define DIGITS "0123456789"
#define NETWORK_CHARACTERS DIGITS "abcdefABCDEF.:/"

/* ---- what may stand in a configuration ---- */

bool nginx_has_control(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return true;
    return false;
}

static int check_port(const char *key, unsigned port, struct err *err)
{
    if (port < 1 || port > PORT_MAX)
        return err_set(err, ERR_CONFIG, "%s: %u is not a port, expected 1 to %d", key,
                       port, PORT_MAX);
    return 0;
}

static bool is_address(int family, const char *text)
{
    unsigned char address[sizeof(struct in6_addr)];

    return inet_pton(family, text, address) == 1;
}

/* nginx reads variables in paths and has no way to write a dollar sign. */
static int check_path(const char *key, const char *path, struct err *err)
{
    if (*path != '/' || strlen(path) > PATH_MAX_BYTES || nginx_has_control(path) ||
        strchr(path, '$') != NULL)
        return err_set(
            err, ERR_CONFIG,
            "%s: \"%.100s\" cannot stand in nginx's configuration, expected an "
            "absolute path of at most %d bytes without \"$\" and control characters",
            key, path, PATH_MAX_BYTES);
    return 0;
}

int nginx_append_quoted(struct buf *ret, const char *text, struct err *err)
{
    for (; *text != '\0'; text++) {
        if ((*text == '"' || *text == '\\') && buf_append_str(ret, "\\", err) < 0)
            return -1;
        if (buf_append(ret, text, 1, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- the values of the placeholders ---- */
/*
 * A value of several lines is indented for the place where our templates have it; its
 * first line has the indentation of the placeholder.
 */

static int write_domain(const struct site *site, struct buf *ret, struct err *err)
{
    if (hostname_check(site->config->domain, err) < 0)
        return err_wrap(err, "domain (DOMAIN)");
    return buf_append_str(ret, site->config->domain, err);
}

static int write_server_names(const struct site *site, struct buf *ret, struct err *err)
{
    const struct config_list *names = &site->config->domains;

    for (size_t i = 0; i < names->count; i++) {
        if (hostname_check_pattern(names->items[i], err) < 0)
            return err_wrap(err, "domains");
        if (buf_printf(ret, err, "%s%s", i == 0 ? "" : " ", names->items[i]) < 0)
            return -1;
    }
    return 0;
}

static int write_addresses(const struct site *site, const char *key, unsigned port,
                           const char *parameters, struct buf *ret, struct err *err)
{
    const char *address = site->config->nginx.address;

    if (check_port(key, port, err) < 0)
        return -1;
    if (address == NULL) {
        if (buf_printf(ret, err, "listen %u%s;", port, parameters) < 0)
            return -1;
        if (site->facts->ipv6)
            return buf_printf(ret, err, "\n    listen [::]:%u%s;", port, parameters);
        return 0;
    }
    if (is_address(AF_INET, address))
        return buf_printf(ret, err, "listen %s:%u%s;", address, port, parameters);
    if (!is_address(AF_INET6, address))
        return err_set(err, ERR_CONFIG,
                       "nginx.address: \"%.100s\" is not an IPv4 or IPv6 address",
                       address);
    if (!site->facts->ipv6)
        return err_set(err, ERR_CONFIG,
                       "nginx.address: \"%s\" cannot be used, this system has no IPv6",
                       address);
    return buf_printf(ret, err, "listen [%s]:%u%s;", address, port, parameters);
}

/*
 * The listening sockets and, behind a balancer that sends the PROXY protocol, whom to believe the
 * address that its header names. Everybody else's header is read, and means nothing.
 */
static int write_listen(const struct site *site, const char *key, unsigned port,
                        const char *parameters, struct buf *ret, struct err *err)
{
    const struct config_list *trusted = &site->config->nginx.trusted_proxies;
    char all[64];

    snprintf(all, sizeof all, "%s%s", parameters,
             site->config->nginx.proxy_protocol ? " proxy_protocol" : "");
    if (write_addresses(site, key, port, all, ret, err) < 0)
        return -1;
    if (!site->config->nginx.proxy_protocol)
        return 0;
    for (size_t i = 0; i < trusted->count; i++) {
        if (trusted->items[i][strspn(trusted->items[i], NETWORK_CHARACTERS)] != '\0')
            return err_set(err, ERR_CONFIG,
                           "nginx.trusted_proxies: \"%.100s\" is not a network",
                           trusted->items[i]);
        if (buf_printf(ret, err, "\n    set_real_ip_from %s;", trusted->items[i]) < 0)
            return -1;
    }
    return buf_append_str(ret, "\n    real_ip_header proxy_protocol;", err);
}

static int write_http_listen(const struct site *site, struct buf *ret, struct err *err)
{
    return write_listen(site, "nginx.http_port", site->config->nginx.http_port, "", ret,
                        err);
}

static int write_https_listen(const struct site *site, struct buf *ret, struct err *err)
{
    const struct config *config = site->config;
    bool directive = site->facts->version >= HTTP2_DIRECTIVE_SINCE;

    if (config->nginx.http_port == config->nginx.https_port)
        return err_set(err, ERR_CONFIG, "nginx.https_port: %u is nginx.http_port as well",
                       config->nginx.https_port);
    if (write_listen(site, "nginx.https_port", config->nginx.https_port,
                     directive ? " ssl" : " ssl http2", ret, err) < 0)
        return -1;
    return directive ? buf_append_str(ret, "\n    http2 on;", err) : 0;
}

static int write_http_fallback(const struct site *site, struct buf *ret, struct err *err)
{
    unsigned port = site->config->nginx.https_port;

    if (site->level == NGINX_HTTP_ONLY)
        return buf_printf(ret, err,
                          "types { }\n"
                          "        default_type text/plain;\n"
                          "        add_header Retry-After %d always;\n"
                          "        return 503 \"Service starting, certificate being "
                          "provisioned\";",
                          NGINX_RETRY_AFTER_SECONDS);
    if (port == HTTPS_DEFAULT_PORT)
        return buf_append_str(ret, "return 301 https://$host$request_uri;", err);
    return buf_printf(ret, err, "return 301 https://$host:%u$request_uri;", port);
}

static int write_webroot(const struct site *site, struct buf *ret, struct err *err)
{
    if (check_path("nginx.webroot", site->config->nginx.webroot, err) < 0)
        return -1;
    return nginx_append_quoted(ret, site->config->nginx.webroot, err);
}

static int write_tls_dir(const struct site *site, struct buf *ret, struct err *err)
{
    if (check_path("tls.dir", site->config->tls.dir, err) < 0)
        return -1;
    return nginx_append_quoted(ret, site->config->tls.dir, err);
}

static int write_resolver(const struct site *site, struct buf *ret, struct err *err)
{
    static const char allowed[] = DIGITS "abcdefABCDEF.:[] ";
    const char *servers = site->facts->nameservers;

    if (*servers == '\0')
        return 0;
    if (servers[strspn(servers, allowed)] != '\0')
        return err_set(err, ERR_CONFIG, "nameservers: \"%.100s\" are not addresses",
                       servers);
    /*
     * Container networks give long lifetimes to addresses that change with every
     * restart.
     */
    return buf_printf(ret, err, "resolver %s valid=10s%s; resolver_timeout 5s;", servers,
                      site->facts->ipv6 ? "" : " ipv6=off");
}

static int write_max_body_size(const struct site *site, struct buf *ret, struct err *err)
{
    const char *size = site->config->nginx.max_body_size;

    if (size == NULL)
        return 0;
    if (!config_has_form(CONFIG_SIZE, size))
        return err_set(
            err, ERR_CONFIG,
            "nginx.max_body_size (NGINX_MAX_BODY_SIZE): \"%.100s\" is not a size, "
            "expected digits and an optional k, m or g, for example 20m",
            size);
    return buf_printf(ret, err, "client_max_body_size %s;", size);
}

/* Browsers keep this promise for so long, whatever is installed then: off unless asked for. */
int nginx_write_hsts(const struct site *site, struct buf *ret, struct err *err)
{
    unsigned days = site->config->nginx.hsts_days;

    if (days == 0)
        return 0;
    return buf_printf(ret, err, "add_header Strict-Transport-Security max-age=%u always;",
                      days * 24 * 3600);
}

static int write_attestation_upstream(const struct site *site, struct buf *ret,
                                      struct err *err)
{
    (void)site;
    return buf_append_str(ret, UPSTREAM_ATTESTATION, err);
}

/* ---- the files ---- */

static const struct placeholder {
    const char *name;
    int (*write)(const struct site *site, struct buf *ret, struct err *err);
} placeholders[] = {
    /* what templates of deployments know */
    {"DOMAIN", write_domain},
    {"CORS_BLOCK", nginx_write_cors_block},
    {"CORS_HEADERS", nginx_write_cors_headers},
    {"AUTH_LOCATION", nginx_write_auth_location},
    {"EXTRA_UPSTREAMS", nginx_write_extra_upstreams},
    {"EXTRA_LOCATIONS", nginx_write_extra_locations},
    {"CLIENT_MAX_BODY_SIZE", write_max_body_size},
    /* what only our own templates have */
    {"SERVER_NAMES", write_server_names},
    {"CHALLENGE_TOKENS", nginx_write_challenge_tokens},
    {"CHALLENGE_ANSWERS", nginx_write_challenge_answers},
    {"HTTP_LISTEN", write_http_listen},
    {"HTTPS_LISTEN", write_https_listen},
    {"HTTP_FALLBACK", write_http_fallback},
    {"WEBROOT", write_webroot},
    {"TLS_DIR", write_tls_dir},
    {"RESOLVER", write_resolver},
    {"HSTS", nginx_write_hsts},
    {"ATTESTATION_UPSTREAM", write_attestation_upstream},
};

enum { PLACEHOLDER_COUNT = sizeof placeholders / sizeof placeholders[0] };

const char *nginx_level_name(enum nginx_level level)
{
    static const char *const names[] = {
        [NGINX_HTTP_ONLY] = "http-only",
        [NGINX_HTTPS_REDUCED] = "reduced",
        [NGINX_HTTPS] = "full",
    };

    return names[level];
}

const char *nginx_conf_https_template(const struct config *config)
{
    return config->development ? "https-dev.conf.tmpl" : "https.conf.tmpl";
}

static int write_values(const struct site *site, struct buf *texts, struct err *err)
{
    for (size_t i = 0; i < PLACEHOLDER_COUNT; i++) {
        buf_init(&texts[i], NGINX_CONF_MAX_BYTES);
        if (placeholders[i].write(site, &texts[i], err) == 0)
            continue;
        /* A text that outgrows its buffer does not say which one it is. */
        return err->kind == ERR_PEER ? err_wrap(err, "${%s}", placeholders[i].name) : -1;
    }
    return 0;
}

int nginx_conf_render(const struct config *config, const struct nginx_facts *facts,
                      enum nginx_level level, const struct nginx_templates *templates,
                      struct buf *ret, struct err *err)
{
    const struct site site = {.config = config, .facts = facts, .level = level};
    struct template_value values[PLACEHOLDER_COUNT];
    struct buf texts[PLACEHOLDER_COUNT] = {{.max = 0}};
    int result;

    assert(level == NGINX_HTTP_ONLY || facts->upstreams != NULL);
    result = write_values(&site, texts, err);
    if (result == 0) {
        for (size_t i = 0; i < PLACEHOLDER_COUNT; i++) {
            values[i].name = placeholders[i].name;
            values[i].value = buf_str(&texts[i]);
        }
        result = template_render(templates->base, values, PLACEHOLDER_COUNT, ret, err);
        if (result == 0 && level != NGINX_HTTP_ONLY)
            result =
                template_render(templates->https, values, PLACEHOLDER_COUNT, ret, err);
    }
    for (size_t i = 0; i < PLACEHOLDER_COUNT; i++)
        buf_done(&texts[i]);
    if (result == 0)
        return 0;
    /*
     * A text that outgrows its buffer came from settings and templates, not from a
     * peer.
     */
    if (err->kind == ERR_PEER)
        err->kind = ERR_CONFIG;
    return err_wrap(err, "nginx configuration");
}

static int write_path_directive(const char *directive, const char *path, struct buf *ret,
                                struct err *err)
{
    return check_path(directive, path, err) < 0 ||
                   buf_printf(ret, err, "%s \"", directive) < 0 ||
                   nginx_append_quoted(ret, path, err) < 0
               ? -1
               : buf_append_str(ret, "\";\n", err);
}

/*
 * Of WebSocket only: another protocol (h2c) would carry requests past the locations. Not the base
 * template's $connection_upgrade: mounted ones may have another idea of it.
 */
static const char upgrade_maps[] =
    "\n"
    "map $http_upgrade $cm_connection {\n"
    "    default        '';\n"
    "    ~*^websocket$  upgrade;\n"
    "}\n"
    "map $http_upgrade $cm_upgrade {\n"
    "    default        '';\n"
    "    ~*^websocket$  websocket;\n"
    "}\n";

/* A group, because the path of a socket in proxy_pass ends at its first colon. */
static int write_metrics_group(const char *socket, struct buf *ret, struct err *err)
{
    return check_path("run_dir", socket, err) < 0 ||
                   buf_append_str(ret,
                                  "\nupstream " UPSTREAM_METRICS " {\n    server \"unix:",
                                  err) < 0 ||
                   nginx_append_quoted(ret, socket, err) < 0
               ? -1
               : buf_append_str(ret, "\";\n}\n", err);
}

int nginx_conf_render_include(const char *ekm_secret_file,
                              const struct nginx_facts *facts, struct buf *ret,
                              struct err *err)
{
    if (write_path_directive("ekm_secret_file", ekm_secret_file, ret, err) < 0 ||
        (facts->live_chain != NULL &&
         write_path_directive("live_chain", facts->live_chain, ret, err) < 0) ||
        buf_append_str(ret, upgrade_maps, err) < 0)
        return -1;
    for (size_t i = 0; i < facts->upstreams->count; i++) {
        const struct upstream *upstream = &facts->upstreams->items[i];

        if (!nginx_is_service(upstream))
            continue;
        if (buf_append_str(ret, "\n", err) < 0 ||
            upstream_render(upstream, ret, err) < 0 || buf_append_str(ret, "\n", err) < 0)
            return -1;
    }
    if (facts->metrics_socket[0] != '\0')
        return write_metrics_group(facts->metrics_socket, ret, err);
    return 0;
}
