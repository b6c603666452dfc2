#include "domain/nginx_conf.h"

#include "domain/hostname.h"
#include "domain/template.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HTTPS_DEFAULT_PORT = 443,
    HTTP2_DIRECTIVE_SINCE = 1025001, /* before: a parameter of listen */
    RETRY_AFTER_SECONDS = 5,
    HOST_MAX = 253,
    PORT_MAX = 65535,
    PATH_MAX_BYTES = 1024,
    REGEX_MAX_BYTES = 1024, /* a word that does not fit 4096 bytes is refused by nginx */
    /* Numbers of bytes that nginx can hold; a unit adds up to ten digits. */
    SIZE_DIGITS_MAX = 18,
    SIZE_DIGITS_MAX_WITH_UNIT = 9,
    NAMESERVERS_MAX = 3, /* as many as the C library asks */
};

struct site {
    const struct config *config;
    const struct nginx_facts *facts;
    enum nginx_level level;
};

#define DIGITS "0123456789"
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

/* ---- what may stand in a configuration ---- */

static bool has_control(const char *text)
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

/*
 * A name as container networks have them, underscores included, or an IPv4 address.
 * "unix" is refused because nginx reads "unix:" as the path of a socket.
 */
static bool is_host(const char *host, size_t len)
{
    static const char allowed[] = LETTERS DIGITS "._-";

    if (len == 0 || len > HOST_MAX || *host == '-' || *host == '.')
        return false;
    if (len == 4 && strncmp(host, "unix", len) == 0)
        return false;
    return strspn(host, allowed) >= len;
}

/*
 * Length of the host, or IPv6 address in brackets, that `text` starts with; 0 for
 * neither.
 */
static size_t host_length(const char *text)
{
    char address[INET6_ADDRSTRLEN];
    size_t len;

    if (*text != '[') {
        len = strcspn(text, ":");
        return is_host(text, len) ? len : 0;
    }
    len = strcspn(text + 1, "]");
    if (text[1 + len] != ']' || len >= sizeof address)
        return 0;
    memcpy(address, text + 1, len);
    address[len] = '\0';
    return is_address(AF_INET6, address) ? len + 2 : 0;
}

static int check_host_port(const char *key, const char *value, struct err *err)
{
    size_t len = host_length(value);
    bool good = len > 0;

    if (good && value[len] == ':') {
        const char *digits = value + len + 1;
        unsigned long port = strtoul(digits, NULL, 10);

        good = strspn(digits, DIGITS) == strlen(digits) && port >= 1 && port <= PORT_MAX;
    } else {
        good = good && value[len] == '\0';
    }
    if (!good)
        return err_set(err, ERR_CONFIG,
                       "%s: \"%.100s\" is not a host with an optional port, expected for "
                       "example service:8080, 10.0.0.2:8080 or [fd00::2]:8080",
                       key, value);
    return 0;
}

/* nginx reads variables in paths and has no way to write a dollar sign. */
static int check_path(const char *key, const char *path, struct err *err)
{
    if (*path != '/' || strlen(path) > PATH_MAX_BYTES || has_control(path) ||
        strchr(path, '$') != NULL)
        return err_set(
            err, ERR_CONFIG,
            "%s: \"%.100s\" cannot stand in nginx's configuration, expected an "
            "absolute path of at most %d bytes without \"$\" and control characters",
            key, path, PATH_MAX_BYTES);
    return 0;
}

/* The text as it stands between double quotes: nginx undoes \" and \\ there. */
static int append_quoted(struct buf *ret, const char *text, struct err *err)
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

static int write_listen(const struct site *site, const char *key, unsigned port,
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
                          RETRY_AFTER_SECONDS);
    if (port == HTTPS_DEFAULT_PORT)
        return buf_append_str(ret, "return 301 https://$host$request_uri;", err);
    return buf_printf(ret, err, "return 301 https://$host:%u$request_uri;", port);
}

static int write_webroot(const struct site *site, struct buf *ret, struct err *err)
{
    if (check_path("nginx.webroot", site->config->nginx.webroot, err) < 0)
        return -1;
    return append_quoted(ret, site->config->nginx.webroot, err);
}

