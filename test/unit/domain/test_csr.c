#include "domain/csr.h"

#include "support/names.h"
#include "support/pki.h"
#include "support/vectors.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    struct err err = ERR_INIT;

    *state = vectors_load();
    return secret_setup(&err);
}

static int teardown(void **state)
{
    json_decref(*state);
    return 0;
}

/* 64 and 65 bytes: the longest name that fits into a common name, and one more. */
#define NAME_OF_65 "abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz.abc.example"
#define FITTING (&NAME_OF_65[1])
#define TOO_LONG NAME_OF_65

static X509_REQ *build(EVP_PKEY *key, const char *names)
{
    struct err err = ERR_INIT;
    X509_REQ *request;
    BUF_SCOPED pem;
    BIO *bio;

    buf_init(&pem, 16 * 1024);
    if (csr_build(key, names_of(names), &pem, &err) < 0)
        fail_msg("%s", err.message);
    pki_assert_queue_empty();
    bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    request = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
    assert_non_null(request);
    assert_int_equal(BIO_pending(bio), 0);
    BIO_free(bio);
    return request;
}

static GENERAL_NAMES *alternative_names(X509_REQ *request, int *ret_critical)
{
    STACK_OF(X509_EXTENSION) *extensions = X509_REQ_get_extensions(request);
    GENERAL_NAMES *names;

    assert_int_equal(sk_X509_EXTENSION_num(extensions), 1);
    names = X509V3_get_d2i(extensions, NID_subject_alt_name, ret_critical, NULL);
    sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
    assert_non_null(names);
    return names;
}

static void assert_names(X509_REQ *request, const struct config_list *wanted,
                         int critical)
{
    int found_critical;
    GENERAL_NAMES *names = alternative_names(request, &found_critical);

    assert_int_equal(found_critical, critical);
    assert_int_equal(sk_GENERAL_NAME_num(names), wanted->count);
    for (size_t i = 0; i < wanted->count; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, (int)i);

        assert_int_equal(name->type, GEN_DNS);
        assert_string_equal((const char *)ASN1_STRING_get0_data(name->d.dNSName),
                            wanted->items[i]);
        assert_int_equal(ASN1_STRING_length(name->d.dNSName), strlen(wanted->items[i]));
    }
    GENERAL_NAMES_free(names);
}

static void assert_only_name(X509_REQ *request, const char *domain, int critical)
{
    assert_names(request, names_of(domain), critical);
}

static void the_signed_part_is_that_of_the_python_service(void **state)
{
    const json_t *vector = json_object_get(*state, "csr");
    EVP_PKEY *key = vectors_derive(*state, vectors_text(vector, "key"));
    X509_REQ *request = build(key, vectors_text(vector, "domain"));
    size_t wanted_len;
    unsigned char *wanted = vectors_bytes(vectors_text(vector, "tbs_der"), &wanted_len);
    unsigned char *tbs = NULL;
    int tbs_len = i2d_re_X509_REQ_tbs(request, &tbs);

    assert_int_equal(tbs_len, (int)wanted_len);
    assert_memory_equal(tbs, wanted, wanted_len);
    OPENSSL_free(tbs);
    free(wanted);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
}

static void requests_are_signed_with_ecdsa_and_sha256(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "sha256(abc)");
    X509_REQ *request = build(key, "peer.test");

    assert_int_equal(X509_REQ_verify(request, key), 1);
    assert_int_equal(X509_REQ_get_signature_nid(request), NID_ecdsa_with_SHA256);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
}

static void the_longest_common_name_has_64_bytes(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    X509_REQ *request = build(key, FITTING);
    char name[100];

    assert_int_equal(strlen(FITTING), 64);
    assert_int_equal(X509_NAME_get_text_by_NID(X509_REQ_get_subject_name(request),
                                               NID_commonName, name, sizeof name),
                     64);
    assert_string_equal(name, FITTING);
    assert_only_name(request, FITTING, 0);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
}

static void longer_names_stand_only_in_a_critical_extension(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    X509_REQ *request = build(key, TOO_LONG);

    assert_int_equal(strlen(TOO_LONG), 65);
    assert_int_equal(X509_NAME_entry_count(X509_REQ_get_subject_name(request)), 0);
    assert_only_name(request, TOO_LONG, 1);
    assert_int_equal(X509_REQ_verify(request, key), 1);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
}

