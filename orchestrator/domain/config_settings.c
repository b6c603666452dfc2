/* The tables of config_internal.h: every setting, and every setting of a route. */
#include "domain/config_internal.h"

#include <stddef.h>

enum {
    SECOND = 1000,
    MINUTE = 60 * SECOND,
    HOUR = 60 * MINUTE,
    DAY = 24 * HOUR,
};

#define FIELD(name) .offset = offsetof(struct config, name)
#define MAIN(name) FIELD(acme.authorities.items[0].name)
#define LIMITS(low, high) .min = (low), .max = (high)

/* What the main CA and those of acme.fallback have alike. */
#define MEANING_CA_BUNDLE "PEM file that the connection to the CA is verified with"
#define MEANING_PROFILE                                                                  \
    "kind of certificate, by the CA's name for it, such as shortlived; unset: its "      \
    "default"
#define MEANING_PREFERRED_CHAIN                                                          \
    "common name of the issuer at the chain's end, where the CA offers several"
#define MEANING_EAB_KEY_ID                                                               \
    "key identifier of the external account binding, where the CA asks for one"
#define MEANING_EAB_KEY_FILE "file of its HMAC key, in base64url as the CA gives it"

/* Every setting, in the order of the documentation. */
const struct config_setting config_settings[] = {
    {"domain", "DOMAIN", CONFIG_HOSTNAME, FIELD(domain), .fallback = "localhost",
     .meaning = "name of the certificate and server_name of nginx"},
    {"domains", NULL, CONFIG_NAMES, FIELD(domains),
     .meaning = "more names on the same certificate"},
    {"dev_mode", "DEV_MODE", CONFIG_BOOL, FIELD(development), .fallback = "false",
     .meaning = "self-signed certificate and fixed key material, without a guest agent"},
    {"run_dir", NULL, CONFIG_PATH, FIELD(run_dir), .fallback = "/run/cert-manager",
     .meaning = "secrets, staging and work folders; must be on tmpfs"},
    {"log.level", "LOG_LEVEL", CONFIG_LEVEL, FIELD(log_level), .fallback = "info",
     .meaning = "least level that is logged; unset in development and staging: debug"},
    {"log.format", NULL, CONFIG_CHOICE, FIELD(log_json), .fallback = "text",
     .choices = {"text", "json"},
     .meaning =
         "text: the lines of the Python service; json: one JSON object for each line"},

    {"acme.staging", "LETSENCRYPT_STAGING", CONFIG_BOOL, FIELD(acme.staging),
     .fallback = "false", .meaning = "use the staging directory of Let's Encrypt"},
    {"acme.directory", NULL, CONFIG_DIRECTORY_URL, MAIN(directory),
     .meaning = "directory of the CA; unset: that of Let's Encrypt"},
    {"acme.ca_bundle", NULL, CONFIG_PATH, MAIN(ca_bundle), .meaning = MEANING_CA_BUNDLE},
    {"acme.profile", NULL, CONFIG_WORD, MAIN(profile), .meaning = MEANING_PROFILE},
    {"acme.preferred_chain", NULL, CONFIG_NAME, MAIN(preferred_chain),
     .meaning = MEANING_PREFERRED_CHAIN},
    {"acme.eab_key_id", NULL, CONFIG_NAME, MAIN(eab_key_id),
     .meaning = MEANING_EAB_KEY_ID},
    {"acme.eab_key_file", NULL, CONFIG_PATH, MAIN(eab_key_file),
     .meaning = MEANING_EAB_KEY_FILE},
    {"acme.fallback", NULL, CONFIG_AUTHORITIES, FIELD(acme.authorities),
     .meaning =
         "CAs that are asked in this order when the one before is down or refuses"},
    {"acme.proxy", "https_proxy", CONFIG_PROXY, FIELD(acme.proxy),
     .flags = CONFIG_ENV_UPPER,
     .meaning = "proxy that CAs are reached through, by us and by certbot"},
    {"acme.no_proxy", "no_proxy", CONFIG_HOSTS, FIELD(acme.no_proxy),
     .flags = CONFIG_ENV_UPPER,
     .meaning = "hosts and networks that are reached without it, separated by commas; "
                "loopback always is"},
    {"acme.email", "EMAIL", CONFIG_EMAIL, FIELD(acme.email),
     .fallback = "certbot@concrete-security.com", .flags = CONFIG_ENV_EMPTY,
     .meaning = "contact of the ACME account; empty for none"},
    {"acme.account_version", "LETSENCRYPT_ACCOUNT_VERSION", CONFIG_WORD,
     FIELD(acme.account_version), .fallback = "v1",
     .meaning = "last part of the path of the account key"},
    {"acme.stateless", NULL, CONFIG_BOOL, FIELD(acme.stateless), .fallback = "true",
     .meaning = "nginx answers any HTTP-01 challenge of our ACME account without a file"},
    {"acme.resolve_wait", "FQDN_RESOLVE_WAIT_SECONDS", CONFIG_DURATION,
     FIELD(acme.resolve_wait_ms), LIMITS(0, HOUR), .fallback = "10s",
     .flags = CONFIG_ENV_SECONDS,
     .meaning = "time between look-ups of the domain before the CA is asked"},
    {"acme.resolve_max_tries", "FQDN_RESOLVE_MAX_TRIES", CONFIG_COUNT,
     FIELD(acme.resolve_max_tries), LIMITS(0, 1000000), .fallback = "60",
     .meaning = "look-ups of the domain before the CA is asked; 0: do not wait"},
    {"acme.check_caa", NULL, CONFIG_BOOL, FIELD(acme.check_caa), .fallback = "true",
     .meaning = "ask the DNS for CAA records before the CA is asked"},
    {"acme.retry_min", NULL, CONFIG_DURATION, FIELD(acme.retry_min_ms),
     LIMITS(SECOND, DAY), .fallback = "30s",
     .meaning = "first wait after a failed attempt at a CA without known limits"},
    {"acme.retry_max", NULL, CONFIG_DURATION, FIELD(acme.retry_max_ms),
     LIMITS(SECOND, 7 * DAY), .fallback = "1h",
     .meaning = "longest wait after failed attempts at a CA without known limits"},
    {"acme.renewal_info", NULL, CONFIG_BOOL, FIELD(acme.renewal_info), .fallback = "true",
     .meaning = "ask the CA when to renew, where it says so (RFC 9773)"},
    {"acme.renew_before", NULL, CONFIG_DURATION, FIELD(acme.renew_before_ms),
     LIMITS(SECOND, 45U * DAY),
     .meaning =
         "renew that long before the end, at the latest; unset: when a third of the "
         "lifetime is left, or half of one below 10 days"},
    {"acme.adopt", NULL, CONFIG_BOOL, FIELD(acme.adopt), .fallback = "true",
     .meaning =
         "before an order, look whether the domain or a peer serves a chain of this "
         "key that is not due"},
    {"acme.peers", NULL, CONFIG_PLACES, FIELD(acme.peers),
     .meaning = "host:port of others with the same key, which are looked at, too"},
    {"acme.trust", NULL, CONFIG_PATH, FIELD(acme.trust),
     .meaning = "PEM file of the CA's roots, which adopted chains are verified up to; "
                "unset: the system's"},
    {"acme.limit_certificates", NULL, CONFIG_RATE, FIELD(acme.limits.certificates),
     .meaning = "certificates that the CA issues for one set of names, such as 5/7d"},
    {"acme.limit_domain", NULL, CONFIG_RATE, FIELD(acme.limits.domain),
     .meaning = "certificates that the CA issues for one registered domain"},
    {"acme.limit_failures", NULL, CONFIG_RATE, FIELD(acme.limits.failures),
     .meaning = "failed challenges of one name that the CA puts up with"},
    {"acme.limit_orders", NULL, CONFIG_RATE, FIELD(acme.limits.orders),
     .meaning = "orders that the CA takes from one account"},
    {"acme.rehearsal", NULL, CONFIG_BOOL, FIELD(acme.rehearse), .fallback = "true",
     .meaning = "after two failed challenges, try at acme.rehearsal_directory first"},
    {"acme.rehearsal_directory", NULL, CONFIG_DIRECTORY_URL,
     FIELD(acme.rehearsal.directory),
     .meaning =
         "a CA whose certificates are thrown away; unset: the staging directory of "
         "Let's Encrypt, when that is the CA"},

    {"certbot.path", NULL, CONFIG_PATH, FIELD(certbot.path),
     .fallback = "/usr/bin/certbot", .meaning = "program of certbot"},
    {"certbot.user", NULL, CONFIG_USER, FIELD(certbot.user), .fallback = "certbot",
     .meaning = "user that certbot runs as, where it exists"},
    {"certbot.timeout", NULL, CONFIG_DURATION, FIELD(certbot.timeout_ms),
     LIMITS(SECOND, DAY), .fallback = "10m", .meaning = "longest run of certbot"},

    {"tls.dir", NULL, CONFIG_PATH, FIELD(tls.dir), .fallback = "/etc/nginx/ssl",
     .meaning = "folder of cert.pem, key.pem and the state that must survive"},
    {"tls.force_rm", "FORCE_RM_CERT_FILES", CONFIG_BOOL, FIELD(tls.force_rm),
     .fallback = "false",
     .meaning = "set the stored pair aside at start and obtain a new certificate"},

    {"tls.key", NULL, CONFIG_CHOICE, FIELD(tls.external_key), .fallback = "derived",
     .choices = {"derived", "external"},
     .meaning = "derived: only the agent's key is served; external: any pair that is put "
                "into tls.dir, and nothing is ordered"},
    {"measurement", NULL, CONFIG_CHOICE, FIELD(measurement_required),
     .fallback = "best-effort", .choices = {"best-effort", "required"},
     .meaning = "best-effort: HTTPS is served without a certificate event when the agent "
                "cannot make one; required: it is not"},
    {"evidence.enabled", NULL, CONFIG_BOOL, FIELD(evidence), .fallback = "false",
     .meaning = "serve chain, account, their sums and a quote over them at /evidences/"},
    {"rtmr3.register", NULL, CONFIG_PATH, FIELD(rtmr3.register_file),
     .meaning =
         "the kernel's file of RTMR3, for agents without EmitEvent: events are made "
         "natively then; unset: by the agent alone"},
    {"rtmr3.log_dir", NULL, CONFIG_PATH, FIELD(rtmr3.log_dir),
     .fallback = "/run/log/dstack",
     .meaning = "dstack's folder of the runtime event log, for rtmr3.register"},

    {"agent.socket", "DSTACK_SIMULATOR_ENDPOINT", CONFIG_ENDPOINT, FIELD(agent.socket),
     .meaning = "guest agent; unset: the first of its well-known paths"},
    {"agent.timeout", NULL, CONFIG_DURATION, FIELD(agent.timeout_ms),
     LIMITS(100, 10 * MINUTE), .fallback = "3s", .meaning = "longest call of the agent"},
    {"agent.retry_max", NULL, CONFIG_DURATION, FIELD(agent.retry_max_ms),
     LIMITS(100, DAY), .fallback = "30s",
     .meaning = "longest wait between attempts to reach the agent"},

    {"nginx.path", NULL, CONFIG_PATH, FIELD(nginx.path), .fallback = "/usr/sbin/nginx",
     .meaning = "program of nginx"},
    {"nginx.conf", NULL, CONFIG_PATH, FIELD(nginx.conf),
     .fallback = "/etc/nginx/nginx.conf", .meaning = "main configuration of nginx"},
    {"nginx.site_conf", NULL, CONFIG_PATH, FIELD(nginx.site_conf),
     .fallback = "/etc/nginx/conf.d/default.conf",
     .meaning = "the rendered configuration"},
    {"nginx.pid_file", NULL, CONFIG_PATH, FIELD(nginx.pid_file),
     .fallback = "/run/nginx.pid", .meaning = "where nginx writes its process id"},
    {"nginx.templates", NULL, CONFIG_PATH, FIELD(nginx.templates),
     .fallback = "/app/nginx_conf", .meaning = "folder of the templates"},
    {"nginx.webroot", NULL, CONFIG_PATH, FIELD(nginx.webroot),
     .fallback = "/acme-challenge", .meaning = "folder of the ACME challenges"},
    {"nginx.address", NULL, CONFIG_ADDRESS, FIELD(nginx.address),
     .meaning = "address to listen on; unset: all of IPv4 and IPv6"},
    {"nginx.http_port", NULL, CONFIG_COUNT, FIELD(nginx.http_port), LIMITS(1, 65535),
     .fallback = "80", .meaning = "port of HTTP"},
    {"nginx.https_port", NULL, CONFIG_COUNT, FIELD(nginx.https_port), LIMITS(1, 65535),
     .fallback = "443", .meaning = "port of HTTPS"},
    {"nginx.stock_templates", NULL, CONFIG_PATH, FIELD(nginx.stock_templates),
     .fallback = "/usr/share/cert-manager/nginx_conf",
     .meaning = "folder of the templates that stand in for those that nginx refuses"},
    {"nginx.live_chain", NULL, CONFIG_BOOL, FIELD(nginx.live_chain), .fallback = "true",
     .meaning = "nginx's workers take a renewed chain without a reload"},
    {"nginx.proxy_protocol", NULL, CONFIG_BOOL, FIELD(nginx.proxy_protocol),
     .fallback = "false",
     .meaning = "a TCP balancer in front sends the PROXY protocol, on both ports"},
    {"nginx.trusted_proxies", NULL, CONFIG_NETWORKS, FIELD(nginx.trusted_proxies),
     .meaning = "networks of the balancer: whom to believe the client's address"},
    {"nginx.hsts_days", NULL, CONFIG_COUNT, FIELD(nginx.hsts_days), LIMITS(0, 3650),
     .fallback = "0",
     .meaning = "days of Strict-Transport-Security; 0: the header is not sent"},
    {"nginx.max_body_size", "NGINX_MAX_BODY_SIZE", CONFIG_SIZE,
     FIELD(nginx.max_body_size), .meaning = "client_max_body_size of nginx"},
    {"nginx.extra_upstreams", "EXTRA_UPSTREAMS", CONFIG_FRAGMENT,
     FIELD(nginx.extra_upstreams), .fallback = "",
     .meaning = "upstream blocks, put into the configuration as they are"},
    {"nginx.extra_locations", "EXTRA_LOCATIONS", CONFIG_FRAGMENT,
     FIELD(nginx.extra_locations), .fallback = "",
     .meaning = "location blocks; ${CORS_HEADERS} in them is replaced"},

    {"upstream.host", "UPSTREAM_HOST", CONFIG_HOST, FIELD(upstream.host),
     .meaning = "host that every path without a location of its own goes to"},
    {"upstream.port", "UPSTREAM_PORT", CONFIG_COUNT, FIELD(upstream.port),
     LIMITS(1, 65535), .fallback = "8000", .meaning = "its port"},
    {"auth.enabled", "AUTH_ENABLED", CONFIG_BOOL, FIELD(auth.enabled), .fallback = "true",
     .meaning = "/_auth asks the authentication service; otherwise it answers 403"},
    {"auth.upstream", NULL, CONFIG_HOST_PORT, FIELD(auth.upstream),
     .fallback = "auth-service:8081", .meaning = "the authentication service"},
    {"attestation.upstream", NULL, CONFIG_HOST_PORT, FIELD(attestation.upstream),
     .fallback = "attestation-service:8080", .meaning = "the attestation service"},
    {"cors.origins", "CORS_ORIGINS", CONFIG_LIST, FIELD(cors_origins),
     .meaning = "regular expressions of allowed origins; none: no CORS"},
    {"routes", NULL, CONFIG_ROUTES, FIELD(routes),
     .meaning = "paths of the application, and who answers them"},

    {"metrics.listen", NULL, CONFIG_LISTEN, FIELD(metrics.listen),
     .meaning = "address and port where anybody may ask for /metrics, and for nothing "
                "else; unset: at the control socket alone"},
    {"metrics.nginx", NULL, CONFIG_BOOL, FIELD(metrics.nginx), .fallback = "false",
     .meaning = "nginx shows the metrics at /cert-manager/metrics to whom the "
                "authentication service lets through"},
    {"hooks.on_issued", NULL, CONFIG_COMMAND, FIELD(hooks.commands[HOOK_ISSUED]),
     .meaning = "program that is run when a certificate was obtained"},
    {"hooks.on_applied", NULL, CONFIG_COMMAND, FIELD(hooks.commands[HOOK_APPLIED]),
     .meaning =
         "program that is run when another certificate is served, or it is attested now"},
    {"hooks.on_failed", NULL, CONFIG_COMMAND, FIELD(hooks.commands[HOOK_FAILED]),
     .meaning =
         "program that is run when something failed that is tried again: at once, and "
         "every hour that it goes on"},
    {"hooks.on_level_changed", NULL, CONFIG_COMMAND,
     FIELD(hooks.commands[HOOK_LEVEL_CHANGED]),
     .meaning = "program that is run when nginx has another level of configuration"},
    {"hooks.timeout", NULL, CONFIG_DURATION, FIELD(hooks.timeout_ms),
     LIMITS(SECOND, HOUR), .fallback = "30s", .meaning = "longest run of a hook"},
    {"hooks.user", NULL, CONFIG_USER, FIELD(hooks.user), .fallback = "nobody",
     .meaning =
         "user that hooks run as; root: only programs that nobody else can change"},

    {"health.status_file", NULL, CONFIG_PATH, FIELD(health_status_file),
     .meaning =
         "file that says \"healthy\" or \"unhealthy\" and when, in Unix seconds, as "
         "dstack's health_status_file wants it"},

    {"hardening.sandbox", NULL, CONFIG_BOOL, FIELD(sandbox), .fallback = "true",
     .meaning =
         "the daemon forbids itself what it does not need: to run programs, most system "
         "calls (seccomp), and to write elsewhere than where it must (Landlock)"},

    {"ekm.secret_file", NULL, CONFIG_PATH, FIELD(ekm_secret_file), .flags = CONFIG_QUIET,
     .meaning = "file of the EKM secret, in development only"},
    {NULL, "EKM_SHARED_SECRET", CONFIG_SECRET, FIELD(ekm_secret), .flags = CONFIG_QUIET,
     .meaning = "the EKM secret itself, in development only"},
};

