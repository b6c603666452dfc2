/* What is deployed: its way as JSON, and each rule broken alone. */
#include "domain/deployment.h"

#include "domain/keys.h"
#include "support/names.h"
#include "support/pki.h"
#include "support/program.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DOMAIN "app.example.test"

static const struct pki_spec ca_spec = {.common_name = "Good CA", .ca = true};
static const struct pki_spec good_spec = {.common_name = DOMAIN, .names = "DNS:" DOMAIN};

struct fixture {
    EVP_PKEY *key;
    EVP_PKEY *other_key;
    EVP_PKEY *ca_key;
    X509 *ca;
    struct deployment_rules rules;
    struct deployment deployment;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->key = pki_key();
    f->other_key = pki_key();
    f->ca_key = pki_key();
    f->ca = pki_certificate(&ca_spec, f->ca_key, NULL, f->ca_key);
    f->rules.stored = (struct stored_rules){
        .domains = names_of(DOMAIN), .production = true, .derived = f->key};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    deployment_done(&f->deployment);
    X509_free(f->ca);
    EVP_PKEY_free(f->ca_key);
    EVP_PKEY_free(f->other_key);
    EVP_PKEY_free(f->key);
    free(f);
    pki_assert_queue_empty();
    return 0;
}

/* By the CA of the fixture. */
static char *issued(const struct fixture *f, const struct pki_spec *spec, EVP_PKEY *key)
{
    X509 *leaf = pki_certificate(spec, key, f->ca, f->ca_key);
    char *pem = pki_pem(leaf, f->ca, NULL);

    X509_free(leaf);
    return pem;
}

static struct secret *pem_of(EVP_PKEY *key)
{
    struct secret *pem = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(keys_to_pem(key, &pem, &err), 0);
    return pem;
}

static void bring(struct fixture *f, const struct pki_spec *spec, EVP_PKEY *key,
                  bool with_key)
{
    char *chain = issued(f, spec, key);
    SECRET_SCOPED pem = with_key ? pem_of(key) : NULL;
    struct err err = ERR_INIT;

    deployment_done(&f->deployment);
    if (deployment_parse(&f->deployment, chain, strlen(chain), pem, &err) < 0)
        fail_msg("%s", err.message);
    free(chain);
}

static void assert_taken(const struct fixture *f)
{
    struct err err = ERR_INIT;

    if (deployment_check(&f->deployment, &f->rules, PKI_NOW, &err) < 0)
        fail_msg("%s", err.message);
}

static void assert_refused(const struct fixture *f, const char *why)
{
    struct err err = ERR_INIT;

    assert_int_equal(deployment_check(&f->deployment, &f->rules, PKI_NOW, &err), -1);
    assert_int_equal(err.kind, ERR_CRYPTO);
    if (strstr(err.message, why) == NULL)
        fail_msg("expected \"%s\" in: %s", why, err.message);
}

/* ---- the way ---- */

static void test_json_and_back(void **state)
{
    struct fixture *f = *state;
    BUF_SCOPED text = {.max = 64 * 1024};
    struct deployment back;
    struct err err = ERR_INIT;

    for (int with_key = 0; with_key <= 1; with_key++) {
        bring(f, &good_spec, f->key, with_key == 1);
        f->deployment.timeout_s = 7;
        buf_clear(&text);
        assert_int_equal(deployment_to_json(&f->deployment, &text, &err), 0);
        assert_int_equal(deployment_from_json(&back, buf_str(&text), text.len, &err), 0);
        assert_string_equal(chain_leaf(back.chain)->sha256,
                            chain_leaf(f->deployment.chain)->sha256);
        assert_int_equal(chain_length(back.chain), 2);
        assert_int_equal(back.timeout_s, 7);
        if (with_key == 0)
            assert_null(back.key);
        else
            assert_true(keys_same(back.key, f->key));
        deployment_done(&back);
    }
}

