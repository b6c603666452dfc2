#include "domain/deployment.h"

#include "base/text.h"
#include "domain/json_text.h"
#include "domain/keys.h"

#include <jansson.h>
#include <string.h>

void deployment_done(struct deployment *deployment)
{
    chain_free(deployment->chain);
    EVP_PKEY_free(deployment->key);
    *deployment = (struct deployment){.chain = NULL};
}

int deployment_parse(struct deployment *ret, const void *chain, size_t chain_len,
                     const struct secret *key, struct err *err)
{
    *ret = (struct deployment){.chain = NULL};
    if (chain_parse(chain, chain_len, &ret->chain, err) < 0)
        return -1;
    if (key == NULL)
        return 0;
    if (keys_from_pem(key, &ret->key, err) == 0) {
        if (chain_has_key(ret->chain, ret->key))
            return 0;
        err_set(err, ERR_CRYPTO, "the private key does not belong to the certificate");
    }
    deployment_done(ret);
    return -1;
}

/* ---- as JSON ---- */

int deployment_to_json(const struct deployment *deployment, struct buf *ret,
                       struct err *err)
{
    BUF_SCOPED chain = {.max = CHAIN_PEM_MAX_BYTES};
    SECRET_SCOPED key = NULL;
    json_t *root;

    if (chain_to_pem(deployment->chain, &chain, err) < 0 ||
        (deployment->key != NULL && keys_to_pem(deployment->key, &key, err) < 0))
        return -1;
    root = json_pack("{s:s}", "fullchain", buf_str(&chain));
    if (root != NULL && key != NULL &&
        json_object_set_new(root, "key", json_string((const char *)key->bytes)) < 0) {
        json_decref(root);
        root = NULL;
    }
    return json_to_text(root, 0, "the certificate cannot be written as JSON", ret, err);
}

static int parse_members(struct deployment *ret, const json_t *root, struct err *err)
{
    const json_t *chain = json_object_get(root, "fullchain");
    const json_t *key = json_object_get(root, "key");
    SECRET_SCOPED key_pem = NULL;

    if (!json_is_string(chain) || (key != NULL && !json_is_string(key)) ||
        json_object_size(root) != (key == NULL ? 1 : 2))
        return err_set(err, ERR_CONFIG,
                       "expected {\"fullchain\": PEM, \"key\": PEM}, \"key\" may be "
                       "missing");
    if (key != NULL && json_string_length(key) > KEYS_PEM_MAX_BYTES)
        return err_set(err, ERR_CRYPTO, "private key: more than %d bytes",
                       KEYS_PEM_MAX_BYTES);
    if (key != NULL) {
        key_pem = secret_copy(json_string_value(key), json_string_length(key));
        if (key_pem == NULL)
            return err_set(err, ERR_SYS, "private key: no secure memory left");
    }
    return deployment_parse(ret, json_string_value(chain), json_string_length(chain),
                            key_pem, err);
}

int deployment_from_json(struct deployment *ret, const char *text, size_t len,
                         struct err *err)
{
    json_error_t where; /* its text quotes what stands there */
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    int failed;

    *ret = (struct deployment){.chain = NULL};
    if (root == NULL)
        return err_set(err, ERR_CONFIG, "no JSON from line %d, column %d on", where.line,
                       where.column);
    failed = parse_members(ret, root, err);
    json_decref(root);
    return failed;
}

/* ---- whether it may be served ---- */

/* Which key it has to be is the first question, and what to do about it the second. */
static int check_key(const struct deployment *deployment, const EVP_PKEY *derived,
                     struct err *err)
{
    if (derived != NULL && !chain_has_key(deployment->chain, derived))
        return err_set(
            err, ERR_CRYPTO,
            "the certificate is for another key than the derived one, which alone is "
            "served: have it issued for that (a CSR with our key), or set tls.key: "
            "external");
    if (derived == NULL && deployment->key == NULL)
        return err_set(err, ERR_CRYPTO,
                       "the certificate is for another key than the one at hand, and did "
                       "not bring its own");
    return 0;
}

static bool may_be_older(const struct deployment_rules *rules, int64_t now)
{
    const struct chain *served = rules->served;

    return served == NULL || chain_leaf(served)->not_after <= now ||
           chain_lacks(served, rules->stored.domains) != NULL ||
           (rules->stored.derived != NULL &&
            !chain_has_key(served, rules->stored.derived));
}

static int check_age(const struct deployment *deployment,
                     const struct deployment_rules *rules, int64_t now, struct err *err)
{
    int64_t its = chain_leaf(deployment->chain)->not_before;
    char its_date[TEXT_TIME_SIZE];
    char served_date[TEXT_TIME_SIZE];

    if (may_be_older(rules, now) || its >= chain_leaf(rules->served)->not_before)
        return 0;
    return err_set(err, ERR_CRYPTO,
                   "the certificate is older than the one that is served: valid from %s, "
                   "that one from %s",
                   text_time(its_date, its),
                   text_time(served_date, chain_leaf(rules->served)->not_before));
}

int deployment_check(const struct deployment *deployment,
                     const struct deployment_rules *rules, int64_t now, struct err *err)
{
    const struct stored_pair as_stored = {
        .present = true,
        .chain = deployment->chain,
        .key = deployment->key,
    };
    struct stored_rules unforced = rules->stored;
    char why[STORED_REASON_SIZE];

    unforced.force_rm = false;
    if (check_key(deployment, unforced.derived, err) < 0 ||
        chain_check_fit(deployment->chain, unforced.domains, now, err) < 0)
        return -1;
    /* Or a restart would set it aside. */
    if (stored_judge(&as_stored, &unforced, now, why) != STORED_SERVE)
        return err_set(err, ERR_CRYPTO, "%s", why);
    return check_age(deployment, rules, now, err);
}