_Static_assert(sizeof config_settings / sizeof config_settings[0] == CONFIG_SETTING_COUNT,
               "CONFIG_SETTING_COUNT is not the length of the table");

#define ROUTE_FIELD(name) .offset = offsetof(struct config_route, name)

const struct config_setting config_route_settings[] = {
    {"path", NULL, CONFIG_ROUTE_PATH, ROUTE_FIELD(path), .flags = CONFIG_REQUIRED,
     .meaning = "path of the request, decoded and without its query"},
    {"match", NULL, CONFIG_CHOICE, ROUTE_FIELD(exact), .fallback = "prefix",
     .choices = {"prefix", "exact"},
     .meaning = "exact: only this path; prefix: every path that begins with it"},
    {"upstream", NULL, CONFIG_HOST_PORT, ROUTE_FIELD(upstream), .flags = CONFIG_REQUIRED,
     .meaning = "the backend; its name is looked up again and again"},
    {"auth", NULL, CONFIG_BOOL, ROUTE_FIELD(auth), .fallback = "false",
     .meaning = "ask the authentication service first"},
    {"cors", NULL, CONFIG_BOOL, ROUTE_FIELD(cors), .fallback = "true",
     .meaning = "CORS headers, where cors.origins are set"},
    {"websocket", NULL, CONFIG_BOOL, ROUTE_FIELD(websocket), .fallback = "true",
     .meaning = "let connections be upgraded to WebSocket"},
    {"ekm", NULL, CONFIG_BOOL, ROUTE_FIELD(ekm), .fallback = "false",
     .meaning = "pass X-TLS-EKM-Channel-Binding to the backend"},
    {"buffering", NULL, CONFIG_BOOL, ROUTE_FIELD(buffering), .fallback = "false",
     .meaning = "let nginx collect the answer before it passes it on"},
    {"timeout", NULL, CONFIG_DURATION, ROUTE_FIELD(timeout_ms), LIMITS(SECOND, DAY),
     .fallback = "1h",
     .meaning = "longest silence of the backend, and longest wait for it to take data"},
};

