/* Keys, certificates and signatures. */
#include "scenario.h"

#include "base/secret.h"
#include "domain/account.h"
#include "domain/chain.h"
#include "domain/csr.h"
#include "domain/evidence.h"
#include "domain/jose.h"
#include "domain/keys.h"
#include "domain/selfsigned.h"
#include "domain/stored.h"
#include "support/names.h"
#include "support/pki.h"
#include "trial.h"

#include <jansson.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

#define DOMAIN "app.example.test"

static int keys(struct scene *scene)
{
    SECRET_SCOPED material = keys_development_material();
    SECRET_SCOPED pem = NULL;
    EVP_PKEY *key = NULL, *again = NULL;
    char id[KEYS_ID_SIZE];
    int result = material == NULL ? err_sys(&scene->err, 12, "no secure memory")
                                  : keys_derive(material, &key, &scene->err);

    if (result == 0)
        result = keys_to_pem(key, &pem, &scene->err);
    if (result == 0)
        result = keys_from_pem(pem, &again, &scene->err);
    if (result == 0)
        result = keys_id(again, id, &scene->err);
    if (result == 0)
        scene_add(scene, id);
    EVP_PKEY_free(key);
    EVP_PKEY_free(again);
    return result;
}

static int chain(struct scene *scene)
{
    struct chain *chain = NULL;
    BUF_SCOPED pem;
    char names[256];
    int result = chain_parse(scene_chain(), strlen(scene_chain()), &chain, &scene->err);

    buf_init(&pem, CHAIN_PEM_MAX_BYTES);
    if (result == 0)
        result = chain_check_issued(chain, scene_key(), names_of(DOMAIN), PKI_NOW,
                                    &scene->err);
    if (result == 0)
        result = chain_to_pem(chain, &pem, &scene->err);
    if (result == 0)
        result = chain_leaf_der(chain, &pem, &scene->err);
    if (result == 0) {
        chain_list_names(chain, names, sizeof names);
        scene_add(scene, buf_str(&pem));
    }
    chain_free(chain);
    return result;
}

/* Whatever fails: a pair of another key is never served. */
static int judge_foreign_pair(struct scene *scene)
{
    struct stored_rules rules = {
        .domains = names_of(DOMAIN), .production = true, .derived = scene_key()};
    struct stored_pair pair = {.present = true, .key = scene_other_key()};
    struct chain *chain = NULL;
    char why[STORED_REASON_SIZE];

    if (chain_parse(scene_other_chain(), strlen(scene_other_chain()), &chain,
                    &scene->err) < 0)
        return -1;
    pair.chain = chain;
    scene_add(scene, stored_judge(&pair, &rules, PKI_NOW, why) == STORED_SERVE
                         ? "served"
                         : "not served");
    chain_free(chain);
    return 0;
}

/* And a good one is never moved away for want of memory. */
static int judge_good_pair(struct scene *scene)
{
    struct stored_rules rules = {
        .domains = names_of(DOMAIN), .production = true, .derived = scene_key()};
    struct stored_pair pair = {.present = true, .key = scene_key()};
    struct chain *chain = NULL;
    char why[STORED_REASON_SIZE];
    enum stored_verdict verdict;

    if (chain_parse(scene_chain(), strlen(scene_chain()), &chain, &scene->err) < 0)
        return -1;
    pair.chain = chain;
    verdict = stored_judge(&pair, &rules, PKI_NOW, why);
    scene_add(scene, verdict == STORED_SERVE ? "served" : why);
    chain_free(chain);
    return verdict == STORED_UNKNOWN ? err_sys(&scene->err, 12, "%s", why) : 0;
}

static int check_trusted(struct scene *scene)
{
    const char *root_pem = strstr(scene_chain() + 10, "-----BEGIN");
    struct chain *chain = NULL;
    BIO *bio = NULL;
    X509 *root = NULL;
    X509_STORE *roots;
    int result;

    faults_pause();
    bio = BIO_new_mem_buf(root_pem, -1);
    root = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    roots = X509_STORE_new();
    X509_STORE_add_cert(roots, root);
    faults_go_on();
    result = chain_parse(scene_chain(), strlen(scene_chain()), &chain, &scene->err);
    if (result == 0)
        result = chain_check_trusted(chain, roots, PKI_NOW, &scene->err);
    chain_free(chain);
    X509_STORE_free(roots);
    X509_free(root);
    BIO_free(bio);
    return result;
}

