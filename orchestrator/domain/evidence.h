/*
 * evidence: the texts of the folder that lets a client verify offline, and what binds them. Pure.
 *
 *     cert.pem        the served chain
 *     account.json    the ACME account that it was ordered with
 *     sha256sum.txt   sums over the two, as sha256sum(1) writes and checks them
 *     quote.json      the agent's answer to GetQuote; its report data are the SHA-256 of
 *                     sha256sum.txt, 32 bytes, which a quote fills up with zero bytes
 */
#ifndef CM_DOMAIN_EVIDENCE_H
#define CM_DOMAIN_EVIDENCE_H

#include "base/buf.h"
#include "base/err.h"

#define EVIDENCE_CHAIN "cert.pem"
#define EVIDENCE_ACCOUNT "account.json"
#define EVIDENCE_SUMS "sha256sum.txt"
#define EVIDENCE_QUOTE "quote.json"

/* Lower-case hex of a SHA-256, and a zero. */
#define EVIDENCE_SHA256_SIZE 65

/* Members of account.json; each may be NULL, and is null there. */
struct evidence_account {
    const char *directory;
    const char *url;
    const char *thumbprint; /* of the account key, RFC 7638 */
};

/* The texts are appended to initialised buffers. */
int evidence_account_json(const struct evidence_account *account, struct buf *ret,
                          struct err *err);
int evidence_sums(const struct buf *chain_pem, const struct buf *account_json,
                  struct buf *ret, struct err *err);

/* What the quote has to bind. */
int evidence_report_data(const struct buf *sums, char ret_hex[EVIDENCE_SHA256_SIZE],
                         struct err *err);

#endif
