#include "flows/examine.h"

#include "base/log.h"
#include "base/text.h"
#include "domain/keys.h"
#include "domain/stored.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* When FORCE_RM_CERT_FILES acted last, Unix seconds as text. */
#define FORCED_STATE "forced-removal"

struct loaded {
    struct chain *chain;
    EVP_PKEY *key;
    struct err damage; /* of the first file that cannot be used */
    struct stored_pair pair;
};

/* What cannot be read now may be read later: only what can be read and is wrong is damage. */
static int note_damage(struct loaded *loaded, struct err *found, const char *name,
                       struct err *err)
{
    err_wrap(found, "%s cannot be used", name);
    if (found->kind == ERR_SYS && found->code != ELOOP) {
        *err = *found;
        return -1;
    }
    if (loaded->damage.kind == ERR_NONE)
        loaded->damage = *found;
    return 0;
}

static int load_chain(const struct store *store, struct loaded *loaded, struct err *err)
{
    struct err found = ERR_INIT;
    BUF_SCOPED pem = {0};

    if (!fs_exists(store->chain))
        return 0;
    loaded->pair.present = true;
    if (store_load_chain(store, &pem, &found) < 0 ||
        chain_parse(pem.data, pem.len, &loaded->chain, &found) < 0)
        return note_damage(loaded, &found, "cert.pem", err);
    return 0;
}

static int load_key(const struct store *store, struct loaded *loaded, struct err *err)
{
    SECRET_SCOPED pem = NULL;
    struct err found = ERR_INIT;

    if (!fs_exists(store->key))
        return 0;
    loaded->pair.present = true;
    if (store_load_key(store, &pem, &found) < 0 ||
        (pem != NULL && keys_from_pem(pem, &loaded->key, &found) < 0))
        return note_damage(loaded, &found, "key.pem", err);
    return 0;
}

static int load(const struct store *store, struct loaded *loaded, struct err *err)
{
    if (load_chain(store, loaded, err) < 0 || load_key(store, loaded, err) < 0)
        return -1;
    loaded->pair.chain = loaded->chain;
    loaded->pair.key = loaded->key;
    loaded->pair.damage = loaded->damage.kind == ERR_NONE ? NULL : loaded->damage.message;
    return 0;
}

static void loaded_done(struct loaded *loaded)
{
    chain_free(loaded->chain);
    EVP_PKEY_free(loaded->key);
}

static int64_t last_forced(const struct store *store)
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED text = {0};

    if (store_read_state(store, FORCED_STATE, &text, &ignored) < 0)
        return 0;
    return strtoll(buf_str(&text), NULL, 10);
}

/*
 * The mark is written first: if it cannot be kept, every restart would order a
 * certificate.
 */
static int mark_forced(const struct store *store, int64_t now, struct err *err)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRId64 "\n", now);
    return store_write_state(store, FORCED_STATE, text, err);
}

static int set_aside(const struct examine_request *request, const char *reason,
                     int64_t now, struct err *err)
{
    const struct store *store = request->store;

    if (request->withdraw(request->owner, err) < 0 ||
        store_set_aside(store, reason, now, err) < 0)
        return err_wrap(err, "cannot set the stored pair aside (%s)", reason);
    log_warning("the stored pair is set aside in %s/set-aside: %s", store->state, reason);
    return 0;
}

/*
 * FORCE_RM_CERT_FILES acts when its mark can be kept, otherwise every restart would order a
 * certificate, and when the CA may be asked. When it cannot act the pair is judged without it: HTTPS comes first.
 */
static void decide_force(const struct store *store, struct stored_rules *rules,
                         const struct loaded *loaded, const char *no_order, int64_t now)
{
    struct err err = ERR_INIT;

    if (!rules->force_rm)
        return;
    if (!stored_force_acts(rules, now)) {
        if (loaded->pair.present)
            log_warning(
                "FORCE_RM_CERT_FILES is still set; it acts at most once in 24 "
                "hours, so the stored pair is kept. Remove the setting");
    } else if (no_order != NULL || mark_forced(store, now, &err) < 0) {
        rules->force_rm = false;
        log_warning("FORCE_RM_CERT_FILES cannot act, the stored pair is kept: %s",
                    no_order != NULL ? no_order : err.message);
    }
}

