#include "domain/stored.h"

#include "support/names.h"
#include "support/pki.h"

#include <stdlib.h>
#include <string.h>

#define DOMAIN "app.example.test"
#define NAMES "DNS:" DOMAIN
#define HOUR INT64_C(3600)

/* One leaf for one key, issued by a CA of its own. */
struct fixture {
    EVP_PKEY *key;
    EVP_PKEY *other_key;
    struct chain *chain;
    struct stored_pair pair;
    struct stored_rules rules;
};

/* Consumes the certificate. */
static struct chain *parsed(X509 *certificate)
{
    char *pem = pki_pem(certificate, (X509 *)NULL);
    struct err err = ERR_INIT;
    struct chain *chain = NULL;

    if (chain_parse(pem, strlen(pem), &chain, &err) < 0)
        fail_msg("%s", err.message);
    free(pem);
    X509_free(certificate);
    return chain;
}

static struct chain *issued(const struct pki_spec *leaf, EVP_PKEY *key,
                            const char *issuer_name)
{
    const struct pki_spec issuer = {
        .common_name = issuer_name, .organization = "Let's Encrypt", .ca = true};
    EVP_PKEY *issuer_key = pki_key();
    X509 *ca = pki_certificate(&issuer, issuer_key, NULL, issuer_key);
    struct chain *chain = parsed(pki_certificate(leaf, key, ca, issuer_key));

    X509_free(ca);
    EVP_PKEY_free(issuer_key);
    return chain;
}

static struct chain *self_signed(const struct pki_spec *leaf, EVP_PKEY *key)
{
    return parsed(pki_certificate(leaf, key, NULL, key));
}

static void use_chain(struct fixture *f, struct chain *chain)
{
    chain_free(f->chain);
    f->chain = chain;
    f->pair.chain = chain;
}

static void use_issued(struct fixture *f, const char *names, const char *issuer_name)
{
    const struct pki_spec leaf = {.common_name = DOMAIN, .names = names};

    use_chain(f, issued(&leaf, f->key, issuer_name));
}

/* A good pair, in production. */
static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->key = pki_key();
    f->other_key = pki_key();
    f->pair = (struct stored_pair){.present = true, .key = f->key};
    f->rules = (struct stored_rules){
        .domains = names_of(DOMAIN),
        .production = true,
        .derived = f->key,
    };
    use_issued(f, NAMES, "R11");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    chain_free(f->chain);
    EVP_PKEY_free(f->key);
    EVP_PKEY_free(f->other_key);
    free(f);
    return 0;
}

static void expect_at(const struct fixture *f, int64_t now, enum stored_verdict verdict,
                      const char *reason)
{
    char why[STORED_REASON_SIZE];

    assert_int_equal(stored_judge(&f->pair, &f->rules, now, why), verdict);
    assert_string_equal(why, reason);
    pki_assert_queue_empty();
}

static void expect(const struct fixture *f, enum stored_verdict verdict,
                   const char *reason)
{
    expect_at(f, PKI_NOW, verdict, reason);
}

static void expect_set_aside(const struct fixture *f, const char *reason)
{
    expect(f, STORED_SET_ASIDE, reason);
}

static void expect_served(const struct fixture *f)
{
    expect(f, STORED_SERVE,
           "the stored certificate is valid until 2027-02-20 18:49:07 UTC");
}

/* ---- what is served ---- */

static void a_good_pair_is_served(void **state)
{
    expect_served(*state);
}

static void nothing_is_not_set_aside(void **state)
{
    struct fixture *f = *state;

    f->pair = (struct stored_pair){.present = false};
    expect(f, STORED_OBTAIN, "no certificate is stored");
    f->rules.force_rm = true;
    expect(f, STORED_OBTAIN, "no certificate is stored");
}

/* Also inside its renewal window, to the last second. */
static void a_pair_is_served_until_it_expires(void **state)
{
    struct fixture *f = *state;
    int64_t not_after = PKI_NOW + 89 * PKI_DAY;

    expect_at(f, not_after - 1, STORED_SERVE,
              "the stored certificate is valid until 2027-02-20 18:49:07 UTC");
    expect_at(f, not_after, STORED_OBTAIN,
              "the stored certificate expired on 2027-02-20 18:49:07 UTC");
    expect_at(f, not_after + 1000 * PKI_DAY, STORED_OBTAIN,
              "the stored certificate expired on 2027-02-20 18:49:07 UTC");
}

/* The clock of a machine that has just started may be behind. */
static void a_pair_whose_life_has_not_begun_is_served(void **state)
{
    expect_at(*state, PKI_NOW - 10 * PKI_DAY, STORED_SERVE,
              "the stored certificate is valid until 2027-02-20 18:49:07 UTC");
}

/* ---- what is set aside ---- */