static int write_tls_dir(const struct site *site, struct buf *ret, struct err *err)
{
    if (check_path("tls.dir", site->config->tls.dir, err) < 0)
        return -1;
    return append_quoted(ret, site->config->tls.dir, err);
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
    size_t digits;
    size_t max;

    if (size == NULL)
        return 0;
    digits = strspn(size, DIGITS);
    max = size[digits] == '\0' ? SIZE_DIGITS_MAX : SIZE_DIGITS_MAX_WITH_UNIT;
    if (digits < 1 || digits > max || strcspn(size + digits, "kKmMgG") > 0 ||
        strlen(size + digits) > 1)
        return err_set(
            err, ERR_CONFIG,
            "nginx.max_body_size (NGINX_MAX_BODY_SIZE): \"%.100s\" is not a size, "
            "expected digits and an optional k, m or g, for example 20m",
            size);
    return buf_printf(ret, err, "client_max_body_size %s;", size);
}

static int write_attestation_upstream(const struct site *site, struct buf *ret,
                                      struct err *err)
{
    const char *upstream = site->config->attestation.upstream;

    if (check_host_port("attestation.upstream", upstream, err) < 0)
        return -1;
    return buf_append_str(ret, upstream, err);
}

/*
 * Always sets $cors_origin: fragments may name it. The regular expression cannot leave
 * its quotes; dollar signs and braces mean nothing to nginx there, because the operand of
 * `~` is not searched for variables.
 */
static int write_cors_block(const struct site *site, struct buf *ret, struct err *err)
{
    const struct config_list *origins = &site->config->cors_origins;

    if (buf_append_str(ret, "set $cors_origin \"\";", err) < 0)
        return -1;
    for (size_t i = 0; i < origins->count; i++) {
        const char *regex = origins->items[i];

        if (*regex == '\0' || strlen(regex) > REGEX_MAX_BYTES || has_control(regex))
            return err_set(
                err, ERR_CONFIG,
                "cors.origins (CORS_ORIGINS): entry %zu is not usable, expected a "
                "regular expression of 1 to %d bytes without control characters",
                i + 1, REGEX_MAX_BYTES);
        if (buf_append_str(ret, "\n    if ($http_origin ~ \"", err) < 0 ||
            append_quoted(ret, regex, err) < 0 ||
            buf_append_str(ret,
                           "\") {\n"
                           "        set $cors_origin $http_origin;\n"
                           "    }",
                           err) < 0)
            return -1;
    }
    return 0;
}

/*
 * nginx leaves out a header whose value is empty. An upstream's own Allow-Origin is
 * dropped: two of them make browsers refuse the answer, and the configured origins
 * decide.
 */
static int write_cors_headers(const struct site *site, struct buf *ret, struct err *err)
{
    static const char methods[] = "'GET, POST, OPTIONS'";
    static const char headers[] =
        "'DNT,User-Agent,X-Requested-With,If-Modified-Since,"
        "Cache-Control,Content-Type,Range'";

    if (site->config->cors_origins.count == 0)
        return 0;
    return buf_printf(
        ret, err,
        "if ($request_method = OPTIONS) {\n"
        "            add_header Vary Origin always;\n"
        "            add_header Access-Control-Allow-Origin $cors_origin always;\n"
        "            add_header Access-Control-Allow-Methods %s always;\n"
        "            add_header Access-Control-Allow-Headers %s always;\n"
        "            add_header Access-Control-Max-Age 1728000 always;\n"
        "            return 204;\n"
        "        }\n"
        "        proxy_hide_header Access-Control-Allow-Origin;\n"
        "        add_header Vary Origin always;\n"
        "        add_header Access-Control-Allow-Origin $cors_origin always;\n"
        "        add_header Access-Control-Allow-Methods %s always;\n"
        "        add_header Access-Control-Allow-Headers %s always;\n"
        "        add_header Access-Control-Expose-Headers 'Content-Length,Content-Range' "
        "always;",
        methods, headers, methods, headers);
}

