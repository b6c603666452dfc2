/*
 * config: every setting of the program, from defaults, a YAML file, the environment and the
 * flags of the command line; what comes later wins. Pure: the texts come as arguments.
 *
 * One table in config_settings.c names, for every setting, its YAML key, its variable, its type,
 * its limits and its meaning. A value that cannot be used is an error that names the
 * flag, the variable, or the file with line and column, what was found, and what is allowed; every
 * error of a load is reported, not only the first. Values of secrets never appear.
 */
#ifndef CM_DOMAIN_CONFIG_H
#define CM_DOMAIN_CONFIG_H

#include "base/err.h"
#include "base/log.h"
#include "base/secret.h"
#include "domain/authority.h"
#include "domain/hook_event.h"

#include <stdbool.h>
#include <stddef.h>

enum { CONFIG_YAML_MAX_BYTES = 1024 * 1024 };

/* The variable that names the file. */
#define CONFIG_FILE_VARIABLE "CERT_MANAGER_CONFIG"

struct config_list {
    char **items;
    size_t count;
};

/* One path of the application, and who answers it. */
struct config_route {
    char *path;          /* as the decoded URI has it, "/v1/" */
    bool exact;          /* only that path; else every path that begins with it */
    char *upstream;      /* "vllm:8000" */
    bool auth;           /* the auth service is asked first */
    bool cors;           /* CORS headers, where there are origins */
    bool websocket;      /* connections may be upgraded to WebSocket */
    bool ekm;            /* the backend gets X-TLS-EKM-Channel-Binding */
    bool buffering;      /* of answers, by nginx */
    unsigned timeout_ms; /* between two reads or writes of the backend */
    size_t line;         /* in the file, from 1 */
    size_t column;
};

struct config_routes {
    struct config_route *items;
    size_t count;
};

/* Names on one certificate, as many as Let's Encrypt signs. */
enum { CONFIG_DOMAINS_MAX = 100 };

/* So many within so long; count 0: it is not set. */
struct config_rate {
    unsigned count;
    unsigned period_ms;
};

/* Durations in milliseconds. Strings are never NULL except where "or NULL" is said. */
struct config {
    char *domain;
    struct config_list
        domains;      /* of the certificate, each once: `domain`, then the others */
    bool development; /* dev_mode, DEV_MODE */
    enum log_level log_level;
    bool log_json; /* log.format: json */
    char *run_dir; /* "/run/cert-manager": secrets, staging and work folders, on tmpfs */

