/* Which chains of others are taken: each rule broken alone. */
#include "domain/adopt.h"

#include "support/names.h"
#include "support/pki.h"

#include <stdlib.h>
#include <string.h>

#define DOMAIN "app.example.test"
#define LIFE (90 * PKI_DAY)

static const struct pki_spec ca_spec = {.common_name = "Good CA", .ca = true};
static const struct pki_spec good_spec = {.common_name = DOMAIN, .names = "DNS:" DOMAIN};

struct fixture {
    EVP_PKEY *key;
    EVP_PKEY *other_key;
    EVP_PKEY *ca_key;
    X509 *ca;
    X509_STORE *roots; /* only that CA */
    struct adopt_rules rules;
    struct chain *served;
};

static struct chain *parsed(char *pem)
{
    struct chain *chain = NULL;
    struct err err = ERR_INIT;

    if (chain_parse(pem, strlen(pem), &chain, &err) < 0)
        fail_msg("%s", err.message);
    free(pem);
    return chain;
}

/* By the trusted CA. */
static struct chain *issued(const struct fixture *f, const struct pki_spec *spec,
                            EVP_PKEY *key)
{
    X509 *leaf = pki_certificate(spec, key, f->ca, f->ca_key);
    struct chain *chain = parsed(pki_pem(leaf, f->ca, NULL));

    X509_free(leaf);
    return chain;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->key = pki_key();
    f->other_key = pki_key();
    f->ca_key = pki_key();
    f->ca = pki_certificate(&ca_spec, f->ca_key, NULL, f->ca_key);
    f->roots = X509_STORE_new();
    assert_int_equal(X509_STORE_add_cert(f->roots, f->ca), 1);
    f->rules = (struct adopt_rules){
        .stored = {.domains = names_of(DOMAIN), .production = true, .derived = f->key},
        .roots = f->roots,
    };
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    chain_free(f->served);
    X509_STORE_free(f->roots);
    X509_free(f->ca);
    EVP_PKEY_free(f->ca_key);
    EVP_PKEY_free(f->other_key);
    EVP_PKEY_free(f->key);
    free(f);
    return 0;
}

static void serve(struct fixture *f, const struct pki_spec *spec, EVP_PKEY *key)
{
    chain_free(f->served);
    f->served = issued(f, spec, key);
    f->rules.served = f->served;
}