/* The resolver stands inside: a mounted template may have none. */
static int write_auth_location(const struct site *site, struct buf *ret, struct err *err)
{
    const char *upstream = site->config->auth.upstream;

    if (!site->config->auth.enabled)
        return buf_append_str(ret,
                              "location = /_auth {\n"
                              "        internal;\n"
                              "        return 403;\n"
                              "    }",
                              err);
    if (check_host_port("auth.upstream", upstream, err) < 0)
        return -1;
    if (buf_append_str(ret,
                       "location = /_auth {\n"
                       "        internal;\n"
                       "        ",
                       err) < 0 ||
        write_resolver(site, ret, err) < 0)
        return -1;
    return buf_printf(ret, err,
                      "\n"
                      "        set $auth_upstream \"%s\";\n"
                      "        proxy_pass http://$auth_upstream/auth;\n"
                      "        proxy_pass_request_body off;\n"
                      "        proxy_set_header Content-Length \"\";\n"
                      "        proxy_set_header X-Original-URI $request_uri;\n"
                      "        proxy_set_header X-TLS-EKM-Channel-Binding \"\";\n"
                      "    }",
                      upstream);
}

/*
 * Empty while there is no HTTPS: nothing uses an upstream then, and one that does not
 * resolve must not stop nginx from answering challenges.
 */
static int write_extra_upstreams(const struct site *site, struct buf *ret,
                                 struct err *err)
{
    const char *host = site->config->upstream.host;
    unsigned port = site->config->upstream.port;
    bool ipv6;

    if (site->level == NGINX_HTTP_ONLY)
        return 0;
    if (buf_append_str(ret, site->config->nginx.extra_upstreams, err) < 0)
        return -1;
    if (host == NULL)
        return 0;
    ipv6 = is_address(AF_INET6, host);
    if (!ipv6 && (*host == '\0' || host_length(host) != strlen(host)))
        return err_set(
            err, ERR_CONFIG,
            "upstream.host (UPSTREAM_HOST): \"%.100s\" is not a host name or address",
            host);
    if (check_port("upstream.port (UPSTREAM_PORT)", port, err) < 0)
        return -1;
    return buf_printf(ret, err,
                      "%supstream app_backend {\n"
                      "    server %s%s%s:%u;\n"
                      "    keepalive 32;\n"
                      "}",
                      *site->config->nginx.extra_upstreams == '\0' ? "" : "\n\n",
                      ipv6 ? "[" : "", host, ipv6 ? "]" : "", port);
}

/* Answers are not buffered: inference streams its tokens. */
static int write_catch_all(const struct site *site, struct buf *ret, struct err *err)
{
    if (buf_append_str(ret, "location / {\n        ", err) < 0 ||
        write_cors_headers(site, ret, err) < 0)
        return -1;
    return buf_append_str(
        ret,
        "\n"
        "        proxy_pass http://app_backend;\n"
        "        proxy_http_version 1.1;\n"
        "        proxy_buffering off;\n"
        "        proxy_read_timeout 3600s;\n"
        "        proxy_send_timeout 3600s;\n"
        "        proxy_set_header Upgrade $http_upgrade;\n"
        "        proxy_set_header Connection $connection_upgrade;\n"
        "        proxy_set_header Host $host;\n"
        "        proxy_set_header X-Real-IP $remote_addr;\n"
        "        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
        "        proxy_set_header X-Forwarded-Proto $scheme;\n"
        "        proxy_set_header X-TLS-EKM-Channel-Binding \"\";\n"
        "    }",
        err);
}

static int write_extra_locations(const struct site *site, struct buf *ret,
                                 struct err *err)
{
    const char *fragment = site->config->nginx.extra_locations;
    BUF_SCOPED cors = {.max = NGINX_CONF_MAX_BYTES};
    struct template_value value = {.name = "CORS_HEADERS"};

    if (write_cors_headers(site, &cors, err) < 0)
        return -1;
    value.value = buf_str(&cors);
    if (template_render(fragment, &value, 1, ret, err) < 0)
        return -1;
    if (site->config->upstream.host == NULL)
        return 0;
    if (*fragment != '\0' && buf_append_str(ret, "\n\n    ", err) < 0)
        return -1;
    return write_catch_all(site, ret, err);
}

/* ---- the files ---- */