static void test_json_of_another_form(void **state)
{
    static const char *const texts[] = {
        "",
        "{",
        "nonsense",
        "[]",
        "{}",
        "{\"fullchain\": null}",
        "{\"fullchain\": \"a\\u0000b\"}",
        "{\"key\": \"x\"}",
        "{\"fullchain\": \"x\", \"key\": 1}",
        "{\"fullchain\": \"x\", \"fullchain\": \"x\"}",
        "{\"fullchain\": \"x\", \"timeout_s\": \"7\"}",
        "{\"fullchain\": \"x\", \"timeout_s\": -1}",
        "{\"fullchain\": \"x\", \"timeout_s\": 3601}",
    };
    struct deployment deployment;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct err err = ERR_INIT;

        assert_int_equal(
            deployment_from_json(&deployment, texts[i], strlen(texts[i]), &err), -1);
        assert_int_equal(err.kind, ERR_CONFIG);
        assert_null(deployment.chain);
    }
}

/* Messages go into logs and answers. */
static void test_no_message_quotes_a_key(void **state)
{
    struct fixture *f = *state;
    SECRET_SCOPED key = pem_of(f->other_key);
    char part[33] = "";
    char text[2048];
    char *chain = issued(f, &good_spec, f->key);
    static const char *const forms[] = {"{\"fullchain\": %.1500s", "%s", "{%s",
                                        "{\"fullchain\": \"%s", "{\"key\": %s}"};

    memcpy(part, key->bytes + strlen("-----BEGIN PRIVATE KEY-----\n"), sizeof part - 1);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct deployment deployment;
        struct err err = ERR_INIT;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text, forms[i], (const char *)key->bytes);
#pragma GCC diagnostic pop
        assert_int_equal(deployment_from_json(&deployment, text, strlen(text), &err), -1);
        assert_null(strstr(err.message, part));
    }
    free(chain);
}

static void test_pair_that_is_none(void **state)
{
    struct fixture *f = *state;
    SECRET_SCOPED other = pem_of(f->other_key);
    SECRET_SCOPED nonsense = secret_copy("nonsense", 8);
    char *chain = issued(f, &good_spec, f->key);
    struct deployment deployment;
    struct err err = ERR_INIT;

    assert_int_equal(deployment_parse(&deployment, chain, strlen(chain), other, &err),
                     -1);
    assert_string_equal(err.message,
                        "the private key does not belong to the certificate");
    assert_int_equal(deployment_parse(&deployment, chain, strlen(chain), nonsense, &err),
                     -1);
    assert_int_equal(deployment_parse(&deployment, "x", 1, NULL, &err), -1);
    assert_null(deployment.chain);
    assert_null(deployment.key);
    deployment_done(&deployment);
    free(chain);
}

/* ---- the rules ---- */

static void test_good_one_is_taken(void **state)
{
    struct fixture *f = *state;

    bring(f, &good_spec, f->key, false);
    assert_taken(f);
    bring(f, &good_spec, f->key, true);
    assert_taken(f);
    /* FORCE_RM_CERT_FILES is about what lies there at the start. */
    f->rules.stored.force_rm = true;
    assert_taken(f);
}

static void test_key_has_to_be_the_derived_one(void **state)
{
    struct fixture *f = *state;

    bring(f, &good_spec, f->other_key, true);
    assert_refused(f, "for another key than the derived one");
    f->rules.stored.derived = NULL;
    assert_taken(f);
    bring(f, &good_spec, f->other_key, false);
    assert_refused(f, "did not bring its own");
}

static void test_what_a_ca_is_asked_for_and_what_may_lie_on_disk(void **state)
{
    struct fixture *f = *state;
    struct pki_spec spec = good_spec;

    f->rules.stored.domains = names_of(DOMAIN " b.example.test");
    bring(f, &spec, f->key, false);
    assert_refused(f, "not for b.example.test");
    f->rules.stored.domains = names_of(DOMAIN);

    spec.not_after = PKI_NOW - 1;
    bring(f, &spec, f->key, false);
    assert_refused(f, "was valid until");

    spec = good_spec;
    spec.not_before = PKI_NOW + PKI_DAY;
    bring(f, &spec, f->key, false);
    assert_refused(f, "not valid before");
}

