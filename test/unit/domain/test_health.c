/* Whether what is served is of use, and how that is told. */
#include "domain/health.h"

#include "base/secret.h"

#include "support/pki.h"

#include <stdlib.h>
#include <string.h>

static struct chain *chain_for(const char *names)
{
    const struct pki_spec spec = {.names = names};
    EVP_PKEY *key = pki_key();
    X509 *certificate = pki_certificate(&spec, key, NULL, key);
    char *pem = pki_pem(certificate, NULL);
    struct chain *chain = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(chain_parse(pem, strlen(pem), &chain, &err), 0);
    free(pem);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return chain;
}

static void expect(const struct chain *chain, int64_t now, const char *says)
{
    char one[] = "a.example.test";
    char other[] = "b.example.test";
    char *items[] = {one, other};
    const struct config_list names = {.items = items, .count = 2};
    struct err err = ERR_INIT;
    int failed = health_check_chain(chain, &names, now, &err);

    assert_int_equal(failed, says == NULL ? 0 : -1);
    if (says != NULL && strstr(err.message, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", err.message, says);
}

static void leaf_is_of_use_within_its_life_to_the_second(void **state)
{
    struct chain *chain = chain_for("DNS:a.example.test,DNS:b.example.test");
    int64_t from = chain_leaf(chain)->not_before;
    int64_t to = chain_leaf(chain)->not_after;

    (void)state;
    expect(chain, from, NULL);
    expect(chain, to - 1, NULL);
    expect(chain, from - 1, "is valid from 2026-11-22 18:49:07 UTC on only");
    expect(chain, to, "the certificate has expired, on 2027-02-20 18:49:07 UTC");
    chain_free(chain);
}

static void leaf_is_of_use_for_all_names_or_not(void **state)
{
    struct chain *chain = chain_for("DNS:a.example.test");

    (void)state;
    expect(chain, PKI_NOW, "the certificate is not for b.example.test");
    chain_free(chain);
}

static void what_is_told_is_understood_again(void **state)
{
    const struct health told = {
        .attested = true, .sha256 = "ab12", .reason = "\"HTTPS\"\n\xff does not answer"};
    struct health heard;
    BUF_SCOPED text = {.max = 8 * ERR_MESSAGE_MAX};
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(health_to_json(&told, &text, &err), 0);
    assert_int_equal(health_from_json(&text, &heard, &err), 0);
    assert_false(heard.healthy);
    assert_true(heard.attested);
    assert_string_equal(heard.sha256, "ab12");
    assert_string_equal(heard.reason, "\"HTTPS\"\\x0a\\xff does not answer");
}

static void anything_else_is_no_word_of_the_daemon(void **state)
{
    static const char *const texts[] = {
        "",
        "{}",
        "[]",
        "healthy",
        "{\"healthy\": \"yes\"}",
        "{\"healthy\": true, \"attested\": true, \"sha256\": null, \"reason\": \"\"}"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct health heard = {.healthy = false};
        BUF_SCOPED text = {.max = 1024};
        struct err err = ERR_INIT;

        assert_int_equal(buf_append_str(&text, texts[i], &err), 0);
        assert_int_equal(health_from_json(&text, &heard, &err), -1);
        assert_int_equal(err.kind, ERR_PEER);
        assert_false(heard.healthy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaf_is_of_use_within_its_life_to_the_second),
        cmocka_unit_test(leaf_is_of_use_for_all_names_or_not),
        cmocka_unit_test(what_is_told_is_understood_again),
        cmocka_unit_test(anything_else_is_no_word_of_the_daemon),
    };

    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