    struct {
        bool staging;
        struct authorities authorities; /* acme.directory and so on; acme.fallback */
        char *email;                    /* contact of the account, "" for none */
        char *account_version;
        bool stateless; /* nginx answers challenges of our account without files */
        char *proxy;    /* that CAs are reached through, "http://host:port", or NULL */
        char *no_proxy; /* hosts that are reached without it; loopback is among them once
                           this is loaded */
        unsigned resolve_wait_ms;   /* FQDN_RESOLVE_WAIT_SECONDS */
        unsigned resolve_max_tries; /* FQDN_RESOLVE_MAX_TRIES; 0: do not wait */
        bool check_caa;
        unsigned retry_min_ms; /* first wait after a failed attempt at a CA without known
                                  limits */
        unsigned retry_max_ms;
        bool renewal_info;        /* the CA is asked when to renew */
        unsigned renew_before_ms; /* before the end; 0: by the lifetime */
        bool adopt; /* what the domain or a peer serves already, instead of an order */
        struct config_list peers; /* "host:port" of others with the same key */
        char *
            trust; /* PEM file of the CA's roots, or NULL: the system's. Not ca_bundle, since
                        a CA's API may have another root than what it issues */
        struct { /* of the main CA, beside or instead of those that are known of it */
            struct config_rate certificates;
            struct config_rate domain;
            struct config_rate failures;
            struct config_rate orders;
        } limits;
        bool rehearse;              /* acme.rehearsal */
        struct authority rehearsal; /* acme.rehearsal_directory: config_rehearsal() */
    } acme;
    struct {
        char *path;
        char *user; /* runs as this user where it exists, "certbot" */
        unsigned timeout_ms;
    } certbot;
    struct {
        char *dir;     /* "/etc/nginx/ssl" */
        bool force_rm; /* FORCE_RM_CERT_FILES */
        bool
            external_key; /* tls.key: external: pairs are somebody else's, nothing is ordered */
    } tls;
    struct {
        char *socket; /* or NULL: the first of the well-known paths;
                         DSTACK_SIMULATOR_ENDPOINT */
        unsigned timeout_ms;
        unsigned retry_max_ms; /* longest wait between attempts to reach it */
    } agent;
    struct {
        char *
            register_file; /* RTMR3 as the kernel shows it, or NULL: events are the agent's */
        char *log_dir;     /* "/run/log/dstack" */
    } rtmr3;
    bool evidence;             /* a folder of proofs is served at /evidences/ */
    bool measurement_required; /* HTTPS is not served unmeasured: measurement: required */
    struct {
        char *path;      /* "/usr/sbin/nginx" */
        char *conf;      /* "/etc/nginx/nginx.conf" */
        char *site_conf; /* "/etc/nginx/conf.d/default.conf": what we render */
        char *pid_file;  /* "/run/nginx.pid" */
        char *templates; /* "/app/nginx_conf" */
        char *webroot;   /* "/acme-challenge" */
        char *address;   /* listen address, NULL for all of IPv4 and IPv6 */
        unsigned http_port;
        unsigned https_port;
        char *stock_templates; /* "/usr/share/cert-manager/nginx_conf": ours, which no
                                  deployment replaces */
        bool live_chain;       /* workers take a renewed chain without a reload */
        bool proxy_protocol; /* each connection begins with the PROXY protocol's header */
        struct config_list trusted_proxies; /* networks whose header is believed */
        unsigned hsts_days;                 /* 0: no Strict-Transport-Security */
        char *max_body_size;                /* or NULL */
        char *extra_upstreams;              /* nginx text, "" for none */
        char *extra_locations;
    } nginx;
    struct {
        char *host; /* or NULL: no catch-all */
        unsigned port;
    } upstream;
    struct {
        bool enabled;
        char *upstream; /* "auth-service:8081" */
    } auth;
    struct {
        char *upstream; /* "attestation-service:8080" */
    } attestation;
    struct {
        char
            *listen; /* "address:port" where metrics can be asked for, or NULL: nowhere */
        bool nginx;  /* nginx shows them at /cert-manager/metrics */
    } metrics;
    struct config_list cors_origins; /* regular expressions */
    struct config_routes routes;
    struct {
        struct config_list commands[HOOK_EVENTS]; /* program and arguments; empty: none */
        unsigned timeout_ms;
        char *user; /* runs as this user, when we are root */
    } hooks;
    char *health_status_file; /* or NULL */
    bool sandbox;             /* hardening.sandbox */
    /* Development only, and at most one of them; both NULL otherwise. */
    struct secret *ekm_secret; /* EKM_SHARED_SECRET or the placeholder */
    char *ekm_secret_file; /* ekm.secret_file: the owner of the configuration reads it */

    char *file; /* that was read, by the name that it was given; or NULL */
    struct config_origin *origins; /* of each setting: see config_show.h */
};

/* Lines to log once logging is set up, and errors; each without a newline. */
struct config_report {
    char **errors;
    size_t error_count;
    char **warnings;
    size_t warning_count;
    bool passing; /* there are errors that say nothing of the settings: no memory, say */
};

/* What is said, by whom. Borrowed during config_load() only. */
struct config_sources {
    const char *yaml_name; /* what errors call the file */
    const char *yaml;      /* NULL: there is no file */
    size_t yaml_len;
    char *const *environment; /* in the form of environ */
    const char *const *flags; /* "key=value" of each --set, ends with NULL; or NULL */
};

/*
 * 0, or -1 with at least one error in the report. Both `config` and `report` are initialised
 * here and released with their done functions in either case.
 */
int config_load(struct config *config, struct config_report *report,
                const struct config_sources *sources);
void config_done(struct config *config);
void config_report_done(struct config_report *report);

/* What another one than config_load() found. */
void config_report_error(struct config_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * Whether nginx is to answer challenges of our ACME account without files: acme.stateless, where
 * there is an account.
 */
bool config_answers_challenges(const struct config *config);

/* URL of the main CA's directory. */
const char *config_directory(const struct config *config);

/* The CA at which orders are rehearsed after failed challenges, or NULL. */
const struct authority *config_rehearsal(const struct config *config);

#endif