static void more_names_stand_behind_the_first(void **state)
{
    static const char names[] = "peer.test www.peer.test other.test";
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    X509_REQ *request = build(key, names);
    char name[100];

    assert_int_equal(X509_NAME_entry_count(X509_REQ_get_subject_name(request)), 1);
    X509_NAME_get_text_by_NID(X509_REQ_get_subject_name(request), NID_commonName, name,
                              sizeof name);
    assert_string_equal(name, "peer.test");
    assert_names(request, names_of(names), 0);
    X509_REQ_free(request);
    request = build(key, TOO_LONG " peer.test");
    assert_int_equal(X509_NAME_entry_count(X509_REQ_get_subject_name(request)), 0);
    assert_names(request, names_of(TOO_LONG " peer.test"), 1);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
}

static void a_hundred_of_the_longest_names_fit(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    struct err err = ERR_INIT;
    BUF_SCOPED pem;

    buf_init(&pem, CSR_MAX_BYTES);
    assert_int_equal(csr_build(key, names_of_length(CONFIG_DOMAINS_MAX), &pem, &err), 0);
    EVP_PKEY_free(key);
}

static void requests_are_appended(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    struct err err = ERR_INIT;
    BUF_SCOPED pem;

    buf_init(&pem, 16 * 1024);
    assert_int_equal(buf_append_str(&pem, "before\n", &err), 0);
    assert_int_equal(csr_build(key, names_of("peer.test"), &pem, &err), 0);
    assert_memory_equal(pem.data, "before\n-----BEGIN CERTIFICATE REQUEST-----\n", 43);
    EVP_PKEY_free(key);
}

static void assert_refused(EVP_PKEY *key, const char *names, size_t max,
                           enum err_kind kind)
{
    struct err err = ERR_INIT;
    BUF_SCOPED pem;

    buf_init(&pem, max);
    assert_int_equal(csr_build(key, names_of(names), &pem, &err), -1);
    assert_int_equal(err.kind, kind);
    assert_int_equal(pem.len, 0);
    pki_assert_queue_empty();
}

static void what_cannot_be_requested_is_refused(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    EVP_PKEY *rsa = pki_key_of("RSA", "2048");
    EVP_PKEY *ed25519 = pki_key_of("ED25519", NULL);
    size_t len;
    unsigned char *der =
        vectors_bytes(vectors_text(vectors_key(*state, "32x02"), "spki_der"), &len);
    const unsigned char *at = der;
    EVP_PKEY *public_only = d2i_PUBKEY(NULL, &at, (long)len);

    assert_refused(key, "", 4096, ERR_CONFIG);
    assert_refused(key, "*.peer.test", 4096, ERR_CONFIG);
    assert_refused(key, "peer.test *.peer.test", 4096, ERR_CONFIG);
    assert_refused(key, "b\xc3\xbc.test", 4096, ERR_CONFIG);
    assert_refused(key, "peer.test\n", 4096, ERR_CONFIG);
    assert_refused(key, "peer.test", 100, ERR_PEER); /* the buffer's limit */
    assert_refused(rsa, "peer.test", 4096, ERR_CRYPTO);
    assert_refused(ed25519, "peer.test", 4096, ERR_CRYPTO);
    assert_refused(public_only, "peer.test", 4096, ERR_CRYPTO);
    EVP_PKEY_free(public_only);
    free(der);
    EVP_PKEY_free(ed25519);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_signed_part_is_that_of_the_python_service),
        cmocka_unit_test(requests_are_signed_with_ecdsa_and_sha256),
        cmocka_unit_test(the_longest_common_name_has_64_bytes),
        cmocka_unit_test(longer_names_stand_only_in_a_critical_extension),
        cmocka_unit_test(more_names_stand_behind_the_first),
        cmocka_unit_test(a_hundred_of_the_longest_names_fit),
        cmocka_unit_test(requests_are_appended),
        cmocka_unit_test(what_cannot_be_requested_is_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
