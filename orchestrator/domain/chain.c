#include "domain/chain.h"

#include "base/text.h"

#include <errno.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SERIAL_MAX_BYTES = 20,        /* RFC 5280 §4.1.2.2 */
    CLOCK_TOLERANCE_S = 5 * 60,   /* see chain_check_fit */
    AUTH_LEVEL = 2,               /* no SHA-1, no RSA below 2048 bits */
    NAMES_IN_MESSAGE_BYTES = 400, /* room for everything else in an error */
};

struct chain {
    X509 *certificates[CHAIN_MAX_CERTIFICATES];
    size_t count;
    struct chain_leaf leaf;
};

/* ---- text out of certificates: printable ASCII, everything else escaped ---- */

/* Cut to the size, which shows as dots at the end. */
static void take_text(BIO *bio, char *ret, size_t size)
{
    static const char dots[] = "...";
    const char *text;
    size_t len = (size_t)BIO_get_mem_data(bio, &text);
    size_t kept = len < size ? len : size - 1;

    if (kept > 0)
        memcpy(ret, text, kept);
    ret[kept] = '\0';
    if (kept < len)
        memcpy(ret + size - sizeof dots, dots, sizeof dots);
}

static int print_string(BIO *bio, const ASN1_STRING *string)
{
    return ASN1_STRING_print_ex(bio, string,
                                ASN1_STRFLGS_ESC_CTRL | ASN1_STRFLGS_ESC_MSB |
                                    ASN1_STRFLGS_UTF8_CONVERT) < 0
               ? -1
               : 0;
}

static int name_text(const X509_NAME *name, char *ret, size_t size)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int failed = -1;

    if (bio != NULL && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0) {
        take_text(bio, ret, size);
        failed = 0;
    }
    BIO_free(bio);
    return failed;
}

/* The first entry of the kind; "" when there is none. */
static int entry_text(const X509_NAME *name, int nid, char *ret, size_t size)
{
    int at = X509_NAME_get_index_by_NID(name, nid, -1);
    BIO *bio;
    int failed = -1;

    ret[0] = '\0';
    if (at < 0)
        return 0;
    bio = BIO_new(BIO_s_mem());
    if (bio != NULL &&
        print_string(bio, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at))) == 0) {
        take_text(bio, ret, size);
        failed = 0;
    }
    BIO_free(bio);
    return failed;
}

/* ---- parsing ---- */

/*
 * Before anything is decoded: every block is a certificate, and there are not too many.
 * So a private key that somebody put into the file is never decoded into ordinary memory.
 */
