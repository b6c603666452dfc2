/*
 * preflight: whether an order can succeed at all, judged before the CA is asked, since CAs count what
 * fails. Pure: what was looked at comes as arguments.
 *
 * A check has failed when an order is certain to fail, and then none is made; whatever else is
 * found out is advice.
 */
#ifndef CM_DOMAIN_PREFLIGHT_H
#define CM_DOMAIN_PREFLIGHT_H

#include "base/err.h"
#include "domain/caa.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum preflight_check {
    PREFLIGHT_CLOCK,
    PREFLIGHT_DISK,
    PREFLIGHT_DNS,     /* the domain resolves */
    PREFLIGHT_PORT_80, /* nginx serves a file out of the webroot */
    PREFLIGHT_ADDRESS, /* the same by the domain's own addresses */
    PREFLIGHT_CERTBOT, /* it can be run */
    PREFLIGHT_CAA,     /* the CA may issue for the domain */
    PREFLIGHT_CHECKS,
};

enum preflight_verdict {
    PREFLIGHT_UNKNOWN, /* not looked at yet, or it could not be found out */
    PREFLIGHT_OK,
    PREFLIGHT_ADVICE,
    PREFLIGHT_FAILED, /* nothing is ordered */
};

enum { PREFLIGHT_TEXT_SIZE = 512 };

struct preflight_finding {
    enum preflight_verdict verdict;
    char text[PREFLIGHT_TEXT_SIZE]; /* what was found, "" before the first look */
    char hint[PREFLIGHT_TEXT_SIZE]; /* what to do about it, "" for nothing */
};

/* By enum preflight_check. */
struct preflight {
    struct preflight_finding findings[PREFLIGHT_CHECKS];
};

/* "clock", "port 80", …; "ok", "advice", …. For log and status. */
const char *preflight_name(enum preflight_check check);
const char *preflight_verdict_name(enum preflight_verdict verdict);

bool preflight_same(const struct preflight_finding *a, const struct preflight_finding *b);

/* ERR_SYS that names the checks that have failed, and why; 0 when an order may be made. */
int preflight_result(const struct preflight *preflight, struct err *err);

/* Whether all that holds an order back is that the domain does not resolve yet. */
bool preflight_waits_for_dns(const struct preflight *preflight);

/* ---- the checks; `why` is NULL where nothing went wrong ---- */

void preflight_skip(struct preflight_finding *ret, const char *why);
void preflight_judge_clock(struct preflight_finding *ret, int64_t now);
void preflight_judge_disk(struct preflight_finding *ret, const struct err *why);

/* `last`: further tries are no use, the CA may see another DNS. `addresses` are for the text. */
void preflight_judge_dns(struct preflight_finding *ret, const struct err *why,
                         const char *addresses, bool last);

/* What an HTTP server said to the request for a file of ours. */
struct preflight_answer {
    const struct err *why; /* no answer */
    int status;
    const char *body;
    const char *location; /* of a redirect, "" for none */
};

/*
 * The file's name and text. Its name has the form of a token and its text not that of the answer to
 * a challenge, "<token>.<thumbprint>" (RFC 8555 §8.1): who computes that, without files, is known.
 */
struct preflight_file {
    const char *name;
    const char *text;
};

/* No file of ours can be put into the webroot, hence none of certbot, either. */
void preflight_judge_webroot(struct preflight_finding *ret, const struct err *why);

/* `webroot` is for the hint. */
void preflight_judge_port_80(struct preflight_finding *ret,
                             const struct preflight_answer *answer,
                             const struct preflight_file *file, const char *webroot);

/*
 * One address after the other into the same finding, which is zeroed before the first: the worst
 * stays. An address that is not reached from here may well be from elsewhere.
 */
void preflight_judge_address(struct preflight_finding *ret, const char *address,
                             const struct preflight_answer *answer,
                             const struct preflight_file *file);

/* `version` is what it said, its first line. */
void preflight_judge_certbot(struct preflight_finding *ret, const struct err *why,
                             const char *path, const char *version);

struct preflight_caa {
    const struct err *why; /* the DNS did not answer */
    const struct caa_set *records;
    const char *found_at; /* whose they are */
    struct caa_request request;
};
void preflight_judge_caa(struct preflight_finding *ret, const struct preflight_caa *caa);

#endif
