/* The daemon's keys, and the pair that the TLS folder holds. */
#include "app/daemon_internal.h"

#include "adapters/journal_file.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/random.h"
#include "domain/keys.h"
#include "domain/pace.h"
#include "flows/examine.h"

#include <openssl/crypto.h>
#include <string.h>
#include <time.h>

enum {
    UNREADABLE_RETRY_MS = 10 * 1000,
    UNREST_MAX_MS = 10 * 1000, /* for somebody who writes a pair */
};

/* ---- keys ---- */

static uint64_t keys_pace(const struct daemon *d, enum plan_activity activity)
{
    return pace_doubling(PACE_LOCAL_MIN_MS, d->config->agent.retry_max_ms,
                         d->failures[activity], random_number());
}

static bool same_secret(const struct secret *a, const struct secret *b)
{
    return a->len == b->len && CRYPTO_memcmp(a->bytes, b->bytes, a->len) == 0;
}

/* The agent derives other keys now (key epochs). What is served goes on until it is replaced. */
static void note_other_keys(struct daemon *d, const struct keys_flow *keys)
{
    bool other_key = keys->tls_key != NULL && d->tls_key != NULL &&
                     !keys_same(keys->tls_key, d->tls_key);
    bool other_secret = !same_secret(keys->ekm_secret, d->ekm_secret);

    if (other_key) {
        log_warning("the guest agent derives another TLS key now: %s",
                    d->served != NULL
                        ? "the served certificate stays until one for the new "
                          "key is there"
                        : "it is used from now on");
        d->plan_facts.rekeyed =
            d->served != NULL && !keys_same(keys->tls_key, d->served_key);
        d->plan_facts.retry_at_ms[PLAN_ADOPTING] = 0;
        d->plan_facts.retry_at_ms[PLAN_ISSUING] = 0;
        if (d->candidate != NULL && !chain_has_key(d->candidate, keys->tls_key))
            daemon_drop_candidate(d);
    } else if (other_secret) {
        log_warning("the guest agent derives another EKM secret now: nginx takes it");
        d->plan_facts.disturbed = d->served != NULL;
    }
}

/* What is served goes on from a life with other settings, for which the keys were not the same. */
static void note_first_keys(struct daemon *d, const struct keys_flow *keys)
{
    if (keys->tls_key == NULL)
        return;
    if (!d->config->development)
        log_info("the guest agent has derived the TLS key");
    if (d->served == NULL)
        return;
    d->plan_facts.rekeyed = !keys_same(keys->tls_key, d->served_key);
    if (d->plan_facts.rekeyed)
        d->plan_facts.retry_at_ms[PLAN_ISSUING] = 0;
    else if (!same_secret(keys->ekm_secret, d->served_secret))
        d->plan_facts.disturbed = true;
}

static int take_keys(struct daemon *d, struct keys_flow *keys, struct err *err)
{
    bool first = d->ekm_secret == NULL;

    /* While HTTPS is up the secret changes with what is served, in the apply flow. */
    if (d->served == NULL && nginx_write_secret(d->config, keys->ekm_secret, err) < 0)
        return -1;
    if (!first)
        note_other_keys(d, keys);
    else
        note_first_keys(d, keys);
    if (keys->tls_key != NULL) {
        EVP_PKEY_free(d->tls_key);
        d->tls_key = keys->tls_key;
        keys->tls_key = NULL;
    }
    secret_free(d->ekm_secret);
    d->ekm_secret = keys->ekm_secret;
    keys->ekm_secret = NULL;
    d->plan_facts.keys = true;
    d->plan_facts.keys_at_ms = daemon_uptime_ms(d);
    return 0;
}

/* ---- the ACME account, whose challenges nginx answers ---- */

static void use_account(struct daemon *d, const char *thumbprint)
{
    struct err err = ERR_INIT;

    if (nginx_keep_account(d->config, thumbprint, &err) < 0)
        log_failed(LOG_WARNING, &err,
                   "the account's thumbprint is not kept for prestart: %s (tried again "
                   "with the next keys)",
                   err.message);
    if (strcmp(thumbprint, d->facts.account_thumbprint) == 0)
        return;
    memcpy(d->facts.account_thumbprint, thumbprint, sizeof d->facts.account_thumbprint);
    log_info("nginx answers challenges of the ACME account with key thumbprint %s",
             thumbprint);
    if (d->served != NULL)
        site_note_change(&d->site);
    else
        daemon_look_after_http_only(d);
}

/* What fails here is tried again, and nothing waits for it. */
static void take_account(struct daemon *d, const struct keys_flow *keys)
{
    bool known;

    if (keys->account_thumbprint[0] != '\0')
        use_account(d, keys->account_thumbprint);
    known = d->facts.account_thumbprint[0] != '\0';
    d->plan_facts.account_due = !known && keys->account_err.kind != ERR_NONE;
    daemon_count(d, PLAN_ACCOUNT, d->plan_facts.account_due);
    if (d->plan_facts.account_due)
        daemon_retry_later(d, PLAN_ACCOUNT, &keys->account_err,
                           keys_pace(d, PLAN_ACCOUNT));
}