static int check_blocks(const char *pem, size_t len, size_t *ret_count, struct err *err)
{
    static const char begin[] = "-----BEGIN ";
    static const char wanted[] = "CERTIFICATE-----";
    static const char label_bytes[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789. ";
    const char *end = pem + len;
    const char *at = pem;
    size_t count = 0;

    while ((at = memmem(at, (size_t)(end - at), begin, strlen(begin))) != NULL) {
        at += strlen(begin);
        count++;
        if ((size_t)(end - at) < strlen(wanted) ||
            memcmp(at, wanted, strlen(wanted)) != 0) {
            int shown = 0;

            while (shown < 40 && at + shown < end &&
                   strchr(label_bytes, at[shown]) != NULL)
                shown++;
            return err_set(err, ERR_CRYPTO,
                           "PEM block %zu is \"%.*s\", only \"CERTIFICATE\" may be there",
                           count, shown, at);
        }
    }
    if (count == 0)
        return err_set(err, ERR_CRYPTO, "no certificate in PEM form found");
    if (count > CHAIN_MAX_CERTIFICATES)
        return err_set(err, ERR_CRYPTO, "%zu certificates, at most %d are allowed", count,
                       CHAIN_MAX_CERTIFICATES);
    *ret_count = count;
    return 0;
}

/* What nginx will send is this encoding, so it must be what the file holds. */
static bool is_canonical(X509 *certificate, const unsigned char *der, size_t len)
{
    unsigned char *again = NULL;
    int again_len = i2d_X509(certificate, &again);
    bool same =
        again_len >= 0 && (size_t)again_len == len && memcmp(again, der, len) == 0;

    OPENSSL_free(again);
    return same;
}

static int decode(const unsigned char *der, size_t len, size_t position, X509 **ret,
                  struct err *err)
{
    const unsigned char *at = der;
    X509 *certificate = d2i_X509(NULL, &at, (long)len);
    int failed = 0;

    if (certificate == NULL)
        return err_openssl(err, "certificate %zu: not an X.509 certificate", position);
    if (at != der + len)
        failed =
            err_set(err, ERR_CRYPTO, "certificate %zu: %td more bytes behind its end",
                    position, der + len - at);
    else if (!is_canonical(certificate, der, len))
        failed = err_openssl(err, "certificate %zu: not in DER", position);
    else if ((X509_get_extension_flags(certificate) & EXFLAG_INVALID) != 0)
        failed = err_openssl(err, "certificate %zu: malformed extensions", position);
    if (failed < 0)
        X509_free(certificate);
    else
        *ret = certificate;
    return failed;
}

static int read_certificate(BIO *bio, size_t position, X509 **ret, struct err *err)
{
    unsigned char *der = NULL;
    char *header = NULL;
    char *name = NULL;
    long len = 0;
    int failed;

    if (PEM_read_bio(bio, &name, &header, &der, &len) != 1)
        failed = err_openssl(err, "certificate %zu: damaged PEM", position);
    else if (strcmp(name, PEM_STRING_X509) != 0 || header[0] != '\0')
        failed = err_set(err, ERR_CRYPTO, "certificate %zu: PEM headers are not allowed",
                         position);
    else
        failed = decode(der, (size_t)len, position, ret, err);
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(der);
    return failed;
}

static int read_time(const ASN1_TIME *when, const char *what, int64_t *ret,
                     struct err *err)
{
    struct tm parts;

    if (ASN1_TIME_to_tm(when, &parts) != 1)
        return err_openssl(err, "certificate 1: %s is not a time", what);
    *ret = timegm(&parts);
    return 0;
}

static int read_serial(const ASN1_INTEGER *serial, char *ret, struct err *err)
{
    int len = ASN1_STRING_length(serial);

    if (len < 0 || len > SERIAL_MAX_BYTES)
        return err_set(err, ERR_CRYPTO,
                       "certificate 1: serial number of %d bytes, at most %d are allowed",
                       len, SERIAL_MAX_BYTES);
    /* RFC 5280 forbids negative ones and asks to live with them. */
    if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER)
        *ret++ = '-';
    text_hex(ret, ASN1_STRING_get0_data(serial), (size_t)len);
    return 0;
}

static int describe_leaf(const X509 *certificate, struct chain_leaf *ret, struct err *err)
{
    const X509_NAME *subject = X509_get_subject_name(certificate);
    const X509_NAME *issuer = X509_get_issuer_name(certificate);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_len;

    if (X509_digest(certificate, EVP_sha256(), digest, &digest_len) != 1)
        return err_openssl(err, "certificate 1: cannot be hashed");
    text_hex(ret->sha256, digest, digest_len);
    if (X509_get0_pubkey(certificate) == NULL)
        return err_openssl(err, "certificate 1: its public key cannot be read");
    if (name_text(subject, ret->subject, sizeof ret->subject) < 0 ||
        name_text(issuer, ret->issuer, sizeof ret->issuer) < 0 ||
        entry_text(issuer, NID_commonName, ret->issuer_name, sizeof ret->issuer_name) < 0)
        return err_openssl(err, "certificate 1: a name in it cannot be read");
    if (ret->issuer_name[0] == '\0' &&
        entry_text(issuer, NID_organizationName, ret->issuer_name,
                   sizeof ret->issuer_name) < 0)
        return err_openssl(err, "certificate 1: a name in it cannot be read");
    ret->self_signed = X509_NAME_cmp(subject, issuer) == 0;
    renewal_info_id(certificate, ret->renewal_id);
    if (read_serial(X509_get0_serialNumber(certificate), ret->serial, err) < 0 ||
        read_time(X509_get0_notBefore(certificate), "notBefore", &ret->not_before, err) <
            0 ||
        read_time(X509_get0_notAfter(certificate), "notAfter", &ret->not_after, err) < 0)
        return -1;
    return 0;
}

