/* The input is cert.pem, a line "====", and key.pem, as they lie on a volume that others may write to. */
#include "domain/deployment.h"
#include "domain/keys.h"
#include "domain/stored.h"

#include "base/secret.h"
#include "support/fuzz.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

static char domain[] = "app.example.org";
static char *items[] = {domain};
static const struct config_list names = {.items = items, .count = 1};

static EVP_PKEY *read_key(const char *pem)
{
    struct secret *text = secret_copy(pem, strlen(pem));
    struct secret *written = NULL;
    struct err err = ERR_INIT;
    EVP_PKEY *key = NULL;
    EVP_PKEY *again = NULL;
    char id[KEYS_ID_SIZE];

    FUZZ_REQUIRE(text != NULL);
    if (keys_from_pem(text, &key, &err) < 0) {
        FUZZ_REQUIRE(key == NULL);
        fuzz_require_refusal(&err);
    } else {
        FUZZ_REQUIRE(keys_id(key, id, &err) == 0);
        FUZZ_REQUIRE_TEXT(keys_to_pem(key, &written, &err) == 0, err.message);
        FUZZ_REQUIRE_TEXT(keys_from_pem(written, &again, &err) == 0, err.message);
        FUZZ_REQUIRE(keys_same(key, again));
    }
    EVP_PKEY_free(again);
    secret_free(written);
    secret_free(text);
    return key;
}

static struct chain *read_chain(const char *pem)
{
    struct chain *chain = NULL;
    struct err err = ERR_INIT;

    if (chain_parse(pem, strlen(pem), &chain, &err) < 0)
        fuzz_require_refusal(&err);
    return chain;
}

/* Whatever lies there, only a leaf for the derived key is served, and only where it is valid. */
static void judge(const struct chain *chain, const EVP_PKEY *key, const EVP_PKEY *derived)
{
    const struct stored_pair pair = {.present = true, .chain = chain, .key = key};
    const struct stored_rules rules = {
        .domains = &names, .production = true, .derived = derived};
    char reason[STORED_REASON_SIZE] = "";

    if (stored_judge(&pair, &rules, FUZZ_NOW, reason) == STORED_SERVE) {
        FUZZ_REQUIRE(chain != NULL && chain_covers(chain, domain) &&
                     chain_leaf(chain)->not_after > FUZZ_NOW);
        FUZZ_REQUIRE(chain_has_key(chain, derived != NULL ? derived : key));
        fuzz_note_accepted();
    }
    fuzz_require_line(reason);
}

static void deploy(const char *chain_pem, const char *key_pem, bool must)
{
    struct secret *key = secret_copy(key_pem, strlen(key_pem));
    struct deployment deployment;
    struct err err = ERR_INIT;
    int failed = deployment_parse(&deployment, chain_pem, strlen(chain_pem), key, &err);

    FUZZ_REQUIRE(must == (failed == 0));
    if (failed < 0) {
        fuzz_require_refusal(&err);
        FUZZ_REQUIRE(deployment.chain == NULL && deployment.key == NULL);
    }
    deployment_done(&deployment);
    secret_free(key);
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    static EVP_PKEY *derived;
    char *chain_pem = fuzz_text(bytes, len);
    char *key_pem = fuzz_cut(chain_pem, "====");
    struct chain *chain = read_chain(chain_pem);
    EVP_PKEY *key = read_key(key_pem);

    if (derived == NULL) {
        struct secret *material = keys_development_material();
        struct err err = ERR_INIT;

        FUZZ_REQUIRE(keys_derive(material, &derived, &err) == 0);
        secret_free(material);
    }
    judge(chain, key, derived);
    judge(chain, key, NULL);
    deploy(chain_pem, key_pem, chain != NULL && key != NULL && chain_has_key(chain, key));
    chain_free(chain);
    EVP_PKEY_free(key);
    free(chain_pem);
}
