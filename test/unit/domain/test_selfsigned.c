#include "domain/selfsigned.h"

#include "support/names.h"
#include "support/pki.h"
#include "support/vectors.h"

#include <openssl/bn.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

/* 65 bytes: one more than a common name can hold. */
#define TOO_LONG "abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz.abc.example"

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

static X509 *build_at(EVP_PKEY *key, const char *names, int64_t now)
{
    struct err err = ERR_INIT;
    X509 *certificate;
    BUF_SCOPED pem;
    BIO *bio;

    buf_init(&pem, 16 * 1024);
    if (selfsigned_build(key, names_of(names), now, &pem, &err) < 0)
        fail_msg("%s", err.message);
    pki_assert_queue_empty();
    bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    assert_non_null(certificate);
    assert_int_equal(BIO_pending(bio), 0);
    BIO_free(bio);
    return certificate;
}

static X509 *build(void **state, const char *names)
{
    EVP_PKEY *key = vectors_derive(*state, "32x01");
    X509 *certificate = build_at(key, names, PKI_NOW);

    EVP_PKEY_free(key);
    return certificate;
}

static void the_fields_are_those_of_the_python_service(void **state)
{
    /* Measured: O as UTF8String, then CN as UTF8String. */
    static const char subject_hex[] =
        "3030311a3018060355040a0c11436f6e637265746520536563757269747931123010060355"
        "04030c096c6f63616c686f7374";
    size_t wanted_len;
    unsigned char *wanted = vectors_bytes(subject_hex, &wanted_len);
    X509 *certificate = build(state, "localhost");
    EVP_PKEY *key = vectors_derive(*state, "32x01");
    unsigned char *subject = NULL;
    int len = i2d_X509_NAME(X509_get_subject_name(certificate), &subject);

    assert_int_equal(len, (int)wanted_len);
    assert_memory_equal(subject, wanted, wanted_len);
    assert_int_equal(X509_NAME_cmp(X509_get_subject_name(certificate),
                                   X509_get_issuer_name(certificate)),
                     0);
    assert_int_equal(X509_get_version(certificate), X509_VERSION_3);
    assert_int_equal(X509_get_signature_nid(certificate), NID_ecdsa_with_SHA256);
    assert_int_equal(X509_verify(certificate, key), 1);
    assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(certificate), key), 1);
    assert_int_equal(X509_get_ext_count(certificate), 1);
    OPENSSL_free(subject);
    EVP_PKEY_free(key);
    X509_free(certificate);
    free(wanted);
}

static void assert_names(X509 *certificate, const char *const *wanted)
{
    int critical;
    GENERAL_NAMES *names =
        X509_get_ext_d2i(certificate, NID_subject_alt_name, &critical, NULL);
    int count = 0;

    assert_non_null(names);
    assert_int_equal(critical, 0);
    for (; wanted[count] != NULL; count++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, count);

        assert_non_null(name);
        assert_int_equal(name->type, GEN_DNS);
        assert_string_equal((const char *)ASN1_STRING_get0_data(name->d.dNSName),
                            wanted[count]);
    }
    assert_int_equal(sk_GENERAL_NAME_num(names), count);
    GENERAL_NAMES_free(names);
}

static void every_name_stands_in_it_once(void **state)
{
    static const char *const ordinary[] = {"peer.test", "*.peer.test", "localhost", NULL};
    static const char *const local[] = {"localhost", "*.localhost", NULL};
    static const char *const upper[] = {"LocalHost", "*.LocalHost", NULL};
    static const char *const more[] = {"peer.test",  "*.peer.test", "www.peer.test",
                                       "other.test", "localhost",   NULL};
    static const char *const more_local[] = {"peer.test", "*.peer.test", "localhost",
                                             "a.test", NULL};
    X509 *certificate = build(state, "peer.test");

    assert_names(certificate, ordinary);
    X509_free(certificate);
    certificate = build(state, "localhost");
    assert_names(certificate, local);
    X509_free(certificate);
    certificate = build(state, "LocalHost");
    assert_names(certificate, upper);
    X509_free(certificate);
    certificate = build(state, "peer.test www.peer.test other.test");
    assert_names(certificate, more);
    X509_free(certificate);
    certificate = build(state, "peer.test localhost a.test");
    assert_names(certificate, more_local);
    X509_free(certificate);
}