/* ---- chains in the state folder ---- */

/* One that may be served, judged as if it lay there with the key; NULL when it may not. */
static struct chain *
load_usable(const struct store *store,
            int (*load_pem)(const struct store *, struct buf *, struct err *),
            const EVP_PKEY *key, const struct stored_rules *rules, int64_t now)
{
    struct stored_rules unforced = *rules;
    struct stored_pair pair = {.present = true, .key = key};
    char reason[STORED_REASON_SIZE];
    struct err unusable = ERR_INIT;
    struct chain *chain = NULL;
    BUF_SCOPED pem = {0};

    unforced.force_rm = false;
    if (load_pem(store, &pem, &unusable) < 0 || pem.len == 0 ||
        chain_parse(pem.data, pem.len, &chain, &unusable) < 0)
        return NULL;
    pair.chain = chain;
    if (stored_judge(&pair, &unforced, now, reason) == STORED_SERVE)
        return chain;
    chain_free(chain);
    return NULL;
}

static bool is_leaf(const struct chain *chain, const char *leaf)
{
    return chain != NULL && strcmp(chain_leaf(chain)->sha256, leaf) == 0;
}

/*
 * A chain that an earlier run obtained and could not bring live, say because nginx refused
 * its configuration: without it every restart would order another one.
 */
static struct examined load_staged(const struct store *store,
                                   const struct stored_rules *rules, int64_t now)
{
    struct examined staged = {.chain = NULL};
    struct err unusable = ERR_INIT;
    SECRET_SCOPED pem = NULL;

    if (rules->derived == NULL && store_load_staged_key(store, &pem, &unusable) == 0 &&
        pem != NULL)
        (void)keys_from_pem(pem, &staged.key, &unusable);
    staged.chain =
        load_usable(store, store_load_staged_chain,
                    rules->derived == NULL ? staged.key : rules->derived, rules, now);
    return staged;
}

static void examined_done(struct examined *examined)
{
    chain_free(examined->chain);
    EVP_PKEY_free(examined->key);
    *examined = (struct examined){.chain = NULL};
}

static void log_staged(const struct chain *staged)
{
    char date[TEXT_TIME_SIZE];

    text_time(date, chain_leaf(staged)->not_after);
    log_info("a certificate obtained earlier, valid until %s, still waits to be served",
             date);
}

/* An earlier run was cut off on its way back: the disk gets there first, and is judged then. */
static int go_back(const struct store *store, const struct stored_rules *rules,
                   const char *preferred, int64_t now, struct loaded *loaded,
                   struct err *err)
{
    struct chain *previous;
    struct err failure = ERR_INIT;
    bool found;

    if (preferred[0] == '\0' || is_leaf(loaded->chain, preferred))
        return 0;
    previous = load_usable(store, store_load_previous_chain, rules->derived, rules, now);
    found = is_leaf(previous, preferred);
    chain_free(previous);
    if (!found)
        return 0;
    if (store_go_back(store, &failure) < 0) {
        log_warning(
            "the certificate of before an unfinished switch cannot be put back: %s",
            failure.message);
        return 0;
    }
    log_info("the certificate of before an unfinished switch is served again");
    loaded_done(loaded);
    *loaded = (struct loaded){.chain = NULL};
    return load(store, loaded, err);
}

/* ---- judgement ---- */

static void take_pair(struct loaded *loaded, bool external, struct examined *ret)
{
    ret->chain = loaded->chain;
    loaded->chain = NULL;
    if (external) {
        ret->key = loaded->key;
        loaded->key = NULL;
    }
}

/* A pair is two files, and whoever brings one writes them one after the other. */
static bool may_be_unfinished(const struct examine_request *request)
{
    struct timespec now;
    int64_t rested_ms;

    clock_gettime(CLOCK_REALTIME, &now);
    rested_ms = now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000 -
                store_changed_ns(request->store) / 1000000;
    /* A server of files may have a clock that is a little ahead; else ours was set. */
    return rested_ms > -request->rest_ms && rested_ms < request->rest_ms;
}

/* Judges what `loaded` holds; sets it aside when it must not stay. */
static int judge(const struct examine_request *request, struct stored_rules *rules,
                 struct loaded *loaded, int64_t now, struct examined *ret,
                 struct err *err)
{
    const struct store *store = request->store;
    char reason[STORED_REASON_SIZE];
    enum stored_verdict verdict;
    struct examined staged;

