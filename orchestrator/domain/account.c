#include "domain/account.h"

#include "base/secret.h"
#include "base/text.h"
#include "domain/jose.h"
#include "domain/json_text.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

enum { REMEMBERED_MAX = 16, SEAL_SIZE = TEXT_BASE64URL_SIZE(SHA256_DIGEST_LENGTH) };

/* What else is sealed with that key must not be taken for an account. */
#define SEAL_CONTEXT "cert-manager account\n"

/* ---- seal ---- */

static json_t *entry_of(const struct account_owner *owner, const char *thumbprint,
                        const char *url, const char *caa_identity)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "directory", owner->directory,
                     "version", owner->version, "thumbprint", thumbprint, "url", url,
                     "caa_identity", caa_identity);
}

/* HMAC-SHA256 under the private key, which nobody else has. Its other use is signing. */
static int seal_entry(const json_t *entry, const EVP_PKEY *key, char ret[SEAL_SIZE],
                      struct err *err)
{
    unsigned char code[SHA256_DIGEST_LENGTH];
    char *text = json_dump_whole(entry, JSON_COMPACT | JSON_SORT_KEYS);
    SECRET_SCOPED secret = NULL;
    BUF_SCOPED input = {.max = ACCOUNT_MEMORY_MAX_BYTES};
    int failed;

    if (text == NULL)
        return err_sys(err, ENOMEM, "cannot seal the account");
    failed = buf_printf(&input, err, SEAL_CONTEXT "%s", text);
    wipe_free(text);
    if (failed != 0 || jose_private_jwk(key, &secret, err) < 0)
        return -1;
    if (HMAC(EVP_sha256(), secret->bytes, (int)secret->len, input.data, input.len, code,
             NULL) == NULL)
        return err_openssl(err, "cannot seal the account");
    text_base64url(ret, code, sizeof code);
    return 0;
}

static bool is_sealed(const json_t *entry, const EVP_PKEY *key, const char *seal)
{
    char expected[SEAL_SIZE];
    struct err err = ERR_INIT;

    return seal != NULL && seal_entry(entry, key, expected, &err) == 0 &&
           strlen(seal) == strlen(expected) &&
           CRYPTO_memcmp(seal, expected, strlen(expected)) == 0;
}

/* ---- memory ---- */

static const char *member(const json_t *entry, const char *name)
{
    return json_string_value(json_object_get(entry, name));
}

static bool is_member(const json_t *entry, const char *name, const char *value)
{
    const char *text = member(entry, name);

    return text != NULL && strcmp(text, value) == 0;
}

/* False for what is no such JSON; nothing at all is an empty memory. */
static bool load(const char *json, json_t **ret_root, json_t **ret_entries)
{
    *ret_root = json[0] == '\0'
                    ? json_pack("{s:[]}", "accounts")
                    : json_load_whole(json, strlen(json), JSON_REJECT_DUPLICATES, NULL);
    *ret_entries = json_object_get(*ret_root, "accounts");
    return json_is_array(*ret_entries);
}

static bool take(const json_t *found, const struct account_owner *owner,
                 struct account *ret)
{
    const char *thumbprint = member(found, "thumbprint");
    const char *url = member(found, "url");
    const char *identity = member(found, "caa_identity");
    json_t *entry;
    bool good;

    if (!is_member(found, "directory", owner->directory) ||
        !is_member(found, "version", owner->version) || thumbprint == NULL ||
        url == NULL || identity == NULL || strlen(url) >= sizeof ret->url ||
        strlen(identity) >= sizeof ret->caa_identity ||
        (owner->thumbprint != NULL && strcmp(owner->thumbprint, thumbprint) != 0))
        return false;
    entry = entry_of(owner, thumbprint, url, identity);
    good = entry != NULL && is_sealed(entry, owner->seal_key, member(found, "seal"));
    json_decref(entry);
    if (!good)
        return false;
    snprintf(ret->url, sizeof ret->url, "%s", url);
    snprintf(ret->caa_identity, sizeof ret->caa_identity, "%s", identity);
    return true;
}

enum account_memory account_find(const char *json, const struct account_owner *owner,
                                 struct account *ret)
{
    enum account_memory memory = ACCOUNT_MEMORY_DAMAGED;
    json_t *entries;
    json_t *entry;
    json_t *root;
    size_t i;

    *ret = (struct account){.url = ""};
    if (load(json, &root, &entries)) {
        memory = ACCOUNT_NOT_REMEMBERED;
        json_array_foreach(entries, i, entry)
        {
            if (!take(entry, owner, ret))
                continue;
            memory = ACCOUNT_REMEMBERED;
            break;
        }
    }
    json_decref(root);
    return memory;
}

/* `entries` without any of that directory, nor more than there is room for beside one more. */
static void make_room(json_t *entries, const char *directory)
{
    for (size_t i = json_array_size(entries); i-- > 0;) {
        if (is_member(json_array_get(entries, i), "directory", directory))
            json_array_remove(entries, i);
    }
    while (json_array_size(entries) >= REMEMBERED_MAX)
        json_array_remove(entries, 0);
}

int account_note(const char *json, const struct account_owner *owner,
                 const struct account *account, struct buf *ret, struct err *err)
{
    json_t *entry =
        entry_of(owner, owner->thumbprint, account->url, account->caa_identity);
    char seal[SEAL_SIZE];
    char *text = NULL;
    json_t *entries;
    json_t *root;
    int failed = -1;

    if (entry == NULL)
        return err_set(err, ERR_PEER, "the account URL is not valid UTF-8");
    if (!load(json, &root, &entries)) {
        json_decref(root);
        load("", &root, &entries);
    }
    if (seal_entry(entry, owner->seal_key, seal, err) == 0) {
        json_object_set_new(entry, "seal", json_string(seal));
        make_room(entries, owner->directory);
        json_array_append(entries, entry);
        text = json_dump_whole(root, JSON_INDENT(1));
        failed = text == NULL ? err_sys(err, ENOMEM, "cannot note the account")
                              : buf_append_str(ret, text, err);
    }
    wipe_free(text);
    json_decref(entry);
    json_decref(root);
    return failed;
}

/* ---- CAA ---- */

/* What would end a value, or the text of a zone file. URIs have none of it (RFC 3986). */
static bool is_plain(const char *text)
{
    return text[strcspn(text, " \";\\\t\r\n")] == '\0';
}

const char *account_caa_record(const struct account *account, const char *domain,
                               char ret[ACCOUNT_CAA_SIZE])
{
    ret[0] = '\0';
    if (account->url[0] != '\0' && account->caa_identity[0] != '\0' &&
        is_plain(account->url) && is_plain(account->caa_identity))
        snprintf(ret, ACCOUNT_CAA_SIZE,
                 "%s. CAA 0 issue \"%s; validationmethods=http-01; accounturi=%s\"",
                 domain, account->caa_identity, account->url);
    return ret;
}