static void a_long_domain_has_no_common_name(void **state)
{
    static const char *const names[] = {TOO_LONG, "*." TOO_LONG, "localhost", NULL};
    X509 *certificate = build(state, TOO_LONG);
    X509_NAME *subject = X509_get_subject_name(certificate);

    assert_int_equal(strlen(TOO_LONG), 65);
    assert_int_equal(X509_NAME_get_index_by_NID(subject, NID_commonName, -1), -1);
    assert_int_equal(X509_NAME_entry_count(subject), 1);
    assert_names(certificate, names);
    X509_free(certificate);
    certificate = build(state, &TOO_LONG[1]);
    subject = X509_get_subject_name(certificate);
    assert_true(X509_NAME_get_index_by_NID(subject, NID_commonName, -1) >= 0);
    X509_free(certificate);
}

static void the_longest_domain_fits(void **state)
{
    char domain[254];

    memset(domain, 'a', sizeof domain);
    for (size_t i = 60; i < 250; i += 60)
        domain[i] = '.';
    domain[253] = '\0';
    X509_free(build(state, domain));
}

static void it_is_valid_for_365_days(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x01");
    X509 *certificate = build_at(key, "peer.test", PKI_NOW);
    int days;
    int seconds;

    assert_int_equal(X509_get0_notBefore(certificate)->type, V_ASN1_UTCTIME);
    assert_string_equal(
        (const char *)ASN1_STRING_get0_data(X509_get0_notBefore(certificate)),
        "261123184907Z");
    assert_string_equal(
        (const char *)ASN1_STRING_get0_data(X509_get0_notAfter(certificate)),
        "271123184907Z");
    X509_free(certificate);

    /* From 2050 on RFC 5280 §4.1.2.5 wants the other kind of time. */
    certificate = build_at(key, "peer.test", INT64_C(2524608000) - 1);
    assert_int_equal(X509_get0_notBefore(certificate)->type, V_ASN1_UTCTIME);
    assert_int_equal(X509_get0_notAfter(certificate)->type, V_ASN1_GENERALIZEDTIME);
    assert_int_equal(ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(certificate),
                                    X509_get0_notAfter(certificate)),
                     1);
    assert_int_equal(days, 365);
    assert_int_equal(seconds, 0);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void serials_are_random_and_positive(void **state)
{
    BIGNUM *last = BN_new();

    for (int i = 0; i < 20; i++) {
        X509 *certificate = build(state, "peer.test");
        BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);

        assert_false(BN_is_negative(serial));
        assert_false(BN_is_zero(serial));
        assert_true(BN_num_bits(serial) <= 159);
        assert_true(BN_num_bits(serial) >= 64);
        assert_true(BN_cmp(serial, last) != 0);
        BN_free(last);
        last = serial;
        X509_free(certificate);
    }
    BN_free(last);
}

static void assert_refused(EVP_PKEY *key, const char *names, size_t max,
                           enum err_kind kind)
{
    struct err err = ERR_INIT;
    BUF_SCOPED pem;

    buf_init(&pem, max);
    assert_int_equal(selfsigned_build(key, names_of(names), PKI_NOW, &pem, &err), -1);
    assert_int_equal(err.kind, kind);
    assert_int_equal(pem.len, 0);
    pki_assert_queue_empty();
}

static void what_cannot_be_certified_is_refused(void **state)
{
    EVP_PKEY *key = vectors_derive(*state, "32x02");
    EVP_PKEY *rsa = pki_key_of("RSA", "2048");
    struct err err = ERR_INIT;
    BUF_SCOPED pem;

    assert_refused(key, "", 4096, ERR_CONFIG);
    assert_refused(key, "peer.test *.peer.test", 4096, ERR_CONFIG);
    assert_refused(key, "192.0.2.1", 4096, ERR_CONFIG);
    assert_refused(key, "peer.test", 100, ERR_PEER); /* the buffer's limit */
    assert_refused(rsa, "peer.test", 4096, ERR_CRYPTO);
    buf_init(&pem, 4096); /* beyond the year 9999 */
    assert_int_equal(
        selfsigned_build(key, names_of("peer.test"), INT64_C(253402300799), &pem, &err),
        -1);
    assert_int_equal(err.kind, ERR_CRYPTO);
    pki_assert_queue_empty();
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fields_are_those_of_the_python_service),
        cmocka_unit_test(every_name_stands_in_it_once),
        cmocka_unit_test(a_long_domain_has_no_common_name),
        cmocka_unit_test(the_longest_domain_fits),
        cmocka_unit_test(it_is_valid_for_365_days),
        cmocka_unit_test(serials_are_random_and_positive),
        cmocka_unit_test(what_cannot_be_certified_is_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
