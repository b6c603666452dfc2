/*
 * caa: which CAs may issue for a name, by its CAA records (RFC 8659), and by which account and method
 * (RFC 8657). Pure: records come from DNS messages, which the caller brings.
 *
 * The relevant set is that of the nearest name, from the domain itself through its parents, that has
 * any; CNAMEs are followed for each of them, but not their targets' parents (RFC 8659 §3).
 */
#ifndef CM_DOMAIN_CAA_H
#define CM_DOMAIN_CAA_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    CAA_TYPE = 257, /* number of the record type */
    CAA_NAME_SIZE = 256,
    CAA_RECORDS_MAX = 32,
    CAA_TAG_SIZE = 32,
    CAA_VALUE_SIZE = 512,
    CAA_WHY_SIZE = 400,
};

struct caa_record {
    bool critical;          /* whoever does not know the tag must not issue */
    char tag[CAA_TAG_SIZE]; /* a longer one is cut, and is none that is known */
    char value[CAA_VALUE_SIZE];
    bool unusable; /* the value is too long, or has a zero byte: it names nobody */
};

struct caa_set {
    struct caa_record items[CAA_RECORDS_MAX];
    size_t count;
};

/*
 * The CAA records of `name` in the answer to a question for them, its CNAMEs followed as far as the
 * message has them; `ret_alias` is where they lead, "" when there are none. Without records and with
 * an alias the server has not gone all the way: the alias is to be asked for. ERR_PEER for a message
 * that is none, that is about a failure of the server, or has more records than are looked at.
 */
int caa_read_message(const void *message, size_t len, const char *name,
                     struct caa_set *ret, char ret_alias[CAA_NAME_SIZE], struct err *err);

/* The name above, within `name`; NULL at the top. */
const char *caa_parent(const char *name);

struct caa_request {
    const char *const *issuers; /* domain names that the CA goes by; none: not known */
    size_t issuer_count;
    const char *account_url; /* "" when it is not known */
    const char *method;      /* of validation, "http-01" */
    bool wildcard;           /* the certificate is to have a wildcard */
};

enum caa_verdict {
    CAA_PERMITS,
    CAA_FORBIDS,
    CAA_UNDECIDED, /* it would take a fact that the request does not have */
};

/* Why, for people, into `ret_why` of CAA_WHY_SIZE bytes. An empty set permits. */
enum caa_verdict caa_judge(const struct caa_set *set, const struct caa_request *request,
                           char *ret_why);

#endif
