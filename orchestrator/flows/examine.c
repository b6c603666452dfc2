#include "flows/examine.h"

#include "base/log.h"
#include "base/text.h"
#include "domain/keys.h"
#include "domain/stored.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* When FORCE_RM_CERT_FILES acted last, Unix seconds as text. */
#define FORCED_STATE "forced-removal"

struct loaded {
    struct chain *chain;
    EVP_PKEY *key;
    struct err damage; /* of the first file that cannot be used */
    struct stored_pair pair;
};

static void load_chain(const struct store *store, struct loaded *loaded)
{
    BUF_SCOPED pem = {0};

    if (!fs_exists(store->chain))
        return;
    loaded->pair.present = true;
    if (store_load_chain(store, &pem, &loaded->damage) < 0 ||
        chain_parse(pem.data, pem.len, &loaded->chain, &loaded->damage) < 0)
        err_wrap(&loaded->damage, "cert.pem cannot be used");
}

static void load_key(const struct store *store, struct loaded *loaded)
{
    SECRET_SCOPED pem = NULL;
    struct err err = ERR_INIT;

    if (!fs_exists(store->key))
        return;
    loaded->pair.present = true;
    if ((store_load_key(store, &pem, &err) < 0 ||
         (pem != NULL && keys_from_pem(pem, &loaded->key, &err) < 0)) &&
        loaded->damage.kind == ERR_NONE) {
        loaded->damage = err;
        err_wrap(&loaded->damage, "key.pem cannot be used");
    }
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

/* The mark is written first: if it cannot be kept, every restart would order a
 * certificate. */
static int mark_forced(const struct store *store, int64_t now, struct err *err)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRId64 "\n", now);
    return store_write_state(store, FORCED_STATE, text, err);
}

static int set_aside(const struct store *store, const struct stored_rules *rules,
                     const char *reason, int64_t now, struct err *err)
{
    if (stored_force_acts(rules, now) && mark_forced(store, now, err) < 0)
        return -1;
    if (store_set_aside(store, reason, now, err) < 0)
        return err_wrap(err, "cannot set the stored pair aside (%s)", reason);
    log_warning("the stored pair is set aside in %s/set-aside: %s", store->state, reason);
    return 0;
}

/*
 * A chain that an earlier run obtained and could not bring live, say because nginx refused
 * its configuration: without it every restart would order another one. It is judged as if
 * it lay there with our key, and is of use when it outlives what is live.
 */
static struct chain *find_staged(const struct store *store,
                                 const struct stored_rules *rules,
                                 const struct chain *live, int64_t now)
{
    struct stored_rules unforced = *rules;
    struct stored_pair pair = {.present = true, .key = rules->derived};
    char reason[STORED_REASON_SIZE];
    char date[TEXT_TIME_SIZE];
    struct err unusable = ERR_INIT;
    struct chain *staged = NULL;
    BUF_SCOPED pem = {0};

    unforced.force_rm = false;
    if (store_load_staged_chain(store, &pem, &unusable) < 0 || pem.len == 0 ||
        chain_parse(pem.data, pem.len, &staged, &unusable) < 0)
        return NULL;
    pair.chain = staged;
    if (stored_judge(&pair, &unforced, now, reason) == STORED_SERVE &&
        (live == NULL || chain_leaf(staged)->not_after > chain_leaf(live)->not_after)) {
        text_time(date, chain_leaf(staged)->not_after);
        log_info(
            "a certificate obtained earlier, valid until %s, still waits to be served",
            date);
        return staged;
    }
    chain_free(staged);
    return NULL;
}

int examine_stored(const struct store *store, const struct config *config,
                   const EVP_PKEY *tls_key, struct chain **ret_chain, struct err *err)
{
    struct loaded loaded = {0};
    const int64_t now = (int64_t)time(NULL);
    const struct stored_rules rules = {
        .domain = config->domain,
        .development = config->development,
        .production = !config->development && !config->acme.staging,
        .derived = tls_key,
        .force_rm = config->tls.force_rm,
        .forced_at = config->tls.force_rm ? last_forced(store) : 0,
    };
    const bool forced = stored_force_acts(&rules, now);
    char reason[STORED_REASON_SIZE];
    enum stored_verdict verdict;
    struct chain *staged;

    load_chain(store, &loaded);
    load_key(store, &loaded);
    loaded.pair.chain = loaded.chain;
    loaded.pair.key = loaded.key;
    loaded.pair.damage = loaded.damage.kind == ERR_NONE ? NULL : loaded.damage.message;
    verdict = stored_judge(&loaded.pair, &rules, now, reason);
    *ret_chain = NULL;
    if (verdict == STORED_SET_ASIDE) {
        if (set_aside(store, &rules, reason, now, err) < 0) {
            loaded_done(&loaded);
            return -1;
        }
    } else {
        log_info("%s", reason);
        if (config->tls.force_rm && loaded.pair.present)
            log_warning(
                "FORCE_RM_CERT_FILES is still set; it acts at most once in 24 "
                "hours, so the stored pair is kept. Remove the setting");
    }
    if (verdict == STORED_SERVE) {
        *ret_chain = loaded.chain;
        loaded.chain = NULL;
    }
    staged = forced ? NULL : find_staged(store, &rules, *ret_chain, now);
    if (staged != NULL) {
        chain_free(*ret_chain);
        *ret_chain = staged;
    }
    loaded_done(&loaded);
    return 0;
}
