#include "domain/chain.h"

#include "support/names.h"
#include "support/pki.h"
#include "support/vectors.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    *state = vectors_load();
    return 0;
}

static int teardown(void **state)
{
    json_decref(*state);
    return 0;
}

/* Consumes the text. */
static struct chain *parsed(char *pem)
{
    struct chain *chain = NULL;
    struct err err = ERR_INIT;

    if (chain_parse(pem, strlen(pem), &chain, &err) < 0)
        fail_msg("%s", err.message);
    pki_assert_queue_empty();
    free(pem);
    return chain;
}

static void assert_refused_bytes(const void *pem, size_t len, const char *says)
{
    struct chain *chain = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(chain_parse(pem, len, &chain, &err), -1);
    assert_null(chain);
    assert_int_equal(err.kind, ERR_CRYPTO);
    if (strstr(err.message, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", err.message, says);
    pki_assert_queue_empty();
}

/* Consumes the text. */
static void assert_refused(char *pem, const char *says)
{
    assert_refused_bytes(pem, strlen(pem), says);
    free(pem);
}

/* A self-signed certificate of this form, parsed. */
static struct chain *parsed_spec(const struct pki_spec *spec)
{
    EVP_PKEY *key = pki_key();
    X509 *certificate = pki_certificate(spec, key, NULL, key);
    struct chain *chain = parsed(pki_pem(certificate, NULL));

    X509_free(certificate);
    EVP_PKEY_free(key);
    return chain;
}

static X509 *simple_certificate(void)
{
    static const struct pki_spec spec = {.common_name = "peer.test",
                                         .names = "DNS:peer.test"};
    EVP_PKEY *key = pki_key();
    X509 *certificate = pki_certificate(&spec, key, NULL, key);

    EVP_PKEY_free(key);
    return certificate;
}

/* ---- parsing ---- */

static void a_chain_is_read_leaf_first(void **state)
{
    static const struct pki_spec spec = {.common_name = "peer.test",
                                         .names = "DNS:peer.test",
                                         .serial = "0x0abcdef0123456789"};
    struct pki_chain pki;
    struct chain *chain;
    const struct chain_leaf *leaf;

    (void)state;
    pki_chain_init(&pki, &spec);
    chain = parsed(pki_pem(pki.leaf, pki.intermediate, pki.root, NULL));
    leaf = chain_leaf(chain);
    assert_int_equal(chain_length(chain), 3);
    assert_string_equal(leaf->subject, "CN=peer.test");
    assert_string_equal(leaf->issuer, "CN=Test Intermediate,O=Test CA");
    assert_string_equal(leaf->issuer_name, "Test Intermediate");
    assert_string_equal(leaf->serial, "abcdef0123456789");
    assert_int_equal(leaf->not_before, PKI_NOW - PKI_DAY);
    assert_int_equal(leaf->not_after, PKI_NOW + 89 * PKI_DAY);
    assert_false(leaf->self_signed);
    chain_free(chain);
    pki_chain_done(&pki);
    chain_free(NULL);
}

static void the_hash_is_that_of_the_python_service(void **state)
{
    const json_t *vector = json_object_get(*state, "event");
    struct chain *chain = parsed(strdup(vectors_text(vector, "certificate_pem")));
    const struct chain_leaf *leaf = chain_leaf(chain);

    assert_string_equal(leaf->sha256, vectors_text(vector, "sha256"));
    assert_string_equal(leaf->subject, "CN=localhost,O=Concrete Security");
    assert_string_equal(leaf->issuer_name, "localhost");
    assert_string_equal(leaf->serial, "0dbb444b1f27703b670f689793c55b49358716a7");
    assert_true(leaf->self_signed);
    assert_true(chain_covers(chain, "localhost"));
    chain_free(chain);
}

static void text_around_certificates_is_tolerated(void **state)
{
    X509 *certificate = simple_certificate();
    char *pem = pki_pem(certificate, NULL);
    char *text;

    (void)state;
    assert_true(asprintf(&text, " 0 s:CN = peer.test\r\n%s\n\n%s\nthe end", pem, pem) >
                0);
    free(pem);
    chain_free(parsed(text));
    X509_free(certificate);
}

static void line_ends_of_windows_are_read(void **state)
{
    X509 *certificate = simple_certificate();
    char *pem = pki_pem(certificate, NULL);
    char *text = malloc(2 * strlen(pem) + 1);
    size_t used = 0;

    (void)state;
    for (const char *at = pem; *at != '\0'; at++) {
        if (*at == '\n')
            text[used++] = '\r';
        text[used++] = *at;
    }
    text[used] = '\0';
    chain_free(parsed(text));
    free(pem);
    X509_free(certificate);
}

static void what_is_no_pem_is_refused(void **state)
{
    X509 *certificate = simple_certificate();
    char *pem = pki_pem(certificate, NULL);
    unsigned char *der = NULL;
    int der_len = i2d_X509(certificate, &der);
    char *large;

    (void)state;
    assert_refused_bytes("", 0, "is empty");
    assert_refused_bytes(NULL, 0, "is empty");
    assert_refused_bytes("\n", 1, "no certificate");
    assert_refused_bytes("hello", 5, "no certificate");
    assert_refused_bytes("-----BEGIN", 10, "no certificate");
    assert_refused_bytes("-----BEGIN ", 11, "PEM block 1");
    assert_refused_bytes(der, (size_t)der_len, "zero bytes");
    assert_refused_bytes(pem, strlen(pem) + 1, "zero bytes");
    large = malloc(CHAIN_PEM_MAX_BYTES + 1);
    memset(large, ' ', CHAIN_PEM_MAX_BYTES + 1);
    assert_refused_bytes(large, CHAIN_PEM_MAX_BYTES + 1, "at most 131072");
    assert_refused_bytes(large, CHAIN_PEM_MAX_BYTES, "no certificate");
    free(large);
    OPENSSL_free(der);
    free(pem);
    X509_free(certificate);
}

static void other_blocks_are_refused(void **state)
{
    static const char *const labels[] = {"PRIVATE KEY",         "EC PRIVATE KEY",
                                         "CERTIFICATE REQUEST", "TRUSTED CERTIFICATE",
                                         "X509 CERTIFICATE",    "X509 CRL",
                                         "certificate",         "DH PARAMETERS"};
    X509 *certificate = simple_certificate();
    char *pem = pki_pem(certificate, NULL);

    (void)state;
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        char *other = pki_block(labels[i], "\x30\x00", 2);
        char *text;

        assert_true(asprintf(&text, "%s%s", pem, other) > 0);
        assert_refused(text, "PEM block 2");
        assert_true(asprintf(&text, "%s%s", other, pem) > 0);
        assert_refused(text, "PEM block 1");
        free(other);
    }
    free(pem);
    X509_free(certificate);
}

static void a_private_key_in_the_file_is_named_but_not_shown(void **state)
{
    X509 *certificate = simple_certificate();
    EVP_PKEY *key = pki_key();
    char *pem = pki_pem(certificate, NULL);
    char *key_pem = pki_key_pem(key);
    struct chain *chain = NULL;
    struct err err = ERR_INIT;
    char *text;
    int len;

    (void)state;
    len = asprintf(&text, "%s%s", pem, key_pem);
    assert_int_equal(chain_parse(text, (size_t)len, &chain, &err), -1);
    assert_non_null(strstr(err.message, "\"PRIVATE KEY\""));
    assert_null(strstr(err.message, "MIG"));
    pki_assert_queue_empty();
    free(text);
    free(key_pem);
    free(pem);
    EVP_PKEY_free(key);
    X509_free(certificate);
}

static void hostile_labels_stay_out_of_messages(void **state)
{
    static const char pem[] = "-----BEGIN A\x1b[2J\nforged line-----\n";
    struct chain *chain = NULL;
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(chain_parse(pem, strlen(pem), &chain, &err), -1);
    assert_non_null(strstr(err.message, "\"A\""));
    assert_null(strchr(err.message, '\x1b'));
    assert_null(strchr(err.message, '\n'));
}

static char *repeated(const char *pem, size_t count)
{
    size_t len = strlen(pem);
    char *text = malloc(count * len + 1);

    for (size_t i = 0; i < count; i++)
        memcpy(text + i * len, pem, len);
    text[count * len] = '\0';
    return text;
}

static void the_number_of_certificates_is_bounded(void **state)
{
    X509 *certificate = simple_certificate();
    char *pem = pki_pem(certificate, NULL);
    struct chain *chain = parsed(repeated(pem, CHAIN_MAX_CERTIFICATES));

    (void)state;
    assert_int_equal(chain_length(chain), 10);
    chain_free(chain);
    assert_refused(repeated(pem, 11), "11 certificates, at most 10");
    assert_refused(repeated(pem, 1000), "at most");
    assert_refused(repeated("-----BEGIN CERTIFICATE-----\n", 1000), "1000 certificates");
    free(pem);
    X509_free(certificate);
}

static void damaged_certificates_are_refused(void **state)
{
    X509 *certificate = simple_certificate();
    char *pem = pki_pem(certificate, NULL);
    size_t len = strlen(pem);
    char *text;

    (void)state;
    for (size_t cut = 30; cut < len - 5; cut += 37) {
        assert_true(asprintf(&text, "%.*s", (int)cut, pem) > 0);
        assert_refused(text, "certificate 1");
        assert_true(asprintf(&text, "%s%.*s", pem, (int)cut, pem) > 0);
        assert_refused(text, "certificate 2");
    }
    assert_true(asprintf(&text, "%.100s!%s", pem, pem + 101) > 0);
    assert_refused(text, "certificate 1: damaged PEM");
    assert_true(asprintf(&text, "x%s", pem) > 0);
    assert_refused(text, "certificate 1: damaged PEM");
    assert_refused(strdup("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
                   "certificate 1");
    assert_refused(pki_block("CERTIFICATE", "garbage", 7), "not an X.509 certificate");
    assert_refused(pki_block("CERTIFICATE", "\x30\x80\x00\x00", 4),
                   "not an X.509 certificate");
    assert_refused(pki_block("CERTIFICATE", "\x30\x84\x7f\xff\xff\xff\x00", 7),
                   "not an X.509 certificate");
    free(pem);
    X509_free(certificate);
}

static void bytes_changed_anywhere_never_break_anything(void **state)
{
    X509 *certificate = simple_certificate();
    unsigned char *der = NULL;
    size_t len = (size_t)i2d_X509(certificate, &der);

    (void)state;
    for (size_t i = 0; i < len; i++) {
        static const unsigned char flips[] = {0x01, 0x20, 0x80, 0xff};

        for (size_t k = 0; k < sizeof flips; k++) {
            struct chain *chain = NULL;
            struct err err = ERR_INIT;
            char *pem;

            der[i] ^= flips[k];
            pem = pki_block("CERTIFICATE", der, len);
            if (chain_parse(pem, strlen(pem), &chain, &err) == 0) {
                (void)chain_covers(chain, "peer.test");
                (void)chain_issuer_contains(chain, "staging");
                assert_int_equal(strlen(chain_leaf(chain)->sha256), 64);
            } else
                assert_int_equal(err.kind, ERR_CRYPTO);
            pki_assert_queue_empty();
            chain_free(chain);
            free(pem);
            der[i] ^= flips[k];
        }
    }
    OPENSSL_free(der);
    X509_free(certificate);
}

static void other_encodings_than_der_are_refused(void **state)
{
    X509 *certificate = simple_certificate();
    unsigned char *der = NULL;
    size_t len = (size_t)i2d_X509(certificate, &der);
    unsigned char *changed = malloc(len + 1);

    (void)state;
    /* A byte behind the end. */
    memcpy(changed, der, len);
    changed[len] = 0;
    assert_refused(pki_block("CERTIFICATE", changed, len + 1), "1 more bytes");
    /* The outer length in one byte more than needed. */
    assert_int_equal(der[1], 0x82);
    changed[0] = 0x30;
    changed[1] = 0x83;
    changed[2] = 0x00;
    memcpy(changed + 3, der + 2, len - 2);
    assert_refused(pki_block("CERTIFICATE", changed, len + 1), "not in DER");
    free(changed);
    OPENSSL_free(der);
    X509_free(certificate);
}

static void pem_headers_are_refused(void **state)
{
    X509 *certificate = simple_certificate();
    char *pem = pki_pem(certificate, NULL);
    char *body = strchr(pem, '\n') + 1;
    char *text;

    (void)state;
    assert_true(asprintf(&text,
                         "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n"
                         "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n%s",
                         body) > 0);
    assert_refused(text, "PEM headers");
    free(pem);
    X509_free(certificate);
}

static void malformed_extensions_are_refused(void **state)
{
    EVP_PKEY *key = pki_key();
    static const struct pki_spec spec = {.names = "DNS:peer.test"};
    X509 *certificate = pki_certificate(&spec, key, NULL, key);

    (void)state;
    pki_add_extension(certificate, NID_subject_alt_name, "DNS:other.test");
    pki_sign(certificate, key);
    assert_refused(pki_pem(certificate, NULL), "malformed extensions");
    X509_free(certificate);
    certificate = pki_certificate(&spec, key, NULL, key);
    pki_add_extension(certificate, NID_key_usage, "DER:30:00");
    pki_sign(certificate, key);
    assert_refused(pki_pem(certificate, NULL), "malformed extensions");
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void unknown_keys_are_refused_in_the_leaf(void **state)
{
    static const unsigned char ec[] = {0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01};
    X509 *certificate = simple_certificate();
    unsigned char *der = NULL;
    size_t len = (size_t)i2d_X509(certificate, &der);
    unsigned char *oid = memmem(der, len, ec, sizeof ec);

    (void)state;
    assert_non_null(oid);
    oid[6] = 0x7f;
    assert_refused(pki_block("CERTIFICATE", der, len), "public key cannot be read");
    OPENSSL_free(der);
    X509_free(certificate);
}

/* ---- what stands in the leaf ---- */

static void assert_serial(const char *given, const char *wanted)
{
    const struct pki_spec spec = {.common_name = "s", .serial = given};
    struct chain *chain = parsed_spec(&spec);

    assert_string_equal(chain_leaf(chain)->serial, wanted);
    chain_free(chain);
}

static void serials_of_every_size_are_hex(void **state)
{
    (void)state;
    assert_serial("0", "00");
    assert_serial("1", "01");
    assert_serial("255", "ff");
    assert_serial("256", "0100");
    assert_serial("-1", "-01");
    assert_serial("0xffffffffffffffffffffffffffffffffffffffff",
                  "ffffffffffffffffffffffffffffffffffffffff");
    assert_serial("-0xffffffffffffffffffffffffffffffffffffffff",
                  "-ffffffffffffffffffffffffffffffffffffffff");
}

static void huge_serials_are_refused(void **state)
{
    static const char twenty_one[] = "0x010000000000000000000000000000000000000000";
    const struct pki_spec spec = {.common_name = "s", .serial = twenty_one};
    char huge[4003] = "0x";
    const struct pki_spec huge_spec = {.common_name = "s", .serial = huge};
    EVP_PKEY *key = pki_key();
    X509 *certificate = pki_certificate(&spec, key, NULL, key);

    (void)state;
    assert_refused(pki_pem(certificate, NULL), "serial number of 21 bytes");
    X509_free(certificate);
    memset(huge + 2, 'f', 4000);
    huge[4002] = '\0';
    certificate = pki_certificate(&huge_spec, key, NULL, key);
    assert_refused(pki_pem(certificate, NULL), "serial number of 2000 bytes");
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void names_are_printable_whatever_is_in_them(void **state)
{
    static const struct pki_spec hostile = {
        .common_name = "a\0b\n\x1b[31m\x7f\xc3\xa9\"\\,", .common_name_len = 15};
    struct chain *chain = parsed_spec(&hostile);
    const struct chain_leaf *leaf = chain_leaf(chain);

    (void)state;
    assert_string_equal(leaf->subject, "CN=a\\00b\\0A\\1B[31m\\7F\\C3\\A9\\\"\\\\\\,");
    assert_string_equal(leaf->issuer, leaf->subject);
    assert_string_equal(leaf->issuer_name, "a\\00b\\0A\\1B[31m\\7F\\C3\\A9\"\\\\,");
    chain_free(chain);
}

static void long_names_are_cut(void **state)
{
    char name[3001];
    const struct pki_spec spec = {.common_name = name};
    struct chain *chain;
    const struct chain_leaf *leaf;

    (void)state;
    memset(name, 'n', 3000);
    name[3000] = '\0';
    chain = parsed_spec(&spec);
    leaf = chain_leaf(chain);
    assert_int_equal(strlen(leaf->subject), 255);
    assert_string_equal(leaf->subject + 250, "nn...");
    assert_int_equal(strlen(leaf->issuer_name), 127);
    assert_string_equal(leaf->issuer_name + 122, "nn...");
    chain_free(chain);
}

static void names_that_cannot_be_decoded_are_refused(void **state)
{
    static const struct pki_spec spec = {.common_name = "notutf8"};
    EVP_PKEY *key = pki_key();
    X509 *certificate = pki_certificate(&spec, key, NULL, key);
    unsigned char *der = NULL;
    size_t len = (size_t)i2d_X509(certificate, &der);
    unsigned char *name;

    (void)state;
    while ((name = memmem(der, len, "notutf8", 7)) != NULL)
        name[3] = 0xff;
    assert_refused(pki_block("CERTIFICATE", der, len), "certificate 1");
    OPENSSL_free(der);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void the_issuer_is_called_by_organization_without_common_name(void **state)
{
    static const struct pki_spec organization = {.organization = "Only Org"};
    static const struct pki_spec nameless = {.names = "DNS:peer.test"};
    struct chain *chain = parsed_spec(&organization);

    (void)state;
    assert_string_equal(chain_leaf(chain)->issuer_name, "Only Org");
    chain_free(chain);
    chain = parsed_spec(&nameless);
    assert_string_equal(chain_leaf(chain)->issuer_name, "");
    assert_string_equal(chain_leaf(chain)->subject, "");
    assert_true(chain_leaf(chain)->self_signed);
    chain_free(chain);
}

static void times_of_all_centuries_are_read(void **state)
{
    static const struct pki_spec wide = {.common_name = "t",
                                         .not_before = INT64_C(-315619200), /* 1960 */
                                         .not_after = INT64_C(253402300799)};
    struct chain *chain = parsed_spec(&wide);

    (void)state;
    assert_int_equal(chain_leaf(chain)->not_before, INT64_C(-315619200));
    assert_int_equal(chain_leaf(chain)->not_after, INT64_C(253402300799));
    chain_free(chain);
}

static void times_that_are_none_are_refused(void **state)
{
    X509 *certificate = simple_certificate();
    unsigned char *der = NULL;
    size_t len = (size_t)i2d_X509(certificate, &der);
    unsigned char *not_before = memmem(der, len, "2611221849", 10);
    unsigned char *not_after = memmem(der, len, "2702201849", 10);

    (void)state;
    assert_non_null(not_before);
    assert_non_null(not_after);
    memcpy(not_after, "27ab20", 6);
    assert_refused(pki_block("CERTIFICATE", der, len), "notAfter is not a time");
    memcpy(not_before, "269922", 6);
    assert_refused(pki_block("CERTIFICATE", der, len), "notBefore is not a time");
    OPENSSL_free(der);
    X509_free(certificate);
}

/* ---- questions ---- */

static void the_key_of_the_leaf_counts(void **state)
{
    static const struct pki_spec spec = {.names = "DNS:peer.test"};
    EVP_PKEY *rsa = pki_key_of("RSA", "2048");
    struct pki_chain pki;
    struct chain *chain;

    (void)state;
    pki_chain_init(&pki, &spec);
    chain = parsed(pki_pem(pki.leaf, pki.intermediate, NULL));
    assert_true(chain_has_key(chain, pki.leaf_key));
    assert_false(chain_has_key(chain, pki.intermediate_key));
    assert_false(chain_has_key(chain, rsa));
    pki_assert_queue_empty();
    chain_free(chain);
    pki_chain_done(&pki);
    EVP_PKEY_free(rsa);
}

static void names_match_as_in_rfc_6125(void **state)
{
    static const struct {
        const char *names;
        const char *asked;
        bool covers;
    } rows[] = {
        {"DNS:peer.test", "peer.test", true},
        {"DNS:peer.test", "PEER.Test", true},
        {"DNS:Peer.TEST", "peer.test", true},
        {"DNS:other.test,DNS:peer.test", "peer.test", true},
        {"DNS:peer.test", "www.peer.test", false},
        {"DNS:www.peer.test", "peer.test", false},
        {"DNS:*.peer.test", "www.peer.test", true},
        {"DNS:*.peer.test", "peer.test", false},
        {"DNS:*.peer.test", "a.b.peer.test", false},
        {"DNS:w*.peer.test", "www.peer.test", false},
        {"DNS:*w.peer.test", "www.peer.test", false},
        {"DNS:www.*.test", "www.peer.test", false},
        {"DNS:*.test", "peer.test", false},
        {"DNS:*.peer.test", "*.peer.test", true},
        {"DNS:*.other.test,DNS:www.peer.test", "*.peer.test", false},
        {"DNS:*", "peer", false},
        {"DNS:peer.test", ".test", false},
        {"DNS:peer.test", ".peer.test", false},
        {"DNS:peer.test", "", false},
        {"DNS:peer.test", "peer.test.", false},
        {"IP:192.0.2.1", "192.0.2.1", false},
        {"email:a@peer.test", "peer.test", false},
        {"URI:https://peer.test/", "peer.test", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct pki_spec spec = {.common_name = "cn.test", .names = rows[i].names};
        struct chain *chain = parsed_spec(&spec);

        if (chain_covers(chain, rows[i].asked) != rows[i].covers)
            fail_msg("\"%s\" and \"%s\"", rows[i].names, rows[i].asked);
        assert_false(chain_covers(chain, "cn.test"));
        pki_assert_queue_empty();
        chain_free(chain);
    }
}

static void a_common_name_covers_nothing(void **state)
{
    static const struct pki_spec spec = {.common_name = "peer.test"};
    struct chain *chain = parsed_spec(&spec);

    (void)state;
    assert_false(chain_covers(chain, "peer.test"));
    pki_assert_queue_empty();
    chain_free(chain);
}

/* "peer.test\0.attacker.test" was once read up to the zero byte by clients. */
static void zero_bytes_in_names_cover_nothing(void **state)
{
    static const char hostile[] = "peer.test\0.attacker.test";
    EVP_PKEY *key = pki_key();
    static const struct pki_spec spec = {.common_name = "x"};
    X509 *certificate = pki_certificate(&spec, key, NULL, key);
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    struct chain *chain;
    struct err err = ERR_INIT;

    (void)state;
    ASN1_STRING_set(text, hostile, sizeof hostile - 1);
    GENERAL_NAME_set0_value(name, GEN_DNS, text);
    sk_GENERAL_NAME_push(names, name);
    assert_int_equal(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, 0),
                     1);
    GENERAL_NAMES_free(names);
    pki_sign(certificate, key);
    chain = parsed(pki_pem(certificate, NULL));
    assert_false(chain_covers(chain, "peer.test"));
    assert_false(chain_covers(chain, "x.attacker.test"));
    assert_int_equal(chain_check_issued(chain, key, names_of("peer.test"), PKI_NOW, &err),
                     -1);
    pki_assert_queue_empty();
    chain_free(chain);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void the_issuers_common_name_is_searched_in_any_case(void **state)
{
    static const struct pki_spec staging = {.common_name = "(STAGING) Pretend Pear X1",
                                            .organization = "Org"};
    static const struct pki_spec bmp = {.common_name = "\0(\0S\0t\0a\0g\0i\0n\0g\0)",
                                        .common_name_len = 18,
                                        .common_name_type = V_ASN1_BMPSTRING};
    static const struct pki_spec organization = {.organization = "Staging"};
    struct chain *chain = parsed_spec(&staging);

    (void)state;
    assert_true(chain_issuer_contains(chain, "staging"));
    assert_true(chain_issuer_contains(chain, "pretend"));
    assert_false(chain_issuer_contains(chain, "fake"));
    assert_false(chain_issuer_contains(chain, "org"));
    chain_free(chain);
    chain = parsed_spec(&bmp);
    assert_true(chain_issuer_contains(chain, "staging"));
    chain_free(chain);
    chain = parsed_spec(&organization);
    assert_false(chain_issuer_contains(chain, "staging"));
    pki_assert_queue_empty();
    chain_free(chain);
}

static void a_word_far_back_in_the_issuer_is_found(void **state)
{
    char name[1001];
    const struct pki_spec spec = {.common_name = name};
    struct chain *chain;

    (void)state;
    memset(name, 'n', 1000);
    memcpy(name + 993, "STAGING", 8);
    chain = parsed_spec(&spec);
    assert_true(chain_issuer_contains(chain, "staging"));
    chain_free(chain);
}

static void pem_comes_back_canonical(void **state)
{
    static const struct pki_spec spec = {.names = "DNS:peer.test"};
    struct err err = ERR_INIT;
    struct pki_chain pki;
    struct chain *chain;
    char *wanted;
    char *text;
    BUF_SCOPED pem;
    BUF_SCOPED small;

    (void)state;
    pki_chain_init(&pki, &spec);
    wanted = pki_pem(pki.leaf, pki.intermediate, NULL);
    assert_true(asprintf(&text, "text before\n%s\ntext behind", wanted) > 0);
    chain = parsed(text);
    buf_init(&pem, CHAIN_PEM_MAX_BYTES);
    assert_int_equal(chain_to_pem(chain, &pem, &err), 0);
    assert_string_equal(buf_str(&pem), wanted);
    buf_init(&small, 100);
    assert_int_equal(chain_to_pem(chain, &small, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_int_equal(small.len, 0);
    pki_assert_queue_empty();
    chain_free(chain);
    free(wanted);
    pki_chain_done(&pki);
}

/* ---- what a CA answered ---- */

/* Consumes the text. */
static void assert_usable(char *pem, const EVP_PKEY *key, int64_t now)
{
    struct chain *chain = parsed(pem);
    struct err err = ERR_INIT;

    if (chain_check_issued(chain, key, names_of("peer.test"), now, &err) < 0)
        fail_msg("%s", err.message);
    pki_assert_queue_empty();
    chain_free(chain);
}

/* Consumes the text. */
static void assert_unusable(char *pem, const EVP_PKEY *key, int64_t now, const char *says)
{
    struct chain *chain = parsed(pem);
    struct err err = ERR_INIT;

    assert_int_equal(chain_check_issued(chain, key, names_of("peer.test"), now, &err),
                     -1);
    assert_int_equal(err.kind, ERR_CRYPTO);
    if (strstr(err.message, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", err.message, says);
    pki_assert_queue_empty();
    chain_free(chain);
}

static const struct pki_spec peer = {.common_name = "peer.test",
                                     .names = "DNS:peer.test"};

static void a_good_answer_is_usable(void **state)
{
    struct pki_chain pki;

    (void)state;
    pki_chain_init(&pki, &peer);
    assert_usable(pki_pem(pki.leaf, pki.intermediate, pki.root, NULL), pki.leaf_key,
                  PKI_NOW);
    assert_usable(pki_pem(pki.leaf, pki.intermediate, NULL), pki.leaf_key, PKI_NOW);
    /* A leaf alone: nothing in it contradicts itself. */
    assert_usable(pki_pem(pki.leaf, NULL), pki.leaf_key, PKI_NOW);
    pki_chain_done(&pki);
}

static void an_answer_for_another_key_is_not(void **state)
{
    struct pki_chain pki;

    (void)state;
    pki_chain_init(&pki, &peer);
    assert_unusable(pki_pem(pki.leaf, pki.intermediate, NULL), pki.root_key, PKI_NOW,
                    "(\"CN=peer.test\") is for another key");
    pki_chain_done(&pki);
}

static void an_answer_for_other_names_is_not(void **state)
{
    static const struct pki_spec other = {
        .common_name = "peer.test",
        .names = "DNS:a.test,IP:192.0.2.1,DNS:*.b.test,DNS:peer.test.evil"};
    static const struct pki_spec nameless = {.common_name = "peer.test"};
    struct pki_chain pki;

    (void)state;
    pki_chain_init(&pki, &other);
    assert_unusable(pki_pem(pki.leaf, pki.intermediate, NULL), pki.leaf_key, PKI_NOW,
                    "not for peer.test; its DNS names: a.test, *.b.test, peer.test.evil");
    pki_chain_done(&pki);
    pki_chain_init(&pki, &nameless);
    assert_unusable(pki_pem(pki.leaf, pki.intermediate, NULL), pki.leaf_key, PKI_NOW,
                    "its DNS names: none");
    pki_chain_done(&pki);
}

static void the_first_name_that_is_missing_is_found(void **state)
{
    static const struct pki_spec spec = {.common_name = "peer.test",
                                         .names = "DNS:peer.test,DNS:www.peer.test"};
    struct chain *chain = parsed_spec(&spec);
    const struct config_list *names;

    (void)state;
    assert_null(chain_lacks(chain, names_of("peer.test")));
    assert_null(chain_lacks(chain, names_of("www.peer.test peer.test")));
    names = names_of("peer.test a.test b.test");
    assert_ptr_equal(chain_lacks(chain, names), names->items[1]);
    pki_assert_queue_empty();
    chain_free(chain);
}

static void an_answer_without_one_of_the_names_is_not(void **state)
{
    static const struct pki_spec two = {.common_name = "peer.test",
                                        .names = "DNS:peer.test,DNS:www.peer.test"};
    struct pki_chain pki;
    struct err err = ERR_INIT;
    struct chain *chain;

    (void)state;
    pki_chain_init(&pki, &two);
    chain = parsed(pki_pem(pki.leaf, pki.intermediate, NULL));
    assert_int_equal(chain_check_issued(chain, pki.leaf_key,
                                        names_of("peer.test www.peer.test"), PKI_NOW,
                                        &err),
                     0);
    assert_int_equal(chain_check_issued(chain, pki.leaf_key,
                                        names_of("peer.test api.peer.test"), PKI_NOW,
                                        &err),
                     -1);
    assert_string_equal(err.message,
                        "the certificate is not for api.peer.test; its DNS names: "
                        "peer.test, www.peer.test");
    chain_free(chain);
    pki_chain_done(&pki);
}

static void a_thousand_other_names_fit_the_message(void **state)
{
    char *names = malloc(1000 * 40);
    const struct pki_spec spec = {.common_name = "peer.test", .names = names};
    size_t used = 0;
    struct pki_chain pki;

    (void)state;
    for (int i = 0; i < 1000; i++)
        used +=
            (size_t)sprintf(names + used, "%sDNS:name-%04d.test", i > 0 ? "," : "", i);
    pki_chain_init(&pki, &spec);
    assert_unusable(pki_pem(pki.leaf, pki.intermediate, NULL), pki.leaf_key, PKI_NOW,
                    "name-0000.test, name-0001.test");
    assert_unusable(pki_pem(pki.leaf, pki.intermediate, NULL), pki.leaf_key, PKI_NOW,
                    "...");
    pki_chain_done(&pki);
    free(names);
}

static void validity_is_checked_to_the_second(void **state)
{
    static const struct pki_spec spec = {.common_name = "peer.test",
                                         .names = "DNS:peer.test",
                                         .not_before = PKI_NOW,
                                         .not_after = PKI_NOW + PKI_DAY};
    struct pki_chain pki;

    (void)state;
    pki_chain_init(&pki, &spec);
    assert_usable(pki_pem(pki.leaf, NULL), pki.leaf_key, PKI_NOW);
    assert_usable(pki_pem(pki.leaf, NULL), pki.leaf_key, PKI_NOW - 300);
    assert_unusable(pki_pem(pki.leaf, NULL), pki.leaf_key, PKI_NOW - 301,
                    "not valid before 2026-11-23 18:49:07 UTC, and it is 2026-11-23 "
                    "18:44:06 UTC");
    assert_usable(pki_pem(pki.leaf, NULL), pki.leaf_key, PKI_NOW + PKI_DAY);
    assert_unusable(pki_pem(pki.leaf, NULL), pki.leaf_key, PKI_NOW + PKI_DAY + 1,
                    "valid until 2026-11-24 18:49:07 UTC, and it is 2026-11-24 "
                    "18:49:08 UTC");
    pki_chain_done(&pki);
}

static void a_self_signed_answer_is_not_usable(void **state)
{
    EVP_PKEY *key = pki_key();
    X509 *certificate = pki_certificate(&peer, key, NULL, key);

    (void)state;
    assert_unusable(pki_pem(certificate, NULL), key, PKI_NOW, "self-signed");
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void certificates_in_the_wrong_order_are_not(void **state)
{
    struct pki_chain pki;

    (void)state;
    pki_chain_init(&pki, &peer);
    assert_unusable(pki_pem(pki.leaf, pki.root, pki.intermediate, NULL), pki.leaf_key,
                    PKI_NOW,
                    "certificate 1 (\"CN=peer.test\") is not signed by certificate 2 "
                    "(\"CN=Test Root\"): its issuer has another name");
    assert_unusable(pki_pem(pki.leaf, pki.intermediate, pki.intermediate, NULL),
                    pki.leaf_key, PKI_NOW,
                    "certificate 2 (\"CN=Test Intermediate,O=Test CA\") is not signed by "
                    "certificate 3");
    assert_unusable(pki_pem(pki.leaf, pki.leaf, NULL), pki.leaf_key, PKI_NOW,
                    "certificate 1 (\"CN=peer.test\") is not signed by certificate 2");
    pki_chain_done(&pki);
}

/* The same names, another key: only the signature tells. */
static void a_forged_issuer_is_noticed(void **state)
{
    static const struct pki_spec same_name = {
        .common_name = "Test Intermediate", .organization = "Test CA", .ca = true};
    EVP_PKEY *other = pki_key();
    EVP_PKEY *rsa = pki_key_of("RSA", "2048");
    struct pki_chain pki;
    X509 *forged;

    (void)state;
    pki_chain_init(&pki, &peer);
    forged = pki_certificate(&same_name, other, pki.root, pki.root_key);
    assert_unusable(
        pki_pem(pki.leaf, forged, pki.root, NULL), pki.leaf_key, PKI_NOW,
        "certificate 2 (\"CN=Test Intermediate,O=Test CA\"): the signature is "
        "wrong");
    X509_free(forged);
    forged = pki_certificate(&same_name, rsa, pki.root, pki.root_key);
    assert_unusable(pki_pem(pki.leaf, forged, NULL), pki.leaf_key, PKI_NOW,
                    "algorithm mismatch");
    X509_free(forged);
    forged = pki_certificate(&same_name, pki.intermediate_key, pki.root, other);
    assert_unusable(pki_pem(pki.leaf, forged, pki.root, NULL), pki.leaf_key, PKI_NOW,
                    "certificate 3 (\"CN=Test Root\"): the signature is wrong");
    X509_free(forged);
    pki_chain_done(&pki);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(other);
}

static void an_issuer_that_is_no_ca_is_noticed(void **state)
{
    static const struct pki_spec no_ca = {.common_name = "Test Intermediate",
                                          .organization = "Test CA"};
    static const struct pki_spec unconstrained = {.common_name = "Test Intermediate",
                                                  .organization = "Test CA",
                                                  .without_constraints = true};
    struct pki_chain pki;
    X509 *issuer;

    (void)state;
    pki_chain_init(&pki, &peer);
    issuer = pki_certificate(&no_ca, pki.intermediate_key, pki.root, pki.root_key);
    assert_unusable(pki_pem(pki.leaf, issuer, NULL), pki.leaf_key, PKI_NOW,
                    "that is not a CA's certificate");
    X509_free(issuer);
    issuer =
        pki_certificate(&unconstrained, pki.intermediate_key, pki.root, pki.root_key);
    assert_unusable(pki_pem(pki.leaf, issuer, NULL), pki.leaf_key, PKI_NOW,
                    "that is not a CA's certificate");
    X509_free(issuer);
    pki_chain_done(&pki);
}

static void key_identifiers_have_to_fit(void **state)
{
    static const struct pki_spec identified = {
        .common_name = "Test Intermediate", .organization = "Test CA", .ca = true};
    struct pki_chain pki;
    X509 *issuer;

    (void)state;
    pki_chain_init(&pki, &peer);
    issuer = pki_certificate(&identified, pki.intermediate_key, pki.root, pki.root_key);
    pki_add_extension(issuer, NID_subject_key_identifier, "00:11:22");
    pki_sign(issuer, pki.root_key);
    pki_add_extension(pki.leaf, NID_authority_key_identifier, "DER:30:05:80:03:99:99:99");
    pki_sign(pki.leaf, pki.intermediate_key);
    assert_unusable(pki_pem(pki.leaf, issuer, NULL), pki.leaf_key, PKI_NOW,
                    "key identifier mismatch");
    X509_free(issuer);
    pki_chain_done(&pki);
}

static void a_key_of_an_intermediate_that_cannot_be_read_is_noticed(void **state)
{
    static const unsigned char ec[] = {0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01};
    struct pki_chain pki;
    unsigned char *der = NULL;
    unsigned char *oid;
    size_t len;
    char *leaf;
    char *broken;
    char *text;

    (void)state;
    pki_chain_init(&pki, &peer);
    len = (size_t)i2d_X509(pki.intermediate, &der);
    oid = memmem(der, len, ec, sizeof ec);
    assert_non_null(oid);
    oid[6] = 0x7f;
    leaf = pki_pem(pki.leaf, NULL);
    broken = pki_block("CERTIFICATE", der, len);
    assert_true(asprintf(&text, "%s%s", leaf, broken) > 0);
    assert_unusable(text, pki.leaf_key, PKI_NOW, "is not signed by certificate 2");
    free(broken);
    free(leaf);
    OPENSSL_free(der);
    pki_chain_done(&pki);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_is_read_leaf_first),
        cmocka_unit_test(the_hash_is_that_of_the_python_service),
        cmocka_unit_test(text_around_certificates_is_tolerated),
        cmocka_unit_test(line_ends_of_windows_are_read),
        cmocka_unit_test(what_is_no_pem_is_refused),
        cmocka_unit_test(other_blocks_are_refused),
        cmocka_unit_test(a_private_key_in_the_file_is_named_but_not_shown),
        cmocka_unit_test(hostile_labels_stay_out_of_messages),
        cmocka_unit_test(the_number_of_certificates_is_bounded),
        cmocka_unit_test(damaged_certificates_are_refused),
        cmocka_unit_test(bytes_changed_anywhere_never_break_anything),
        cmocka_unit_test(other_encodings_than_der_are_refused),
        cmocka_unit_test(pem_headers_are_refused),
        cmocka_unit_test(malformed_extensions_are_refused),
        cmocka_unit_test(unknown_keys_are_refused_in_the_leaf),
        cmocka_unit_test(serials_of_every_size_are_hex),
        cmocka_unit_test(huge_serials_are_refused),
        cmocka_unit_test(names_are_printable_whatever_is_in_them),
        cmocka_unit_test(long_names_are_cut),
        cmocka_unit_test(names_that_cannot_be_decoded_are_refused),
        cmocka_unit_test(the_issuer_is_called_by_organization_without_common_name),
        cmocka_unit_test(times_of_all_centuries_are_read),
        cmocka_unit_test(times_that_are_none_are_refused),
        cmocka_unit_test(the_key_of_the_leaf_counts),
        cmocka_unit_test(names_match_as_in_rfc_6125),
        cmocka_unit_test(a_common_name_covers_nothing),
        cmocka_unit_test(zero_bytes_in_names_cover_nothing),
        cmocka_unit_test(the_issuers_common_name_is_searched_in_any_case),
        cmocka_unit_test(a_word_far_back_in_the_issuer_is_found),
        cmocka_unit_test(pem_comes_back_canonical),
        cmocka_unit_test(a_good_answer_is_usable),
        cmocka_unit_test(an_answer_for_another_key_is_not),
        cmocka_unit_test(an_answer_for_other_names_is_not),
        cmocka_unit_test(the_first_name_that_is_missing_is_found),
        cmocka_unit_test(an_answer_without_one_of_the_names_is_not),
        cmocka_unit_test(a_thousand_other_names_fit_the_message),
        cmocka_unit_test(validity_is_checked_to_the_second),
        cmocka_unit_test(a_self_signed_answer_is_not_usable),
        cmocka_unit_test(certificates_in_the_wrong_order_are_not),
        cmocka_unit_test(a_forged_issuer_is_noticed),
        cmocka_unit_test(an_issuer_that_is_no_ca_is_noticed),
        cmocka_unit_test(key_identifiers_have_to_fit),
        cmocka_unit_test(a_key_of_an_intermediate_that_cannot_be_read_is_noticed),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
