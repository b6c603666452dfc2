#include "domain/selfsigned.h"

#include "domain/hostname.h"
#include "domain/x509_parts.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define ORGANIZATION "Concrete Security"
#define LOCALHOST "localhost"

enum {
    DOMAIN_MAX_BYTES = 253,
    VALID_DAYS = 365,
    SERIAL_BITS = 159, /* positive, and at most 20 bytes (RFC 5280 §4.1.2.2) */
};

static bool set_serial(X509 *certificate)
{
    BIGNUM *number = BN_new();
    bool set = number != NULL &&
               BN_rand(number, SERIAL_BITS, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
               BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL;

    BN_free(number);
    return set;
}

static bool set_names(X509 *certificate, const char *domain)
{
    X509_NAME *name = X509_get_subject_name(certificate);

    if (!x509_add_name_entry(name, NID_organizationName, ORGANIZATION))
        return false;
    if (strlen(domain) <= X509_COMMON_NAME_MAX_BYTES &&
        !x509_add_name_entry(name, NID_commonName, domain))
        return false;
    return X509_set_issuer_name(certificate, name) == 1;
}

static bool is_among(const struct config_list *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcasecmp(names->items[i], name) == 0)
            return true;
    }
    return false;
}

static bool add_alternative_names(X509 *certificate, const struct config_list *names)
{
    char wildcard[sizeof "*." + DOMAIN_MAX_BYTES];
    GENERAL_NAMES *alternatives = GENERAL_NAMES_new();
    bool added;

    snprintf(wildcard, sizeof wildcard, "*.%s", names->items[0]);
    added = alternatives != NULL && x509_add_dns_name(alternatives, names->items[0]) &&
            x509_add_dns_name(alternatives, wildcard) &&
            x509_add_dns_names(alternatives, names, 1) &&
            (is_among(names, LOCALHOST) || x509_add_dns_name(alternatives, LOCALHOST)) &&
            X509_add1_ext_i2d(certificate, NID_subject_alt_name, alternatives, 0,
                              X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(alternatives);
    return added;
}

static bool fill(X509 *certificate, EVP_PKEY *key, const struct config_list *names,
                 int64_t now)
{
    time_t start = (time_t)now;

    return X509_set_version(certificate, X509_VERSION_3) == 1 &&
           set_serial(certificate) && set_names(certificate, names->items[0]) &&
           ASN1_TIME_adj(X509_getm_notBefore(certificate), start, 0, 0) != NULL &&
           ASN1_TIME_adj(X509_getm_notAfter(certificate), start, VALID_DAYS, 0) != NULL &&
           X509_set_pubkey(certificate, key) == 1 &&
           add_alternative_names(certificate, names) &&
           X509_sign(certificate, key, EVP_sha256()) > 0;
}

int selfsigned_build(EVP_PKEY *key, const struct config_list *names, int64_t now,
                     struct buf *ret, struct err *err)
{
    X509 *certificate = NULL;
    BIO *bio = NULL;
    int failed = 0;

    for (size_t i = 0; i < names->count; i++) {
        if (hostname_check(names->items[i], err) < 0)
            return -1;
    }
    if (!EVP_PKEY_is_a(key, "EC"))
        return err_set(err, ERR_CRYPTO,
                       "self-signed certificate: the key is not an EC key");
    certificate = X509_new();
    bio = BIO_new(BIO_s_mem());
    if (certificate == NULL || bio == NULL || !fill(certificate, key, names, now) ||
        PEM_write_bio_X509(bio, certificate) != 1)
        failed = err_openssl(err, "cannot make a self-signed certificate for %s",
                             names->items[0]);
    else
        failed = x509_append_written(bio, ret, err);
    BIO_free(bio);
    X509_free(certificate);
    ERR_clear_error();
    return failed;
}
