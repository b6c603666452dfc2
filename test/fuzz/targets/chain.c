/*
 * The input is a chain of certificates in DER, leaf first, one behind the other; they are put into PEM
 * here. A store that trusts the last of them lets OpenSSL verify the others.
 */
#include "domain/chain.h"

#include "domain/csr.h"
#include "support/fuzz.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

enum { PEM_LABELS_BYTES = 64 };

static char domain[] = "app.example.org";
static char wildcard[] = "*.example.org";
static char *items[] = {domain, wildcard};
static const struct config_list names = {.items = items, .count = 2};

/* Bytes of the DER value at the front, as its header says; all of them when it says something else. */
static size_t der_length(const unsigned char *der, size_t left)
{
    size_t header = 2;
    size_t len;

    if (left < header)
        return left;
    len = der[1];
    if (len >= 0x80) {
        size_t digits = len & 0x7f;

        len = 0;
        if (digits > 3 || left < header + digits)
            return left;
        for (size_t i = 0; i < digits; i++)
            len = len << 8 | der[header + i];
        header += digits;
    }
    return header + len < left ? header + len : left;
}

static void append_block(struct buf *pem, const unsigned char *der, size_t len)
{
    struct err err = ERR_INIT;
    unsigned char *text = malloc(4 * (len / 3 + 1) + 1);

    FUZZ_REQUIRE(text != NULL);
    EVP_EncodeBlock(text, der, (int)len);
    FUZZ_REQUIRE(
        buf_printf(pem, &err,
                   "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n",
                   (const char *)text) == 0);
    free(text);
}

static X509_STORE *store_of(const unsigned char *der, size_t len)
{
    X509_STORE *store = X509_STORE_new();
    X509 *root = d2i_X509(NULL, &der, (long)len);

    FUZZ_REQUIRE(store != NULL);
    if (root != NULL)
        X509_STORE_add_cert(store, root);
    X509_free(root);
    ERR_clear_error();
    return store;
}

static void check_leaf(const struct chain *chain)
{
    const struct chain_leaf *leaf = chain_leaf(chain);
    char listed[200];

    FUZZ_REQUIRE(strlen(leaf->sha256) == 64);
    fuzz_require_printable(leaf->serial);
    fuzz_require_printable(leaf->subject);
    fuzz_require_printable(leaf->issuer);
    fuzz_require_printable(leaf->issuer_name);
    fuzz_require_printable(leaf->renewal_id);
    chain_list_names(chain, listed, sizeof listed);
    fuzz_require_printable(listed);
}

static void judge(const struct chain *chain, X509_STORE *roots)
{
    struct err err = ERR_INIT;
    bool fits = chain_check_fit(chain, &names, FUZZ_NOW, &err) == 0;

    if (!fits)
        fuzz_require_refusal(&err);
    else
        FUZZ_REQUIRE(chain_lacks(chain, &names) == NULL && chain_covers(chain, domain) &&
                     chain_leaf(chain)->not_after >= FUZZ_NOW);
    if (chain_check_issued(chain, chain_public_key(chain), &names, FUZZ_NOW, &err) == 0)
        FUZZ_REQUIRE(fits && !chain_leaf(chain)->self_signed);
    else
        fuzz_require_refusal(&err);
    if (chain_check_trusted(chain, roots, FUZZ_NOW, &err) < 0)
        fuzz_require_refusal(&err);
    (void)chain_issuer_contains(chain, "staging");
}

/* What is written for nginx is what was read. */
static void require_same_again(const struct chain *chain)
{
    struct chain *again = NULL;
    struct err err = ERR_INIT;
    BUF_SCOPED pem = {.max = CHAIN_PEM_MAX_BYTES};
    BUF_SCOPED second = {.max = CHAIN_PEM_MAX_BYTES};

    FUZZ_REQUIRE(chain_to_pem(chain, &pem, &err) == 0);
    FUZZ_REQUIRE_TEXT(chain_parse(pem.data, pem.len, &again, &err) == 0, err.message);
    FUZZ_REQUIRE(
        memcmp(chain_leaf(chain), chain_leaf(again), sizeof *chain_leaf(chain)) == 0);
    FUZZ_REQUIRE(chain_length(chain) == chain_length(again));
    FUZZ_REQUIRE(chain_to_pem(again, &second, &err) == 0 && fuzz_same(&pem, &second));
    chain_free(again);
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    const unsigned char *last = bytes;
    size_t last_len = len;
    struct chain *chain = NULL;
    struct err err = ERR_INIT;
    BUF_SCOPED pem = {.max = 4 * len + PEM_LABELS_BYTES * (len + 1)};

    for (size_t at = 0; at < len; at += last_len) {
        last = bytes + at;
        last_len = der_length(last, len - at);
        append_block(&pem, last, last_len);
    }
    if (chain_parse(pem.data, pem.len, &chain, &err) < 0) {
        fuzz_require_refusal(&err);
    } else {
        X509_STORE *roots = store_of(last, last_len);

        check_leaf(chain);
        judge(chain, roots);
        require_same_again(chain);
        X509_STORE_free(roots);
        fuzz_note_accepted();
    }
    chain_free(chain);
}