static void on_keys_done(void *owner, const struct err *failure)
{
    struct daemon *d = owner;
    struct err err = err_copy(failure);

    if (failure == NULL)
        (void)take_keys(d, &d->flow.keys, &err);
    if (err.kind == ERR_NONE)
        daemon_recall_accounts(d);
    daemon_count(d, PLAN_KEYS, err.kind != ERR_NONE);
    if (err.kind != ERR_NONE)
        daemon_retry_later(d, PLAN_KEYS, &err, keys_pace(d, PLAN_KEYS));
    else
        take_account(d, &d->flow.keys);
    keys_flow_done(&d->flow.keys);
    daemon_flow_ended(d);
}

void daemon_start_keys(struct daemon *d)
{
    d->activity = FETCHING_KEYS;
    keys_flow_start(&d->flow.keys, &d->loop, d->config, &d->agent, on_keys_done, d);
}

/* ---- the stored pair ---- */

static bool has_stock_of(const struct daemon *d, const struct nginx_facts *facts)
{
    BUF_SCOPED stock = {.max = NGINX_CONF_MAX_BYTES};
    BUF_SCOPED own = {.max = NGINX_CONF_MAX_BYTES};
    BUF_SCOPED include = {0};
    const struct nginx_files files = {.site = &stock};
    struct err unusable = ERR_INIT;

    if (nginx_render_stock_http_only(d->config, facts, &stock, &unusable) < 0 ||
        !nginx_has_files(d->config, &files))
        return false;
    return nginx_render(d->config, facts, NGINX_HTTP_ONLY, &own, &include, &unusable) <
               0 ||
           strcmp(buf_str(&own), buf_str(&stock)) != 0;
}

/*
 * Whether nginx has what `prestart` installs, and logs, when it cannot be given the deployment's
 * template. The account may not have been known then.
 */
static bool has_stock(const struct daemon *d)
{
    struct nginx_facts before = d->facts;

    before.account_thumbprint[0] = '\0';
    return has_stock_of(d, &d->facts) || has_stock_of(d, &before);
}

static int render_http_only(const struct daemon *d, struct buf *ret, struct err *err)
{
    BUF_SCOPED include = {0};
    int failed;

    buf_init(ret, NGINX_CONF_MAX_BYTES);
    failed = has_stock(d) ? nginx_render_stock_http_only(d->config, &d->facts, ret, err)
                          : nginx_render(d->config, &d->facts, NGINX_HTTP_ONLY, ret,
                                         &include, err);
    return failed == 0 ? 0 : err_wrap(err, "port 80 is not served");
}

/* A server that is still starting may have read what was there before, and is told when it runs. */
static int tell_nginx(struct daemon *d, struct err *err)
{
    d->unread = nginx_master(d->config) == 0;
    return d->unread ? 0 : nginx_ask_reload(d->config, err);
}

/* Port 80 answers, HTTPS is off. Port 80 must not depend on anything else that may be broken. */
int daemon_serve_http_only(struct daemon *d, struct err *err)
{
    BUF_SCOPED site = {0};
    const struct nginx_files files = {.site = &site};

    site_took_http_only(&d->site);
    if (render_http_only(d, &site, err) < 0)
        return -1;
    if (nginx_has_files(d->config, &files) && nginx_has_read_site(d->config))
        return 0;
    if (nginx_install(d->config, &files, err) < 0)
        return err_wrap(err, "port 80 is not served");
    return tell_nginx(d, err);
}

void daemon_look_after_http_only(struct daemon *d)
{
    BUF_SCOPED site = {0};
    const struct nginx_files files = {.site = &site};
    struct err err = ERR_INIT;

    if (d->served != NULL || d->candidate != NULL || !d->plan_facts.examined)
        return;
    if (render_http_only(d, &site, &err) < 0 ||
        (!nginx_has_files(d->config, &files) && daemon_serve_http_only(d, &err) < 0) ||
        (d->unread && tell_nginx(d, &err) < 0))
        log_debug("%s", err.message);
}

/* What is served from a life with other settings has one that was derived, when ours is not at hand yet. */
const EVP_PKEY *daemon_required_key(const struct daemon *d)
{
    if (d->config->tls.external_key)
        return NULL;
    return d->tls_key != NULL ? d->tls_key : d->served_key;
}

