/*
 * caa_lookup: the CAA records that a domain is under, asked of the machine's DNS servers: its own,
 * else those of the nearest parent that has any (RFC 8659 §3); aliases are followed even where the
 * server does not. Ownership and order of calls: done.h.
 */
#ifndef CM_ADAPTERS_CAA_LOOKUP_H
#define CM_ADAPTERS_CAA_LOOKUP_H

#include "domain/caa.h"
#include "runtime/dns_query.h"
#include "runtime/seq.h"

enum { CAA_LOOKUP_MS = 5 * 1000 }; /* for all questions together */

/* Borrowed until done. */
struct caa_lookup_request {
    uv_loop_t *loop;
    const char *domain;  /* a wildcard is asked for without its "*." */
    const char *servers; /* NULL: the machine's; dns_query.h */
};

struct caa_lookup {
    /* Results: the records, and whose they are, "" when no name up to the top has any. */
    struct caa_set records;
    char found_at[CAA_NAME_SIZE];

    /* Private. */
    struct caa_lookup_request request;
    const char *level;         /* the domain or one of its parents */
    char asked[CAA_NAME_SIZE]; /* that, or what it is an alias of */
    unsigned aliases;
    uint64_t deadline_ms;
    struct dns_query query;
    struct seq seq;
    done_fn done;
    void *owner;
};

/* ERR_NET, ERR_PEER, ERR_TIMEOUT: as long as one answer is missing, nothing is known. */
void caa_lookup_start(struct caa_lookup *lookup, const struct caa_lookup_request *request,
                      done_fn done, void *owner);
void caa_lookup_cancel(struct caa_lookup *lookup);

#endif
