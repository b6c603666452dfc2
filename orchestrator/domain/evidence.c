#include "domain/evidence.h"

#include "base/secret.h"
#include "base/text.h"
#include "domain/json_text.h"

#include <jansson.h>
#include <openssl/evp.h>

static int sha256_hex(const struct buf *bytes, char ret[EVIDENCE_SHA256_SIZE],
                      struct err *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (EVP_Digest(bytes->data, bytes->len, digest, &len, EVP_sha256(), NULL) != 1)
        return err_openssl(err, "SHA-256");
    text_hex(ret, digest, len);
    return 0;
}

int evidence_account_json(const struct evidence_account *account, struct buf *ret,
                          struct err *err)
{
    json_t *root = json_pack("{s:s?, s:s?, s:s?}", "directory", account->directory,
                             "account", account->url, "thumbprint", account->thumbprint);
    char *text = json_dump_whole(root, JSON_INDENT(1));
    int failed;

    json_decref(root);
    if (text == NULL)
        return err_set(err, ERR_PEER, "the account URL is not valid UTF-8");
    failed = buf_printf(ret, err, "%s\n", text);
    wipe_free(text);
    return failed;
}

int evidence_sums(const struct buf *chain_pem, const struct buf *account_json,
                  struct buf *ret, struct err *err)
{
    char chain[EVIDENCE_SHA256_SIZE];
    char account[EVIDENCE_SHA256_SIZE];

    if (sha256_hex(chain_pem, chain, err) < 0 ||
        sha256_hex(account_json, account, err) < 0)
        return -1;
    /* Two spaces: the mark of text mode. */
    return buf_printf(ret, err, "%s  " EVIDENCE_CHAIN "\n%s  " EVIDENCE_ACCOUNT "\n",
                      chain, account);
}

int evidence_report_data(const struct buf *sums, char ret_hex[EVIDENCE_SHA256_SIZE],
                         struct err *err)
{
    return sha256_hex(sums, ret_hex, err);
}