_Static_assert(sizeof config_route_settings / sizeof config_route_settings[0] ==
                   CONFIG_ROUTE_SETTING_COUNT,
               "CONFIG_ROUTE_SETTING_COUNT is not the length of the table");

#define AUTHORITY_FIELD(name) .offset = offsetof(struct authority, name)

const struct config_setting config_authority_settings[] = {
    {"directory", NULL, CONFIG_DIRECTORY_URL, AUTHORITY_FIELD(directory),
     .flags = CONFIG_REQUIRED, .meaning = "directory of the CA"},
    {"ca_bundle", NULL, CONFIG_PATH, AUTHORITY_FIELD(ca_bundle),
     .meaning = MEANING_CA_BUNDLE},
    {"profile", NULL, CONFIG_WORD, AUTHORITY_FIELD(profile), .meaning = MEANING_PROFILE},
    {"preferred_chain", NULL, CONFIG_NAME, AUTHORITY_FIELD(preferred_chain),
     .meaning = MEANING_PREFERRED_CHAIN},
    {"eab_key_id", NULL, CONFIG_NAME, AUTHORITY_FIELD(eab_key_id),
     .meaning = MEANING_EAB_KEY_ID},
    {"eab_key_file", NULL, CONFIG_PATH, AUTHORITY_FIELD(eab_key_file),
     .meaning = MEANING_EAB_KEY_FILE},
};

_Static_assert(sizeof config_authority_settings / sizeof config_authority_settings[0] ==
                   CONFIG_AUTHORITY_SETTING_COUNT,
               "CONFIG_AUTHORITY_SETTING_COUNT is not the length of the table");