static void test_staging_and_self_signed(void **state)
{
    struct fixture *f = *state;
    const struct pki_spec staging = {.common_name = "(STAGING) Pear", .ca = true};
    X509 *ca = pki_certificate(&staging, f->ca_key, NULL, f->ca_key);
    X509 *leaf = pki_certificate(&good_spec, f->key, ca, f->ca_key);
    X509 *own = pki_certificate(&good_spec, f->key, NULL, f->key);
    char *pems[] = {pki_pem(leaf, ca, NULL), pki_pem(own, NULL)};
    const char *const why[] = {"staging CA", "self-signed"};
    struct err err = ERR_INIT;

    for (int i = 0; i < 2; i++) {
        deployment_done(&f->deployment);
        assert_int_equal(
            deployment_parse(&f->deployment, pems[i], strlen(pems[i]), NULL, &err), 0);
        assert_refused(f, why[i]);
        free(pems[i]);
    }
    f->rules.stored.development = true;
    assert_taken(f);
    X509_free(own);
    X509_free(leaf);
    X509_free(ca);
}

static struct chain *of(const struct fixture *f, const struct pki_spec *spec,
                        EVP_PKEY *key)
{
    char *pem = issued(f, spec, key);
    struct chain *chain = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(chain_parse(pem, strlen(pem), &chain, &err), 0);
    free(pem);
    return chain;
}

/* Nobody goes back to an older one by an old lineage, but to get away from one that has to go. */
static void test_age(void **state)
{
    struct fixture *f = *state;
    struct pki_spec spec = good_spec;
    struct chain *same = of(f, &good_spec, f->key);
    struct chain *expired;
    struct chain *younger;
    struct chain *of_other_key;

    spec.not_before = PKI_NOW - PKI_DAY + 1;
    younger = of(f, &spec, f->key);
    of_other_key = of(f, &spec, f->other_key);
    spec.not_after = PKI_NOW - 1;
    expired = of(f, &spec, f->key);

    bring(f, &good_spec, f->key, false);
    f->rules.served = same;
    assert_taken(f);
    f->rules.served = younger;
    assert_refused(f, "older than the one that is served");
    f->rules.served = same;
    f->rules.waits = younger;
    assert_refused(f, "older than the one that waits to be served");
    f->rules.waits = NULL;
    f->rules.served = expired;
    assert_taken(f);
    f->rules.served = of_other_key;
    assert_taken(f);

    chain_free(of_other_key);
    chain_free(expired);
    chain_free(younger);
    chain_free(same);
}

static void test_one_that_lacks_a_name_has_to_go(void **state)
{
    struct fixture *f = *state;
    struct pki_spec spec = good_spec;
    struct chain *incomplete;

    spec.not_before = PKI_NOW - 60;
    incomplete = of(f, &spec, f->key);
    spec = good_spec;
    spec.names = "DNS:" DOMAIN ",DNS:b.example.test";
    bring(f, &spec, f->key, false);
    f->rules.served = incomplete;
    assert_refused(f, "older");
    f->rules.stored.domains = names_of(DOMAIN " b.example.test");
    assert_taken(f);
    chain_free(incomplete);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_json_and_back),
        TEST(test_json_of_another_form),
        TEST(test_no_message_quotes_a_key),
        TEST(test_pair_that_is_none),
        TEST(test_good_one_is_taken),
        TEST(test_key_has_to_be_the_derived_one),
        TEST(test_what_a_ca_is_asked_for_and_what_may_lie_on_disk),
        TEST(test_staging_and_self_signed),
        TEST(test_age),
        TEST(test_one_that_lacks_a_name_has_to_go),
    };

    return cmocka_run_group_tests(tests, program_setup, NULL);
}