static void a_chain_without_its_key_is_served_when_it_is_for_the_derived_one(void **state)
{
    struct fixture *f = *state;

    f->pair.key = NULL;
    expect_served(f);
    f->rules.derived = f->other_key;
    expect_set_aside(f, "the private key is not the derived one");
}

static void a_key_without_its_chain_is_set_aside(void **state)
{
    struct fixture *f = *state;

    f->pair.chain = NULL;
    expect_set_aside(f, "the certificate is missing");
    f->pair.key = NULL;
    expect_set_aside(f, "the certificate is missing");
}

static void a_damaged_pair_is_set_aside(void **state)
{
    struct fixture *f = *state;
    char why[STORED_REASON_SIZE];
    char long_damage[1024];

    f->pair.damage = "cert.pem cannot be used: no certificate";
    expect_set_aside(f, "cert.pem cannot be used: no certificate");
    f->pair.chain = NULL;
    f->pair.key = NULL;
    expect_set_aside(f, "cert.pem cannot be used: no certificate");
    memset(long_damage, 'x', sizeof long_damage - 1);
    long_damage[sizeof long_damage - 1] = '\0';
    f->pair.damage = long_damage;
    assert_int_equal(stored_judge(&f->pair, &f->rules, PKI_NOW, why), STORED_SET_ASIDE);
    assert_int_equal(strlen(why), sizeof why - 1);
}

static void a_self_signed_leaf_is_for_development_only(void **state)
{
    struct fixture *f = *state;
    const struct pki_spec leaf = {.common_name = DOMAIN, .names = NAMES};

    use_chain(f, self_signed(&leaf, f->key));
    expect_set_aside(f, "the certificate is self-signed");
    f->rules.production = false; /* staging */
    expect_set_aside(f, "the certificate is self-signed");
    f->rules.development = true;
    expect_served(f);
}

static void a_staging_leaf_is_not_for_production(void **state)
{
    static const char *const issuers[] = {"(STAGING) Counterfeit Cashew R10", "staging",
                                          "Fake LE StAgInG X1"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof issuers / sizeof issuers[0]; i++) {
        use_issued(f, NAMES, issuers[i]);
        f->rules.production = true;
        expect_set_aside(f, "the certificate was issued by a staging CA");
        f->rules.production = false;
        expect_served(f);
    }
}

static void a_domain_that_is_called_staging_is_served(void **state)
{
    struct fixture *f = *state;
    const struct pki_spec leaf = {.common_name = "staging.example.test",
                                  .names = "DNS:staging.example.test"};

    f->rules.domains = names_of("staging.example.test");
    use_chain(f, issued(&leaf, f->key, "R11"));
    expect_served(f);
}

static void a_key_of_another_leaf_is_set_aside(void **state)
{
    struct fixture *f = *state;

    f->pair.key = f->other_key;
    expect_set_aside(f, "the private key does not belong to the certificate");
    f->rules.derived = f->other_key;
    expect_set_aside(f, "the private key does not belong to the certificate");
}

static void a_leaf_for_another_domain_is_set_aside(void **state)
{
    struct fixture *f = *state;

    use_issued(f, "DNS:other.example.test", "R11");
    expect_set_aside(f, "the certificate does not cover the domain");
    use_issued(f, NULL, "R11"); /* the common name does not count */
    expect_set_aside(f, "the certificate does not cover the domain");
    use_issued(f, "DNS:other.example.test," NAMES, "R11");
    expect_served(f);
}

/* Clients of the domain are served; who asks for the other name has to wait for another leaf. */
static void a_leaf_that_lacks_another_name_is_served(void **state)
{
    struct fixture *f = *state;

    f->rules.domains = names_of(DOMAIN " www.example.test api.example.test");
    expect(f, STORED_SERVE,
           "the stored certificate is valid until 2027-02-20 18:49:07 UTC, but not for "
           "www.example.test");
    use_issued(f, NAMES ",DNS:www.example.test", "R11");
    expect(f, STORED_SERVE,
           "the stored certificate is valid until 2027-02-20 18:49:07 UTC, but not for "
           "api.example.test");
    use_issued(f, NAMES ",DNS:*.example.test", "R11");
    expect_served(f);
    use_issued(f, "DNS:www.example.test,DNS:api.example.test", "R11");
    expect_set_aside(f, "the certificate does not cover the domain");
}

/* A hostile volume must not get a key of its own attested. */
static void a_whole_pair_for_a_foreign_key_is_set_aside(void **state)
{
    struct fixture *f = *state;

    f->rules.derived = f->other_key;
    expect_set_aside(f, "the private key is not the derived one");
    f->rules.production = false;
    f->rules.development = true;
    expect_set_aside(f, "the private key is not the derived one");
}