    decide_force(store, rules, loaded, request->no_order, now);
    verdict = stored_judge(&loaded->pair, rules, now, reason);
    if (verdict == STORED_UNKNOWN)
        return err_sys(err, ENOMEM, "%s", reason);
    if (verdict == STORED_SET_ASIDE && !stored_force_acts(rules, now) &&
        may_be_unfinished(request)) {
        log_info(
            "the stored pair has just been changed, and is judged when it has "
            "rested: %s",
            reason);
        ret->unfinished = true;
        return 0;
    }
    if (verdict != STORED_SET_ASIDE)
        log_info("%s", reason);
    else if (set_aside(request, reason, now, err) < 0) {
        struct err ignored = ERR_INIT;

        if (stored_force_acts(rules, now)) /* it has not: the next try may */
            (void)mark_forced(store, 0, &ignored);
        return -1;
    }
    if (verdict == STORED_SERVE)
        take_pair(loaded, rules->derived == NULL, ret);
    if (stored_force_acts(rules, now))
        return 0;
    staged = load_staged(store, rules, now);
    /* What can be served already comes first: the way back of the other one leads to it. */
    if (staged.chain == NULL ||
        (ret->chain != NULL && !is_leaf(staged.chain, request->preferred))) {
        examined_done(&staged);
        return 0;
    }
    log_staged(staged.chain);
    examined_done(ret);
    *ret = staged;
    return 0;
}

struct stored_rules examine_rules(const struct config *config, const EVP_PKEY *tls_key)
{
    return (struct stored_rules){
        .domains = &config->domains,
        .development = config->development,
        .production = !config->development && !config->acme.staging,
        .derived = tls_key,
    };
}

int examine_stored(const struct examine_request *request, struct examined *ret,
                   struct err *err)
{
    const struct store *store = request->store;
    const struct config *config = request->config;
    struct stored_rules rules = examine_rules(config, request->tls_key);
    struct loaded loaded = {0};
    int64_t now = (int64_t)time(NULL);
    bool finished;
    int failed;

    rules.force_rm = config->tls.force_rm;
    rules.forced_at = config->tls.force_rm ? last_forced(store) : 0;
    *ret = (struct examined){.chain = NULL};
    /* Half a promotion must not be judged. */
    if (store_finish_promotion(store, &finished, err) < 0)
        return err_wrap(err, "cannot finish the promotion of a pair");
    failed = load(store, &loaded, err);
    if (failed == 0)
        failed = go_back(store, &rules, request->preferred, now, &loaded, err);
    if (failed == 0)
        failed = judge(request, &rules, &loaded, now, ret, err);
    loaded_done(&loaded);
    return failed;
}

/* One with all names goes before one that lacks some; else the longer life counts. */
static bool is_better(const struct chain *chain, const struct chain *other,
                      const struct config_list *names)
{
    bool whole = chain_lacks(chain, names) == NULL;

    if (whole != (chain_lacks(other, names) == NULL))
        return whole;
    return chain_leaf(chain)->not_after > chain_leaf(other)->not_after;
}

struct examined examine_staged(const struct store *store, const struct config *config,
                               const EVP_PKEY *tls_key, const struct chain *live)
{
    const struct stored_rules rules = examine_rules(config, tls_key);
    struct examined staged = load_staged(store, &rules, (int64_t)time(NULL));

    if (staged.chain != NULL && is_better(staged.chain, live, &config->domains))
        log_staged(staged.chain);
    else
        examined_done(&staged);
    return staged;
}

int examine_replaced(const struct store *store, const struct config *config,
                     const EVP_PKEY *tls_key, struct examined *ret,
                     char ret_reason[STORED_REASON_SIZE], struct err *err)
{
    struct loaded loaded = {0};
    struct stored_rules rules = examine_rules(config, tls_key);
    int failed;

    *ret = (struct examined){.chain = NULL};
    failed = load(store, &loaded, err);
    if (failed == 0 && stored_judge(&loaded.pair, &rules, (int64_t)time(NULL),
                                    ret_reason) == STORED_SERVE)
        take_pair(&loaded, tls_key == NULL, ret);
    loaded_done(&loaded);
    return failed;
}
