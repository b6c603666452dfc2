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
    root = json_pack("{s:s, s:i}", "fullchain", buf_str(&chain), "timeout_s",
                     (int)deployment->timeout_s);
    if (root != NULL && key != NULL &&
        json_object_set_new(root, "key", json_string((const char *)key->bytes)) < 0) {
        json_decref(root);
        root = NULL;
    }
    return json_to_text(root, 0, "the certificate cannot be written as JSON", ret, err);
}

/* 0 when it is missing, -1 when it is out of range. */
static json_int_t timeout_of(const json_t *root)
{
    const json_t *timeout = json_object_get(root, "timeout_s");
    json_int_t value = json_integer_value(timeout);

    return timeout == NULL || (json_is_integer(timeout) && value >= 0 &&
                               value <= DEPLOYMENT_TIMEOUT_MAX_S)
               ? value
               : -1;
}

static int parse_members(struct deployment *ret, const json_t *root, struct err *err)
{
    const json_t *chain = json_object_get(root, "fullchain");
    const json_t *key = json_object_get(root, "key");
    SECRET_SCOPED key_pem = NULL;

    if (!json_is_string(chain) || (key != NULL && !json_is_string(key)) ||
        timeout_of(root) < 0)
        return err_set(
            err, ERR_CONFIG,
            "expected {\"fullchain\": PEM, \"key\": PEM, \"timeout_s\": %d}, all "
            "but the first may be missing, and a timeout is at most %d",
            DEPLOYMENT_TIMEOUT_S, DEPLOYMENT_TIMEOUT_MAX_S);
    if (key != NULL && json_string_length(key) > KEYS_PEM_MAX_BYTES)
        return err_set(err, ERR_CRYPTO, "private key: more than %d bytes",
                       KEYS_PEM_MAX_BYTES);
    if (key != NULL) {
        key_pem = secret_copy(json_string_value(key), json_string_length(key));
        if (key_pem == NULL)
            return err_set(err, ERR_SYS, "private key: no secure memory left");
    }
    if (deployment_parse(ret, json_string_value(chain), json_string_length(chain),
                         key_pem, err) < 0)
        return -1;
    ret->timeout_s = (unsigned)timeout_of(root);
    return 0;
}

int deployment_from_json(struct deployment *ret, const char *text, size_t len,
                         struct err *err)
{
    json_error_t where; /* its text quotes what stands there */
    json_t *root = json_load_whole(text, len, JSON_REJECT_DUPLICATES, &where);
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
            "served: have it issued for that (cert-manager csr), or set tls.key: "
            "external");
    if (derived == NULL && deployment->key == NULL)
        return err_set(err, ERR_CRYPTO,
                       "the certificate is for another key than the one at hand, and did "
                       "not bring its own");
    return 0;
}

/* Whether `chain` may be followed by an older one: it has to go anyway. */
static bool must_go(const struct chain *chain, const struct stored_rules *rules,
                    int64_t now)
{
    return chain_leaf(chain)->not_after <= now || chain_leaf(chain)->self_signed ||
           chain_lacks(chain, rules->domains) != NULL ||
           (rules->derived != NULL && !chain_has_key(chain, rules->derived));
}

static int check_age(const struct deployment *deployment, const struct chain *other,
                     const char *what, const struct stored_rules *rules, int64_t now,
                     struct err *err)
{
    int64_t from = chain_leaf(deployment->chain)->not_before;
    char date[TEXT_TIME_SIZE];
    char other_date[TEXT_TIME_SIZE];

    if (other == NULL || must_go(other, rules, now) ||
        from >= chain_leaf(other)->not_before)
        return 0;
    return err_set(err, ERR_CRYPTO,
                   "the certificate is older than the one that %s: valid from %s, that "
                   "one from %s",
                   what, text_time(date, from),
                   text_time(other_date, chain_leaf(other)->not_before));
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
    return check_age(deployment, rules->served, "is served", &unforced, now, err) < 0
               ? -1
               : check_age(deployment, rules->waits, "waits to be served", &unforced, now,
                           err);
}