static int sign_request(struct scene *scene)
{
    BUF_SCOPED request;

    buf_init(&request, CSR_MAX_BYTES);
    if (csr_build(scene_key(), names_of(DOMAIN " www.example.test"), &request,
                  &scene->err) < 0)
        return -1;
    scene_add(scene, request.len > 100 ? "a request" : "none");
    return 0;
}

static int sign_own(struct scene *scene)
{
    struct chain *chain = NULL;
    BUF_SCOPED pem;
    char names[256];

    buf_init(&pem, CHAIN_PEM_MAX_BYTES);
    if (selfsigned_build(scene_key(), names_of(DOMAIN), PKI_NOW, &pem, &scene->err) < 0)
        return -1;
    faults_pause();
    if (chain_parse(buf_str(&pem), pem.len, &chain, &scene->err) == 0) {
        chain_list_names(chain, names, sizeof names);
        scene_add(scene, names);
    }
    chain_free(chain);
    faults_go_on();
    return 0;
}

static int sign_for_acme(struct scene *scene)
{
    char thumbprint[JOSE_THUMBPRINT_SIZE];
    SECRET_SCOPED private = NULL;
    SECRET_SCOPED text = secret_copy("c2VjcmV0", 8);
    SECRET_SCOPED hmac = NULL;
    json_t *jwk = NULL, *binding = NULL;
    BUF_SCOPED request;
    int result = text == NULL ? err_sys(&scene->err, 12, "no secure memory") : 0;

    buf_init(&request, 64 * 1024);
    if (result == 0)
        result = jose_public_jwk(scene_key(), &jwk, &scene->err);
    if (result == 0)
        result = jose_private_jwk(scene_key(), &private, &scene->err);
    if (result == 0)
        result = jose_thumbprint(scene_key(), thumbprint, &scene->err);
    if (result == 0)
        result = jose_read_hmac_key(text, &hmac, &scene->err);
    if (result == 0)
        result = jose_external_binding(scene_key(), "kid", hmac, "https://a/b", &binding,
                                       &scene->err);
    if (result == 0)
        result = jose_sign_request(scene_key(), "https://a/b", "nonce", NULL, "{}",
                                   &request, &scene->err);
    if (result == 0)
        result = jose_sign_request(scene_key(), "https://a/b", "nonce", "https://a/1", "",
                                   &request, &scene->err);
    if (result == 0)
        scene_add(scene, thumbprint);
    json_decref(jwk);
    json_decref(binding);
    return result;
}

static int remember_account(struct scene *scene)
{
    const struct account account = {.url = "https://ca.example/acct/1",
                                    .caa_identity = "ca.example"};
    const struct account_owner owner = {.directory = "https://ca.example/dir",
                                        .version = "v1",
                                        .thumbprint = "abc",
                                        .seal_key = scene_key()};
    BUF_SCOPED json;

    buf_init(&json, ACCOUNT_MEMORY_MAX_BYTES);
    if (account_note("", &owner, &account, &json, &scene->err) < 0)
        return -1;
    scene_add(scene, json.len > 0 ? "noted" : "nothing");
    return 0;
}

const struct scenario scenarios_of_crypto[] = {
    {"a key is derived, written and read", NULL, keys, NULL, NULL, false},
    {"a chain is read, checked and written", NULL, chain, NULL, NULL, false},
    {"a foreign pair is judged", NULL, judge_foreign_pair, NULL, NULL, false},
    {"a good pair is judged", NULL, judge_good_pair, NULL, NULL, false},
    {"a chain is verified", NULL, check_trusted, NULL, NULL, false},
    {"a signing request is made", NULL, sign_request, NULL, NULL, false},
    {"a certificate of development is made", NULL, sign_own, NULL, NULL, false},
    {"requests to a CA are signed", NULL, sign_for_acme, NULL, NULL, false},
    {"an account is remembered", NULL, remember_account, NULL, NULL, false},
    {0},
};
