/* What of the status somebody should look at. */
#include "domain/status.h"

#include "base/text.h"
#include "domain/config_show.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    OVERDUE_S = 24 * 3600, /* a day of failures says nothing yet, and lets people sleep */
    CLOCKS_DIFFER_S = 300,
};

static void __attribute__((format(printf, 2, 3))) add(struct status_attention *ret,
                                                      const char *format, ...)
{
    char text[ERR_MESSAGE_MAX];
    va_list args;

    if (ret->count == STATUS_ATTENTION_MAX)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* Others' words are in it, and JSON is UTF-8; it may have been cut inside of a character. */
    text_escape(ret->texts[ret->count++], ERR_MESSAGE_MAX, text, strlen(text));
}

/* Whether clients get a certificate that they take. */
static void look_at_leaf(const struct status *status, struct status_attention *ret)
{
    const struct chain_leaf *leaf = status->leaf;
    char date[TEXT_TIME_SIZE];

    if (leaf == NULL) {
        add(ret, "HTTPS is not served: %s", status->next);
        return;
    }
    if (leaf->not_after <= status->now)
        add(ret, "the certificate has expired, on %s", text_time(date, leaf->not_after));
    else if (status->next_action.alarming)
        add(ret, "%s", status->next);
    else if (leaf->not_before > status->now + CLOCKS_DIFFER_S)
        add(ret,
            "the certificate is valid from %s on only: is this machine's clock right?",
            text_time(date, leaf->not_before));
    else if (plan_is_nearly_over(leaf->not_before, leaf->not_after, status->now))
        add(ret, "the certificate expires soon, on %s", text_time(date, leaf->not_after));
    else if (status->renewal != NULL &&
             renewal_of(status->terms, leaf->not_before, leaf->not_after).at + OVERDUE_S <
                 status->now)
        add(ret, "the renewal has been due since %s: %s",
            text_time(date,
                      renewal_of(status->terms, leaf->not_before, leaf->not_after).at),
            status->next);
}

static void look_at_port(const struct status *status, struct status_attention *ret)
{
    const struct status_probe *probe = status->probe;

    if (status->leaf == NULL || probe->at == 0)
        return;
    if (probe->error[0] != '\0')
        add(ret, "HTTPS does not answer: %s", probe->error);
    else if (strcmp(probe->sha256, status->leaf->sha256) != 0)
        add(ret, "HTTPS presents leaf %s, which is not the one that was applied",
            probe->sha256);
}

static void look_at_serving(const struct status *status, struct status_attention *ret)
{
    if (status->leaf == NULL)
        return;
    if (!status->attested && !status->config->development)
        add(ret, "NOT ATTESTED, clients that verify refuse: %s",
            status->why_not_attested);
    if (status->level != NGINX_HTTPS)
        add(ret, "nginx has the %s configuration: %s", nginx_level_name(status->level),
            status->level_reason);
}

/*
 * The two services have names by default, which need not be there. Whoever has named a backend wants to
 * reach it.
 */
static bool is_wanted(const struct config *config, const struct upstream *upstream)
{
    if (strcmp(upstream->name, UPSTREAM_AUTH) == 0)
        return config_says(config, "auth.upstream");
    if (strcmp(upstream->name, UPSTREAM_ATTESTATION) == 0)
        return config_says(config, "attestation.upstream");
    return true;
}

static void look_at_upstreams(const struct status *status, struct status_attention *ret)
{
    for (size_t i = 0; i < status->upstreams->count; i++) {
        const struct upstream *upstream = &status->upstreams->items[i];

        if (upstream->count == 0 && is_wanted(status->config, upstream))
            add(ret,
                "upstream %s, port %u: the name does not resolve; its paths answer 502",
                upstream->host, upstream->port);
    }
}

static void look_at_orders(const struct status *status, struct status_attention *ret)
{
    const struct status_failure *failure = status->failure;

    if (failure->what != NULL && failure->open)
        add(ret, "%s failed: %s", failure->what, failure->reason);
    if (status->order_from == INT64_MAX)
        add(ret, "%s", status->order_why);
    for (size_t i = 0; i < status->config->acme.authorities.count; i++) {
        if (status->accounts[i].deactivated)
            add(ret,
                "the account at %s is deactivated: set LETSENCRYPT_ACCOUNT_VERSION to a "
                "value that was never used, such as v2",
                status->config->acme.authorities.items[i].directory);
    }
    if (status->certbot.path != NULL && status->certbot.error[0] != '\0')
        add(ret, "certbot cannot be run: %s", status->certbot.error);
}

/* What is served does not suffer from it, and the next start does. */
static void look_at_settings(const struct status *status, struct status_attention *ret)
{
    if (status->not_reloaded[0] != '\0')
        add(ret, "reload failed: %s", status->not_reloaded);
}

void status_attention(const struct status *status, struct status_attention *ret)
{
    ret->count = 0;
    look_at_leaf(status, ret);
    look_at_port(status, ret);
    look_at_serving(status, ret);
    look_at_upstreams(status, ret);
    look_at_orders(status, ret);
    look_at_settings(status, ret);
}