/* Consumes the chain. `says` is part of the reason, NULL for none. */
static void expect(struct fixture *f, struct chain *chain, enum adopt_verdict verdict,
                   const char *says)
{
    char reason[ADOPT_REASON_SIZE] = "untouched";

    assert_int_equal(adopt_judge(chain, &f->rules, PKI_NOW, reason), verdict);
    pki_assert_queue_empty();
    if (says == NULL)
        assert_string_equal(reason, "");
    else if (strstr(reason, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", reason, says);
    chain_free(chain);
}

static void expect_spec(struct fixture *f, const struct pki_spec *spec,
                        enum adopt_verdict verdict, const char *says)
{
    expect(f, issued(f, spec, f->key), verdict, says);
}

/* ---- whose it is ---- */

static void a_good_chain_is_taken(void **state)
{
    expect_spec(*state, &good_spec, ADOPT_TAKE, NULL);
}

static void a_chain_for_another_key_is_not(void **state)
{
    struct fixture *f = *state;

    expect(f, issued(f, &good_spec, f->other_key), ADOPT_REFUSE, "another key");
}

static void a_chain_for_other_names_is_not(void **state)
{
    static const struct pki_spec other = {.common_name = DOMAIN,
                                          .names = "DNS:other.example.test"};
    static const struct pki_spec more = {.names = "DNS:other.example.test,DNS:" DOMAIN};

    expect_spec(*state, &other, ADOPT_REFUSE, "its DNS names: other.example.test");
    expect_spec(*state, &more, ADOPT_TAKE, NULL);
}

/* ---- who has signed it ---- */

static void a_chain_that_leads_nowhere_is_not_taken(void **state)
{
    struct fixture *f = *state;
    EVP_PKEY *ca_key = pki_key();
    X509 *ca = pki_certificate(&ca_spec, ca_key, NULL, ca_key); /* of the same name */
    X509 *leaf = pki_certificate(&good_spec, f->key, ca, ca_key);

    expect(f, parsed(pki_pem(leaf, ca, NULL)), ADOPT_REFUSE,
           "does not lead to a trusted root");
    expect(f, parsed(pki_pem(leaf, NULL)), ADOPT_REFUSE,
           "does not lead to a trusted root");
    /* The trusted root beside it helps nothing. */
    expect(f, parsed(pki_pem(leaf, f->ca, NULL)), ADOPT_REFUSE, "is not signed by");
    X509_free(leaf);
    X509_free(ca);
    EVP_PKEY_free(ca_key);
}

static void a_chain_whose_intermediate_is_missing_is_not_taken(void **state)
{
    struct fixture *f = *state;
    static const struct pki_spec spec = {.common_name = "Intermediate", .ca = true};
    EVP_PKEY *key = pki_key();
    X509 *intermediate = pki_certificate(&spec, key, f->ca, f->ca_key);
    X509 *leaf = pki_certificate(&good_spec, f->key, intermediate, key);

    expect(f, parsed(pki_pem(leaf, NULL)), ADOPT_REFUSE, "trusted root");
    expect(f, parsed(pki_pem(leaf, intermediate, NULL)), ADOPT_TAKE, NULL);
    X509_free(leaf);
    X509_free(intermediate);
    EVP_PKEY_free(key);
}

static void a_self_signed_certificate_is_not_taken_even_when_it_is_trusted(void **state)
{
    struct fixture *f = *state;
    X509 *leaf = pki_certificate(&good_spec, f->key, NULL, f->key);

    assert_int_equal(X509_STORE_add_cert(f->roots, leaf), 1);
    expect(f, parsed(pki_pem(leaf, NULL)), ADOPT_REFUSE, "self-signed");
    X509_free(leaf);
}

static void a_leaf_that_is_not_for_servers_is_not_taken(void **state)
{
    struct fixture *f = *state;
    X509 *leaf = pki_certificate(&good_spec, f->key, f->ca, f->ca_key);

    pki_add_extension(leaf, NID_ext_key_usage, "clientAuth");
    pki_sign(leaf, f->ca_key);
    expect(f, parsed(pki_pem(leaf, f->ca, NULL)), ADOPT_REFUSE, "purpose");
    X509_free(leaf);
}

static void a_root_with_a_weak_key_is_not_enough(void **state)
{
    struct fixture *f = *state;
    EVP_PKEY *ca_key = pki_key_of("RSA", "1024");
    X509 *ca = pki_certificate(&ca_spec, ca_key, NULL, ca_key);
    X509 *leaf = pki_certificate(&good_spec, f->key, ca, ca_key);

    assert_int_equal(X509_STORE_add_cert(f->roots, ca), 1);
    expect(f, parsed(pki_pem(leaf, ca, NULL)), ADOPT_REFUSE, "too weak");
    X509_free(leaf);
    X509_free(ca);
    EVP_PKEY_free(ca_key);
}

/* A restart would set it aside, and it would be adopted again, without end. */
static void what_the_start_rules_refuse_is_not_taken(void **state)
{
    static const struct pki_spec staging = {.common_name = "(STAGING) CA", .ca = true};
    struct fixture *f = *state;
    X509 *ca = pki_certificate(&staging, f->ca_key, NULL, f->ca_key);
    X509 *leaf = pki_certificate(&good_spec, f->key, ca, f->ca_key);

    assert_int_equal(X509_STORE_add_cert(f->roots, ca), 1);
    expect(f, parsed(pki_pem(leaf, ca, NULL)), ADOPT_REFUSE, "staging CA");
    f->rules.stored.production = false;
    expect(f, parsed(pki_pem(leaf, ca, NULL)), ADOPT_TAKE, NULL);
    X509_free(leaf);
    X509_free(ca);
}

/* ---- when ---- */

static struct pki_spec lasting(int64_t not_before, int64_t life)
{
    struct pki_spec spec = good_spec;

    spec.not_before = not_before;
    spec.not_after = not_before + life;
    return spec;
}

static void a_leaf_that_is_due_is_not_taken(void **state)
{
    struct pki_spec due = lasting(PKI_NOW - 60 * PKI_DAY, LIFE);
    struct pki_spec nearly = lasting(PKI_NOW - 60 * PKI_DAY + 1, LIFE);
    struct pki_spec over = lasting(PKI_NOW - LIFE - 1, LIFE);

    expect_spec(*state, &due, ADOPT_REFUSE, "is due for renewal, valid until 2026-12-23");
    expect_spec(*state, &nearly, ADOPT_TAKE, NULL);
    expect_spec(*state, &over, ADOPT_REFUSE, "was valid until");
}

static void the_setting_says_when_a_leaf_is_due(void **state)
{
    struct fixture *f = *state;
    struct pki_spec spec = lasting(PKI_NOW - 50 * PKI_DAY, LIFE);

    expect_spec(f, &spec, ADOPT_TAKE, NULL);
    f->rules.terms.before_s = 40 * PKI_DAY;
    expect_spec(f, &spec, ADOPT_REFUSE, "is due for renewal");
}

static void a_leaf_of_a_later_day_is_not_taken(void **state)
{
    struct pki_spec later = lasting(PKI_NOW + PKI_DAY, LIFE);

    expect_spec(*state, &later, ADOPT_REFUSE, "is not valid before");
}

/* ---- what is served here ---- */

static void our_own_leaf_is_known(void **state)
{
    struct fixture *f = *state;
    BUF_SCOPED pem = {.max = CHAIN_PEM_MAX_BYTES};
    struct err err = ERR_INIT;
    struct chain *again = NULL;

    serve(f, &good_spec, f->key);
    assert_int_equal(chain_to_pem(f->served, &pem, &err), 0);
    assert_int_equal(chain_parse(pem.data, pem.len, &again, &err), 0);
    expect(f, again, ADOPT_OURS, NULL);
}

/* Two who look at each other must not swap leaves for ever. */
static void only_a_younger_leaf_takes_the_place_of_ours(void **state)
{
    struct fixture *f = *state;
    struct pki_spec ours = lasting(PKI_NOW - 10 * PKI_DAY, LIFE);
    struct pki_spec older = lasting(PKI_NOW - 10 * PKI_DAY - 1, 2 * LIFE);
    struct pki_spec younger = lasting(PKI_NOW - 10 * PKI_DAY + 1, LIFE / 2);
    struct pki_spec twin = ours;

    twin.serial = "2";
    serve(f, &ours, f->key);
    expect_spec(f, &older, ADOPT_REFUSE, "not younger");
    expect_spec(f, &twin, ADOPT_REFUSE, "not younger");
    expect_spec(f, &younger, ADOPT_TAKE, NULL);
}

static void a_leaf_of_a_former_key_is_no_rival(void **state)
{
    struct fixture *f = *state;
    struct pki_spec older = lasting(PKI_NOW - 20 * PKI_DAY, LIFE);

    serve(f, &good_spec, f->other_key);
    expect_spec(f, &older, ADOPT_TAKE, NULL);
}

static void a_leaf_that_lacks_a_name_is_no_rival_and_not_taken(void **state)
{
    struct fixture *f = *state;
    struct pki_spec younger = lasting(PKI_NOW - PKI_DAY, LIFE);
    struct pki_spec whole = lasting(PKI_NOW - 20 * PKI_DAY, LIFE);

    f->rules.stored.domains = names_of(DOMAIN " www.example.test");
    whole.names = "DNS:" DOMAIN ",DNS:www.example.test";
    serve(f, &good_spec, f->key);
    expect_spec(f, &younger, ADOPT_REFUSE, "not for www.example.test");
    expect_spec(f, &whole, ADOPT_TAKE, NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_good_chain_is_taken),
        TEST(a_chain_for_another_key_is_not),
        TEST(a_chain_for_other_names_is_not),
        TEST(a_chain_that_leads_nowhere_is_not_taken),
        TEST(a_chain_whose_intermediate_is_missing_is_not_taken),
        TEST(a_self_signed_certificate_is_not_taken_even_when_it_is_trusted),
        TEST(a_leaf_that_is_not_for_servers_is_not_taken),
        TEST(a_root_with_a_weak_key_is_not_enough),
        TEST(what_the_start_rules_refuse_is_not_taken),
        TEST(a_leaf_that_is_due_is_not_taken),
        TEST(the_setting_says_when_a_leaf_is_due),
        TEST(a_leaf_of_a_later_day_is_not_taken),
        TEST(our_own_leaf_is_known),
        TEST(only_a_younger_leaf_takes_the_place_of_ours),
        TEST(a_leaf_of_a_former_key_is_no_rival),
        TEST(a_leaf_that_lacks_a_name_is_no_rival_and_not_taken),
    };
#undef TEST

    return cmocka_run_group_tests(tests, NULL, NULL);
}