static int parse(const void *pem, size_t len, struct chain *chain, struct err *err)
{
    BIO *bio;
    size_t wanted = 0;

    if (check_blocks(pem, len, &wanted, err) < 0)
        return -1;
    bio = BIO_new_mem_buf(pem, (int)len);
    if (bio == NULL)
        return err_openssl(err, "cannot read certificates");
    while (chain->count < wanted &&
           read_certificate(bio, chain->count + 1, &chain->certificates[chain->count],
                            err) == 0)
        chain->count++;
    BIO_free(bio);
    if (chain->count < wanted)
        return -1;
    return describe_leaf(chain->certificates[0], &chain->leaf, err);
}

int chain_parse(const void *pem, size_t len, struct chain **ret, struct err *err)
{
    struct chain *chain;

    if (len == 0)
        return err_set(err, ERR_CRYPTO, "the certificate file is empty");
    if (len > CHAIN_PEM_MAX_BYTES)
        return err_set(err, ERR_CRYPTO, "%zu bytes of certificates, at most %d allowed",
                       len, CHAIN_PEM_MAX_BYTES);
    if (memchr(pem, '\0', len) != NULL)
        return err_set(err, ERR_CRYPTO, "zero bytes in it: not certificates in PEM form");
    chain = calloc(1, sizeof *chain);
    if (chain == NULL)
        return err_sys(err, ENOMEM, "cannot read certificates");
    if (parse(pem, len, chain, err) < 0) {
        chain_free(chain);
        ERR_clear_error();
        return -1;
    }
    *ret = chain;
    ERR_clear_error();
    return 0;
}

void chain_free(struct chain *chain)
{
    if (chain == NULL)
        return;
    for (size_t i = 0; i < chain->count; i++)
        X509_free(chain->certificates[i]);
    free(chain);
}

/* ---- questions ---- */

const struct chain_leaf *chain_leaf(const struct chain *chain)
{
    return &chain->leaf;
}

size_t chain_length(const struct chain *chain)
{
    return chain->count;
}

const EVP_PKEY *chain_public_key(const struct chain *chain)
{
    return X509_get0_pubkey(chain->certificates[0]);
}

static bool lacked_memory;

bool chain_lacked_memory(void)
{
    bool lacked = lacked_memory;

    lacked_memory = false;
    return lacked;
}

/* The queue is empty then. */
static void note_lack_of_memory(void)
{
    unsigned long first = ERR_peek_error();

    if (first != 0 && ERR_GET_REASON(first) == ERR_R_MALLOC_FAILURE)
        lacked_memory = true;
    ERR_clear_error();
}

bool chain_has_key(const struct chain *chain, const EVP_PKEY *key)
{
    bool same = EVP_PKEY_eq(chain_public_key(chain), key) == 1;

    note_lack_of_memory(); /* keys of different types count as an error there */
    return same;
}

bool chain_covers(const struct chain *chain, const char *name)
{
    bool covers;

    /* X509_check_host takes ".example.org" as "anything below it". */
    if (name[0] == '\0' || name[0] == '.')
        return false;
    covers = X509_check_host(chain->certificates[0], name, 0,
                             X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
                                 X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
                             NULL) == 1;
    note_lack_of_memory();
    return covers;
}

const char *chain_lacks(const struct chain *chain, const struct config_list *names)
{
    for (size_t i = 0; i < names->count; i++) {
        if (!chain_covers(chain, names->items[i]))
            return names->items[i];
    }
    return NULL;
}