static const struct placeholder {
    const char *name;
    int (*write)(const struct site *site, struct buf *ret, struct err *err);
} placeholders[] = {
    /* what templates of deployments know */
    {"DOMAIN", write_domain},
    {"CORS_BLOCK", write_cors_block},
    {"CORS_HEADERS", write_cors_headers},
    {"AUTH_LOCATION", write_auth_location},
    {"EXTRA_UPSTREAMS", write_extra_upstreams},
    {"EXTRA_LOCATIONS", write_extra_locations},
    {"CLIENT_MAX_BODY_SIZE", write_max_body_size},
    /* what only our own templates have */
    {"HTTP_LISTEN", write_http_listen},
    {"HTTPS_LISTEN", write_https_listen},
    {"HTTP_FALLBACK", write_http_fallback},
    {"WEBROOT", write_webroot},
    {"TLS_DIR", write_tls_dir},
    {"RESOLVER", write_resolver},
    {"ATTESTATION_UPSTREAM", write_attestation_upstream},
};

enum { PLACEHOLDER_COUNT = sizeof placeholders / sizeof placeholders[0] };

const char *nginx_conf_https_template(const struct config *config)
{
    return config->development ? "https-dev.conf.tmpl" : "https.conf.tmpl";
}

static int write_values(const struct site *site, struct buf *texts, struct err *err)
{
    for (size_t i = 0; i < PLACEHOLDER_COUNT; i++) {
        buf_init(&texts[i], NGINX_CONF_MAX_BYTES);
        if (placeholders[i].write(site, &texts[i], err) < 0)
            return -1;
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

    result = write_values(&site, texts, err);
    if (result == 0) {
        for (size_t i = 0; i < PLACEHOLDER_COUNT; i++) {
            values[i].name = placeholders[i].name;
            values[i].value = buf_str(&texts[i]);
        }
        result = template_render(templates->base, values, PLACEHOLDER_COUNT, ret, err);
        if (result == 0 && level == NGINX_HTTPS)
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

int nginx_conf_render_include(const char *ekm_secret_file, struct buf *ret,
                              struct err *err)
{
    if (check_path("EKM secret file", ekm_secret_file, err) < 0 ||
        buf_append_str(ret, "ekm_secret_file \"", err) < 0 ||
        append_quoted(ret, ekm_secret_file, err) < 0)
        return -1;
    return buf_append_str(ret, "\";\n", err);
}

/* ---- facts ---- */

/* `line` up to its newline: the address of a nameserver line into `ret`, or false. */
static bool nameserver_of(const char *line, char ret[INET6_ADDRSTRLEN])
{
    static const char keyword[] = "nameserver";
    size_t len;

    line += strspn(line, " \t");
    if (strncmp(line, keyword, sizeof keyword - 1) != 0)
        return false;
    line += sizeof keyword - 1;
    if (strspn(line, " \t") == 0)
        return false;
    line += strspn(line, " \t");
    len = strcspn(line, " \t\r\n#;");
    if (len >= INET6_ADDRSTRLEN)
        return false;
    memcpy(ret, line, len);
    ret[len] = '\0';
    /* Not fe80::1%eth0: nginx cannot name an interface. */
    return is_address(AF_INET, ret) || is_address(AF_INET6, ret);
}

void nginx_conf_nameservers(const char *resolv_conf, char *ret, size_t size)
{
    size_t used = 0;
    unsigned found = 0;

    if (size == 0)
        return;
    *ret = '\0';
    for (const char *line = resolv_conf; line != NULL && found < NAMESERVERS_MAX;) {
        char address[INET6_ADDRSTRLEN];
        char item[INET6_ADDRSTRLEN + 3];

        if (nameserver_of(line, address)) {
            const char *space = used == 0 ? "" : " ";
            bool ipv6 = strchr(address, ':') != NULL;
            int len =
                snprintf(item, sizeof item, ipv6 ? "%s[%s]" : "%s%s", space, address);

            if (len < 0 || used + (size_t)len >= size)
                return;
            memcpy(ret + used, item, (size_t)len + 1);
            used += (size_t)len;
            found++;
        }
        line = strchr(line, '\n');
        if (line != NULL)
            line++;
    }
}

unsigned nginx_conf_parse_version(const char *output)
{
    static const char prefix[] = "nginx version: nginx/";
    const char *at = strstr(output, prefix);
    unsigned version = 0;

    if (at == NULL)
        return 0;
    at += sizeof prefix - 1;
    for (unsigned part = 0; part < 3; part++) {
        size_t digits = strspn(at, DIGITS);

        if (digits < 1 || digits > 3 || (part < 2 && at[digits] != '.'))
            return 0;
        version = version * 1000 + (unsigned)strtoul(at, NULL, 10);
        at += digits + 1;
    }
    return version;
}
