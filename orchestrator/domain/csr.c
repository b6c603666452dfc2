#include "domain/csr.h"

#include "domain/hostname.h"
#include "domain/x509_parts.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdbool.h>
#include <string.h>

static bool add_extensions(X509_REQ *request, const struct config_list *names,
                           bool critical)
{
    GENERAL_NAMES *alternatives = GENERAL_NAMES_new();
    STACK_OF(X509_EXTENSION) *extensions = NULL;
    bool added = alternatives != NULL && x509_add_dns_names(alternatives, names, 0) &&
                 X509V3_add1_i2d(&extensions, NID_subject_alt_name, alternatives,
                                 critical, X509V3_ADD_DEFAULT) == 1 &&
                 X509_REQ_add_extensions(request, extensions) == 1;

    sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
    GENERAL_NAMES_free(alternatives);
    return added;
}

/* The bytes as the Python service made them: version 0, common name as UTF8String. */
static bool fill(X509_REQ *request, EVP_PKEY *key, const struct config_list *names)
{
    const char *domain = names->items[0];
    bool named = strlen(domain) <= X509_COMMON_NAME_MAX_BYTES;

    if (X509_REQ_set_version(request, X509_REQ_VERSION_1) != 1)
        return false;
    if (named &&
        !x509_add_name_entry(X509_REQ_get_subject_name(request), NID_commonName, domain))
        return false;
    return X509_REQ_set_pubkey(request, key) == 1 &&
           add_extensions(request, names, !named) &&
           X509_REQ_sign(request, key, EVP_sha256()) > 0;
}

int csr_build(EVP_PKEY *key, const struct config_list *names, struct buf *ret,
              struct err *err)
{
    X509_REQ *request = NULL;
    BIO *bio = NULL;
    int failed = 0;

    for (size_t i = 0; i < names->count; i++) {
        if (hostname_check(names->items[i], err) < 0)
            return -1;
    }
    if (!EVP_PKEY_is_a(key, "EC"))
        return err_set(err, ERR_CRYPTO, "certificate request: the key is not an EC key");
    request = X509_REQ_new();
    bio = BIO_new(BIO_s_mem());
    if (request == NULL || bio == NULL || !fill(request, key, names) ||
        PEM_write_bio_X509_REQ(bio, request) != 1)
        failed =
            err_openssl(err, "cannot make a certificate request for %s", names->items[0]);
    else
        failed = x509_append_written(bio, ret, err);
    BIO_free(bio);
    X509_REQ_free(request);
    ERR_clear_error();
    return failed;
}