static void take_examined(struct daemon *d, struct examined *examined)
{
    daemon_drop_candidate(d);
    d->candidate = examined->chain;
    d->plan_facts.candidate = d->candidate != NULL;
    d->plan_facts.retry_at_ms[PLAN_APPLYING] = 0;
    if (examined->key == NULL)
        return;
    EVP_PKEY_free(d->tls_key);
    d->tls_key = examined->key;
}

/*
 * One that runs has the pair, and goes on with it until it is told what comes instead. One that starts
 * just now would look for the files in vain, and not come up.
 */
static int withdraw(void *owner, struct err *err)
{
    struct daemon *d = owner;

    return nginx_master(d->config) != 0 ? 0 : daemon_serve_http_only(d, err);
}

static const char *why_no_order(const struct daemon *d)
{
    if (d->deploys_only)
        return "only the daemon orders";
    return d->plan_facts.order_from > (int64_t)time(NULL) ? d->plan_facts.order_why
                                                          : NULL;
}

static void await_rest(struct daemon *d)
{
    uint64_t now_ms = daemon_uptime_ms(d);

    if (d->unfinished_since_ms == 0)
        d->unfinished_since_ms = now_ms;
    d->plan_facts.retry_at_ms[PLAN_EXAMINING] = now_ms + DAEMON_SETTLE_MS;
}

void daemon_examine(struct daemon *d)
{
    struct journal_intent intent;
    struct examine_request request = {
        .store = &d->store,
        .config = d->config,
        .tls_key = daemon_required_key(d),
        .preferred = "",
        .no_order = why_no_order(d),
        .withdraw = withdraw,
        .owner = d,
    };
    struct examined examined;
    struct err err = ERR_INIT;
    int failed;

    if (d->unfinished_since_ms == 0 ||
        daemon_uptime_ms(d) - d->unfinished_since_ms < UNREST_MAX_MS)
        request.rest_ms = DAEMON_SETTLE_MS;
    d->examined_ns = store_changed_ns(&d->store);
    d->looks_for_staged = true;
    if (journal_load_intent(&d->store, &intent)) {
        request.preferred = journal_wanted(&intent);
        log_info("an earlier run was cut off while leaf %s was to be served",
                 request.preferred);
    }
    failed = examine_stored(&request, &examined, &err);
    if (failed == 0 && examined.unfinished) {
        await_rest(d);
        return;
    }
    if (failed == 0) {
        d->unfinished_since_ms = 0;
        take_examined(d, &examined);
    }
    if (failed == 0 && d->candidate == NULL)
        failed = daemon_serve_http_only(d, &err);
    daemon_count(d, PLAN_EXAMINING, failed != 0);
    if (failed != 0)
        daemon_retry_later(d, PLAN_EXAMINING, &err, daemon_local_pace(d, PLAN_EXAMINING));
    d->plan_facts.examined = failed == 0;
}

void daemon_take_staged(struct daemon *d)
{
    struct examined staged;

    if (!d->looks_for_staged || d->candidate != NULL)
        return;
    d->looks_for_staged = false;
    staged = examine_staged(&d->store, d->config, daemon_required_key(d), d->served);
    if (staged.chain != NULL)
        take_examined(d, &staged);
}

/* ---- somebody touched the pair ---- */

/* Whatever else is to be said of it: one that has expired may still be the one that is served. */
static bool holds_pair(const struct store *store, const struct chain *wanted,
                       const EVP_PKEY *wanted_key)
{
    SECRET_SCOPED key_pem = NULL;
    BUF_SCOPED chain_pem = {0};
    struct err ignored = ERR_INIT;
    struct chain *chain = NULL;
    EVP_PKEY *key = NULL;
    bool same = false;

    if (store_load_chain(store, &chain_pem, &ignored) == 0 &&
        store_load_key(store, &key_pem, &ignored) == 0 && key_pem != NULL &&
        chain_parse(chain_pem.data, chain_pem.len, &chain, &ignored) == 0 &&
        keys_from_pem(key_pem, &key, &ignored) == 0)
        same = keys_same(key, wanted_key) &&
               strcmp(chain_leaf(chain)->sha256, chain_leaf(wanted)->sha256) == 0;
    EVP_PKEY_free(key);
    chain_free(chain);
    return same;
}

bool daemon_has_served_pair(const struct daemon *d)
{
    return d->served == NULL || holds_pair(&d->store, d->served, d->served_key);
}

/* The pair that is served, or the one that waits to be. */
static bool is_known_pair(const struct daemon *d)
{
    return (d->served != NULL && daemon_has_served_pair(d)) ||
           (d->candidate != NULL && holds_pair(&d->store, d->candidate, d->tls_key));
}