static bool string_contains(const ASN1_STRING *string, const char *word)
{
    BIO *bio = BIO_new(BIO_s_mem());
    const char *text;
    bool found = false;

    if (bio != NULL && print_string(bio, string) == 0 && BIO_write(bio, "", 1) == 1) {
        BIO_get_mem_data(bio, &text);
        found = strcasestr(text, word) != NULL;
    }
    BIO_free(bio);
    return found;
}

bool chain_issuer_contains(const struct chain *chain, const char *word)
{
    const X509_NAME *issuer = X509_get_issuer_name(chain->certificates[0]);
    bool found = false;
    int at = -1;

    while (!found && (at = X509_NAME_get_index_by_NID(issuer, NID_commonName, at)) >= 0)
        found = string_contains(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(issuer, at)),
                                word);
    note_lack_of_memory();
    return found;
}

/* ---- what a CA answered ---- */

/* The DNS names of the leaf, "none" when it has none. */
static void list_names(X509 *certificate, char *ret, size_t size)
{
    GENERAL_NAMES *names =
        X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    BIO *bio = BIO_new(BIO_s_mem());

    for (int i = 0; bio != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type != GEN_DNS)
            continue;
        if (BIO_pending(bio) > 0)
            BIO_puts(bio, ", ");
        print_string(bio, name->d.dNSName);
        if ((size_t)BIO_pending(bio) >= size)
            break;
    }
    if (bio != NULL && BIO_pending(bio) > 0)
        take_text(bio, ret, size);
    else
        snprintf(ret, size, "none");
    BIO_free(bio);
    GENERAL_NAMES_free(names);
}

static int check_validity(const struct chain_leaf *leaf, int64_t now, struct err *err)
{
    char edge[TEXT_TIME_SIZE];
    char present[TEXT_TIME_SIZE];

    if (leaf->not_before > now + CLOCK_TOLERANCE_S)
        return err_set(err, ERR_CRYPTO,
                       "the certificate is not valid before %s, and it is %s here",
                       text_time(edge, leaf->not_before), text_time(present, now));
    if (leaf->not_after < now)
        return err_set(err, ERR_CRYPTO,
                       "the certificate was valid until %s, and it is %s here",
                       text_time(edge, leaf->not_after), text_time(present, now));
    return 0;
}

/* NULL when `certificate` is signed by `issuer`, else why not. */
static const char *why_not_signed(X509 *certificate, X509 *issuer)
{
    int code;

    if (X509_NAME_cmp(X509_get_issuer_name(certificate), X509_get_subject_name(issuer)) !=
        0)
        return "its issuer has another name";
    if (X509_check_ca(issuer) == 0)
        return "that is not a CA's certificate";
    code = X509_check_issued(issuer, certificate);
    if (code != X509_V_OK)
        return X509_verify_cert_error_string(code);
    if (X509_verify(certificate, X509_get0_pubkey(issuer)) != 1)
        return "the signature is wrong";
    return NULL;
}

static int check_signatures(const struct chain *chain, struct err *err)
{
    char subject[160];
    char next[160];
    const char *why;

    for (size_t i = 0; i + 1 < chain->count; i++) {
        X509 *certificate = chain->certificates[i];
        X509 *issuer = chain->certificates[i + 1];

        why = why_not_signed(certificate, issuer);
        if (why == NULL)
            continue;
        if (name_text(X509_get_subject_name(certificate), subject, sizeof subject) < 0 ||
            name_text(X509_get_subject_name(issuer), next, sizeof next) < 0)
            return err_openssl(err, "certificate %zu is not signed by certificate %zu",
                               i + 1, i + 2);
        return err_set(
            err, ERR_CRYPTO,
            "certificate %zu (\"%s\") is not signed by certificate %zu (\"%s\"): %s",
            i + 1, subject, i + 2, next, why);
    }
    return 0;
}

