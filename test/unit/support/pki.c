#include "support/pki.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

EVP_PKEY *pki_key(void)
{
    return pki_key_of("EC", "P-256");
}

EVP_PKEY *pki_key_of(const char *type, const char *group_or_bits)
{
    EVP_PKEY *key;

    if (strcmp(type, "RSA") == 0)
        key =
            EVP_PKEY_Q_keygen(NULL, NULL, type, (size_t)strtoul(group_or_bits, NULL, 10));
    else if (strcmp(type, "EC") == 0)
        key = EVP_PKEY_Q_keygen(NULL, NULL, type, group_or_bits);
    else
        key = EVP_PKEY_Q_keygen(NULL, NULL, type);
    assert_non_null(key);
    return key;
}

static void set_serial(X509 *certificate, const char *text)
{
    BIGNUM *number = NULL;

    assert_true(BN_asc2bn(&number, text == NULL ? "1" : text) == 1);
    assert_non_null(BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)));
    BN_free(number);
}

static void set_subject(X509 *certificate, const struct pki_spec *spec)
{
    X509_NAME *name = X509_get_subject_name(certificate);
    int type = spec->common_name_type != 0 ? spec->common_name_type : V_ASN1_UTF8STRING;
    int len = spec->common_name_len != 0 ? (int)spec->common_name_len : -1;

    if (spec->organization != NULL)
        assert_int_equal(X509_NAME_add_entry_by_NID(
                             name, NID_organizationName, V_ASN1_UTF8STRING,
                             (const unsigned char *)spec->organization, -1, -1, 0),
                         1);
    if (spec->common_name != NULL)
        assert_int_equal(X509_NAME_add_entry_by_NID(
                             name, NID_commonName, type,
                             (const unsigned char *)spec->common_name, len, -1, 0),
                         1);
}

void pki_add_extension(X509 *certificate, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

void pki_sign(X509 *certificate, EVP_PKEY *issuer_key)
{
    bool digestless = EVP_PKEY_is_a(issuer_key, "ED25519") == 1;

    assert_true(X509_sign(certificate, issuer_key, digestless ? NULL : EVP_sha256()) > 0);
}

X509 *pki_certificate(const struct pki_spec *spec, EVP_PKEY *key, const X509 *issuer,
                      EVP_PKEY *issuer_key)
{
    int64_t not_before = spec->not_before != 0 ? spec->not_before : PKI_NOW - PKI_DAY;
    int64_t not_after =
        spec->not_after != 0 ? spec->not_after : not_before + 90 * PKI_DAY;
    X509 *certificate = X509_new();

    assert_non_null(certificate);
    assert_int_equal(X509_set_version(certificate, X509_VERSION_3), 1);
    set_serial(certificate, spec->serial);
    set_subject(certificate, spec);
    assert_int_equal(
        X509_set_issuer_name(
            certificate, X509_get_subject_name(issuer != NULL ? issuer : certificate)),
        1);
    assert_non_null(ASN1_TIME_set(X509_getm_notBefore(certificate), (time_t)not_before));
    assert_non_null(ASN1_TIME_set(X509_getm_notAfter(certificate), (time_t)not_after));
    assert_int_equal(X509_set_pubkey(certificate, key), 1);
    if (!spec->without_constraints)
        pki_add_extension(certificate, NID_basic_constraints,
                          spec->ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (spec->ca)
        pki_add_extension(certificate, NID_key_usage, "critical,keyCertSign,cRLSign");
    if (spec->names != NULL)
        pki_add_extension(certificate, NID_subject_alt_name, spec->names);
    pki_sign(certificate, issuer_key);
    return certificate;
}

/* Consumes the BIO. */
static char *text_of(BIO *bio)
{
    const char *text;
    size_t len = (size_t)BIO_get_mem_data(bio, &text);
    char *copy = malloc(len + 1);

    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, text, len);
    copy[len] = '\0';
    BIO_free(bio);
    return copy;
}

char *pki_pem(X509 *first, ...)
{
    BIO *bio = BIO_new(BIO_s_mem());
    va_list more;

    va_start(more, first);
    for (X509 *at = first; at != NULL; at = va_arg(more, X509 *))
        assert_int_equal(PEM_write_bio_X509(bio, at), 1);
    va_end(more);
    return text_of(bio);
}

char *pki_block(const char *label, const void *bytes, size_t len)
{
    BIO *bio = BIO_new(BIO_s_mem());

    assert_true(PEM_write_bio(bio, label, "", bytes, (long)len) > 0);
    return text_of(bio);
}

char *pki_key_pem(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());

    assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL),
                     1);
    return text_of(bio);
}

void pki_chain_init(struct pki_chain *chain, const struct pki_spec *leaf)
{
    static const struct pki_spec root = {.common_name = "Test Root", .ca = true};
    static const struct pki_spec intermediate = {
        .common_name = "Test Intermediate", .organization = "Test CA", .ca = true};

    chain->root_key = pki_key();
    chain->intermediate_key = pki_key();
    chain->leaf_key = pki_key();
    chain->root = pki_certificate(&root, chain->root_key, NULL, chain->root_key);
    chain->intermediate = pki_certificate(&intermediate, chain->intermediate_key,
                                          chain->root, chain->root_key);
    chain->leaf = pki_certificate(leaf, chain->leaf_key, chain->intermediate,
                                  chain->intermediate_key);
}

void pki_chain_done(struct pki_chain *chain)
{
    X509_free(chain->leaf);
    X509_free(chain->intermediate);
    X509_free(chain->root);
    EVP_PKEY_free(chain->leaf_key);
    EVP_PKEY_free(chain->intermediate_key);
    EVP_PKEY_free(chain->root_key);
}

void pki_assert_queue_empty(void)
{
    unsigned long code = ERR_peek_error();

    if (code != 0)
        fail_msg("OpenSSL's error queue holds: %s", ERR_error_string(code, NULL));
}