/* With tls.key: external what was refused may be the only copy of a key: it is kept. */
static int put_back(struct daemon *d, const char *reason, struct err *err)
{
    BUF_SCOPED chain_pem = {.max = CHAIN_PEM_MAX_BYTES};
    SECRET_SCOPED key_pem = NULL;

    if (d->config->tls.external_key && fs_exists(d->store.key) &&
        store_set_aside(&d->store, reason, (int64_t)time(NULL), err) < 0)
        return err_wrap(err, "what was put there cannot be set aside");
    return chain_to_pem(d->served, &chain_pem, err) < 0 ||
                   keys_to_pem(d->served_key, &key_pem, err) < 0 ||
                   store_keep_previous(&d->store, &chain_pem, key_pem, err) < 0
               ? -1
               : store_put_back(&d->store, err);
}

static void refuse_pair(struct daemon *d, const char *reason)
{
    struct err err = ERR_INIT;

    /* Then one waits to be served, which is written there before it is. */
    if (d->served == NULL)
        return;
    daemon_keep_candidate(d);
    if (put_back(d, reason, &err) == 0) {
        log_error(
            "the pair in %s was replaced by one that must not be served: %s. The one "
            "that is served was put back%s",
            d->store.folder, reason,
            d->config->tls.external_key ? "; .cert-manager/set-aside has the other" : "");
        return;
    }
    log_failed(LOG_ERROR, &err,
               "the pair in %s was replaced by one that must not be served: %s. The one "
               "that is served cannot be put back: %s (tried again in %d s)",
               d->store.folder, reason, err.message, UNREADABLE_RETRY_MS / 1000);
    timer_set(&d->settle, UNREADABLE_RETRY_MS);
}

static void judge_replaced(struct daemon *d)
{
    struct examined examined;
    char reason[STORED_REASON_SIZE] = "";
    struct err err = ERR_INIT;

    d->judged = true;
    d->examined_ns = store_changed_ns(&d->store);
    if (examine_replaced(&d->store, d->config, daemon_required_key(d), &examined, reason,
                         &err) < 0) {
        log_failed(LOG_WARNING, &err,
                   "the pair in %s was touched and cannot be judged: %s (tried again in "
                   "%d s)",
                   d->store.folder, err.message, UNREADABLE_RETRY_MS / 1000);
        timer_set(&d->settle, UNREADABLE_RETRY_MS);
    } else if (examined.chain == NULL) {
        refuse_pair(d, reason);
    } else if (d->served != NULL && strcmp(chain_leaf(examined.chain)->sha256,
                                           chain_leaf(d->served)->sha256) == 0) {
        refuse_pair(d, "its key is missing");
        chain_free(examined.chain);
        EVP_PKEY_free(examined.key);
    } else {
        log_info("somebody has put another certificate into %s: %s", d->store.folder,
                 reason);
        take_examined(d, &examined);
    }
}

/* It has to rest, but somebody who never stops must not keep it from being judged. */
void daemon_folder_touched(struct daemon *d)
{
    uint64_t now_ms = daemon_uptime_ms(d);
    uint64_t passed_ms;

    if (d->judged || !timer_is_set(&d->settle))
        d->touched_at_ms = now_ms;
    d->judged = false;
    passed_ms = now_ms - d->touched_at_ms;
    if (passed_ms + DAEMON_SETTLE_MS <= UNREST_MAX_MS)
        timer_set(&d->settle, DAEMON_SETTLE_MS);
    else if (!timer_is_set(&d->settle))
        timer_set(&d->settle, 0);
}

/* While nothing is served the pair there was judged, and is not served, or is not there. */
static bool has_other_pair(const struct daemon *d)
{
    int64_t changed_ns = store_changed_ns(&d->store);
    bool may_be_news = d->served != NULL || (d->plan_facts.examined && changed_ns != 0 &&
                                             changed_ns != d->examined_ns);

    return may_be_news && !is_known_pair(d);
}

/*
 * Somebody who touches it is noticed by the watch, unless the folder itself was replaced, but not before
 * the loop comes to it.
 */
void daemon_look_at_folder(struct daemon *d)
{
    if (!timer_is_set(&d->settle) && has_other_pair(d))
        daemon_folder_touched(d);
}

bool daemon_has_unjudged_pair(struct daemon *d)
{
    daemon_look_at_folder(d);
    return timer_is_set(&d->settle) && !d->judged && has_other_pair(d);
}

void daemon_on_folder_settled(void *owner)
{
    struct daemon *d = owner;

    if (d->stopping)
        return;
    /* An apply flow writes there itself, and what a CA is about to give comes first. */
    if (d->activity != IDLE && (d->activity != ISSUING || d->served == NULL)) {
        timer_set(&d->settle, DAEMON_SETTLE_MS);
        return;
    }
    if (d->served == NULL && d->candidate == NULL)
        d->plan_facts.examined = false;
    else if (!is_known_pair(d))
        judge_replaced(d);
    d->look_at_ms = 0; /* nginx may have been made to read what was there */
    if (d->activity == IDLE)
        daemon_proceed(d);
}
