#include "domain/csr.h"

#include "domain/hostname.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <string.h>

enum { COMMON_NAME_MAX_BYTES = 64 }; /* RFC 5280 A.1, ub-common-name */

static GENERAL_NAMES *alternative_names(const char *domain)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();

    if (names != NULL && name != NULL && text != NULL &&
        ASN1_STRING_set(text, domain, -1) == 1) {
        GENERAL_NAME_set0_value(name, GEN_DNS, text);
        text = NULL;
        if (sk_GENERAL_NAME_push(names, name) > 0)
            return names;
    }
    ASN1_IA5STRING_free(text);
    GENERAL_NAME_free(name);
    GENERAL_NAMES_free(names);
    return NULL;
}

static bool add_extensions(X509_REQ *request, const char *domain, bool critical)
{
    GENERAL_NAMES *names = alternative_names(domain);
    STACK_OF(X509_EXTENSION) *extensions = NULL;
    bool added = names != NULL &&
                 X509V3_add1_i2d(&extensions, NID_subject_alt_name, names, critical,
                                 X509V3_ADD_DEFAULT) == 1 &&
                 X509_REQ_add_extensions(request, extensions) == 1;

    sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
    GENERAL_NAMES_free(names);
    return added;
}

/* The bytes as the Python service made them: version 0, common name as UTF8String. */
static bool fill(X509_REQ *request, EVP_PKEY *key, const char *domain)
{
    const unsigned char *common_name = (const unsigned char *)domain;
    bool named = strlen(domain) <= COMMON_NAME_MAX_BYTES;

    if (X509_REQ_set_version(request, X509_REQ_VERSION_1) != 1)
        return false;
    if (named &&
        X509_NAME_add_entry_by_NID(X509_REQ_get_subject_name(request), NID_commonName,
                                   V_ASN1_UTF8STRING, common_name, -1, -1, 0) != 1)
        return false;
    return X509_REQ_set_pubkey(request, key) == 1 &&
           add_extensions(request, domain, !named) &&
           X509_REQ_sign(request, key, EVP_sha256()) > 0;
}

int csr_build(EVP_PKEY *key, const char *domain, struct buf *ret, struct err *err)
{
    X509_REQ *request = NULL;
    BIO *bio = NULL;
    const char *text;
    int failed = 0;

    if (hostname_check(domain, err) < 0)
        return -1;
    if (!EVP_PKEY_is_a(key, "EC"))
        return err_set(err, ERR_CRYPTO, "certificate request: the key is not an EC key");
    request = X509_REQ_new();
    bio = BIO_new(BIO_s_mem());
    if (request == NULL || bio == NULL || !fill(request, key, domain) ||
        PEM_write_bio_X509_REQ(bio, request) != 1)
        failed = err_openssl(err, "cannot make a certificate request for %s", domain);
    else {
        size_t len = (size_t)BIO_get_mem_data(bio, &text);

        failed = buf_append(ret, text, len, err);
    }
    BIO_free(bio);
    X509_REQ_free(request);
    ERR_clear_error();
    return failed;
}