static void an_expired_leaf_with_another_fault_is_set_aside(void **state)
{
    struct fixture *f = *state;

    f->rules.derived = f->other_key;
    expect_at(f, PKI_NOW + 1000 * PKI_DAY, STORED_SET_ASIDE,
              "the private key is not the derived one");
}

/* The worst pair, made good rule by rule. */
static void the_first_rule_that_is_broken_is_the_reason(void **state)
{
    struct fixture *f = *state;
    const struct pki_spec worst = {.common_name = "Staging", .not_after = PKI_NOW - 1};

    f->rules.force_rm = true;
    f->rules.derived = f->other_key;
    f->pair =
        (struct stored_pair){.present = true, .damage = "key.pem cannot be used: no key"};
    expect_set_aside(f, "FORCE_RM_CERT_FILES is set");
    f->rules.force_rm = false;
    expect_set_aside(f, "key.pem cannot be used: no key");
    f->pair.damage = NULL;
    expect_set_aside(f, "the certificate is missing");
    use_chain(f, self_signed(&worst, f->key));
    f->pair.key = f->other_key;
    expect_set_aside(f, "the certificate is self-signed");
    use_chain(f, issued(&worst, f->key, "Staging"));
    expect_set_aside(f, "the certificate was issued by a staging CA");
    use_chain(f, issued(&worst, f->key, "R11"));
    expect_set_aside(f, "the private key does not belong to the certificate");
    f->pair.key = f->key;
    expect_set_aside(f, "the certificate does not cover the domain");
    use_issued(f, NAMES, "R11");
    expect_set_aside(f, "the private key is not the derived one");
    f->rules.derived = f->key;
    expect_served(f);
}

/* ---- FORCE_RM_CERT_FILES ---- */

static void a_forced_removal_acts_once_in_a_day(void **state)
{
    struct fixture *f = *state;

    f->rules.force_rm = true;
    expect_set_aside(f, "FORCE_RM_CERT_FILES is set");
    f->rules.forced_at = PKI_NOW;
    expect_served(f);
    f->rules.forced_at = PKI_NOW - 24 * HOUR + 1;
    expect_served(f);
    f->rules.forced_at = PKI_NOW - 24 * HOUR;
    expect_set_aside(f, "FORCE_RM_CERT_FILES is set");
    f->rules.forced_at = 1;
    expect_set_aside(f, "FORCE_RM_CERT_FILES is set");
}

static void the_mark_alone_does_nothing(void **state)
{
    struct fixture *f = *state;

    f->rules.forced_at = PKI_NOW - 1000 * PKI_DAY;
    expect_served(f);
    assert_false(stored_force_acts(&f->rules, PKI_NOW));
}

static void a_mark_that_no_clock_has_made_does_not_block(void **state)
{
    static const int64_t marks[] = {PKI_NOW + 1, PKI_NOW + 1000 * PKI_DAY, INT64_MAX, -1,
                                    INT64_MIN};
    struct fixture *f = *state;

    f->rules.force_rm = true;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        f->rules.forced_at = marks[i];
        assert_true(stored_force_acts(&f->rules, PKI_NOW));
        expect_set_aside(f, "FORCE_RM_CERT_FILES is set");
    }
}

/* The limit is for what would be served, not for what cannot be served anyway. */
static void a_bad_pair_is_set_aside_although_the_force_is_spent(void **state)
{
    struct fixture *f = *state;

    f->rules.force_rm = true;
    f->rules.forced_at = PKI_NOW;
    f->rules.derived = f->other_key;
    expect_set_aside(f, "the private key is not the derived one");
}

#define stored_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        stored_test(a_good_pair_is_served),
        stored_test(nothing_is_not_set_aside),
        stored_test(a_pair_is_served_until_it_expires),
        stored_test(a_pair_whose_life_has_not_begun_is_served),
        stored_test(a_chain_without_its_key_is_served_when_it_is_for_the_derived_one),
        stored_test(a_key_without_its_chain_is_set_aside),
        stored_test(a_damaged_pair_is_set_aside),
        stored_test(a_self_signed_leaf_is_for_development_only),
        stored_test(a_staging_leaf_is_not_for_production),
        stored_test(a_domain_that_is_called_staging_is_served),
        stored_test(a_key_of_another_leaf_is_set_aside),
        stored_test(a_leaf_for_another_domain_is_set_aside),
        stored_test(a_leaf_that_lacks_another_name_is_served),
        stored_test(a_whole_pair_for_a_foreign_key_is_set_aside),
        stored_test(an_expired_leaf_with_another_fault_is_set_aside),
        stored_test(the_first_rule_that_is_broken_is_the_reason),
        stored_test(a_forced_removal_acts_once_in_a_day),
        stored_test(the_mark_alone_does_nothing),
        stored_test(a_mark_that_no_clock_has_made_does_not_block),
        stored_test(a_bad_pair_is_set_aside_although_the_force_is_spent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