static int check_fit(const struct chain *chain, const struct config_list *names,
                     int64_t now, struct err *err)
{
    char found[NAMES_IN_MESSAGE_BYTES];
    const char *lacking = chain_lacks(chain, names);

    if (lacking != NULL) {
        list_names(chain->certificates[0], found, sizeof found);
        return err_set(err, ERR_CRYPTO,
                       "the certificate is not for %s; its DNS names: %s", lacking,
                       found);
    }
    if (check_validity(&chain->leaf, now, err) < 0)
        return -1;
    return check_signatures(chain, err);
}

int chain_check_fit(const struct chain *chain, const struct config_list *names,
                    int64_t now, struct err *err)
{
    int failed = check_fit(chain, names, now, err);

    ERR_clear_error();
    return failed;
}

int chain_check_issued(const struct chain *chain, const EVP_PKEY *key,
                       const struct config_list *names, int64_t now, struct err *err)
{
    if (!chain_has_key(chain, key))
        return err_set(err, ERR_CRYPTO,
                       "the certificate (\"%s\") is for another key than the requested",
                       chain->leaf.subject);
    if (chain->leaf.self_signed)
        return err_set(err, ERR_CRYPTO,
                       "the certificate is self-signed (issuer and subject are \"%s\")",
                       chain->leaf.subject);
    return chain_check_fit(chain, names, now, err);
}

/* ---- what is not ours to judge by its sender ---- */

static int verify(const struct chain *chain, X509_STORE_CTX *context, X509_STORE *roots,
                  STACK_OF(X509) * others, int64_t now, struct err *err)
{
    X509_VERIFY_PARAM *rules;
    int code;

    for (size_t i = 1; i < chain->count; i++) {
        if (sk_X509_push(others, chain->certificates[i]) <= 0)
            return err_sys(err, ENOMEM, "cannot verify certificates");
    }
    if (X509_STORE_CTX_init(context, roots, chain->certificates[0], others) != 1 ||
        X509_STORE_CTX_set_default(context, "ssl_server") != 1)
        return err_openssl(err, "cannot verify certificates");
    rules = X509_STORE_CTX_get0_param(context);
    X509_VERIFY_PARAM_set_time(rules, (time_t)now);
    X509_VERIFY_PARAM_set_auth_level(rules, AUTH_LEVEL);
    if (X509_verify_cert(context) == 1)
        return 0;
    code = X509_STORE_CTX_get_error(context);
    return err_set(err, ERR_CRYPTO, "it does not lead to a trusted root: %s",
                   X509_verify_cert_error_string(code));
}

int chain_check_trusted(const struct chain *chain, X509_STORE *roots, int64_t now,
                        struct err *err)
{
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    STACK_OF(X509) *others = sk_X509_new_null();
    int failed = context == NULL || others == NULL
                     ? err_sys(err, ENOMEM, "cannot verify certificates")
                     : verify(chain, context, roots, others, now, err);

    X509_STORE_CTX_free(context);
    sk_X509_free(others);
    ERR_clear_error();
    return failed;
}

void chain_list_names(const struct chain *chain, char *ret, size_t size)
{
    list_names(chain->certificates[0], ret, size);
    ERR_clear_error();
}

int chain_leaf_der(const struct chain *chain, struct buf *ret, struct err *err)
{
    unsigned char *der = NULL;
    int len = i2d_X509(chain->certificates[0], &der);
    int failed = len < 0 ? err_openssl(err, "cannot write the certificate as DER")
                         : buf_append(ret, der, (size_t)len, err);

    OPENSSL_free(der);
    ERR_clear_error();
    return failed;
}

int chain_to_pem(const struct chain *chain, struct buf *ret, struct err *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    const char *text;
    bool written = bio != NULL;
    int failed;

    for (size_t i = 0; written && i < chain->count; i++)
        written = PEM_write_bio_X509(bio, chain->certificates[i]) == 1;
    if (written) {
        size_t len = (size_t)BIO_get_mem_data(bio, &text);

        failed = buf_append(ret, text, len, err);
    } else
        failed = err_openssl(err, "cannot write the certificates as PEM");
    BIO_free(bio);
    ERR_clear_error();
    return failed;
}
