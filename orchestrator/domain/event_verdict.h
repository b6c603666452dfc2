/*
 * event verdict: does an event log hold, and does it name a certificate? Pure.
 *
 * What attesting clients check, with a reason for each thing that they would refuse: every
 * digest of a runtime event is that of its name and payload, RTMR3 is what its entries
 * extend it to, and the last certificate event names the leaf.
 */
#ifndef CM_DOMAIN_EVENT_VERDICT_H
#define CM_DOMAIN_EVENT_VERDICT_H

#include "base/err.h"
#include "domain/event_log.h"

#include <stdbool.h>
#include <stddef.h>

enum event_fault_kind {
    FAULT_ENTRY_MALFORMED,   /* no register, or in RTMR3 no type or name */
    FAULT_REGISTER_EMPTY,    /* no entry in RTMR3 */
    FAULT_DIGESTS_LEFT_OUT,  /* of all entries, as GetQuote does */
    FAULT_DIGEST_MISSING,    /* of this entry */
    FAULT_DIGEST_MALFORMED,  /* not 48 bytes of hex */
    FAULT_DIGEST_WRONG,      /* neither version 1 nor version 2 of name and payload */
    FAULT_VERSION_WRONG,     /* the digest is of another version than the entry says */
    FAULT_PREIMAGE_WRONG,    /* not what was hashed */
    FAULT_PAYLOAD_MISSING,   /* so nothing can be recomputed */
    FAULT_PAYLOAD_MALFORMED, /* not hex */
    FAULT_REGISTER_DIFFERS,  /* what the entries make of RTMR3 is not its value */
    FAULT_EVENT_MISSING,     /* no certificate event in RTMR3 */
    FAULT_EVENT_UNBOUND,     /* its type is not that of runtime events */
    FAULT_EVENT_MALFORMED,   /* its payload names no leaf as verifiers expect it */
    FAULT_LEAF_DIFFERS,      /* it names another leaf */
};

struct event_fault {
    enum event_fault_kind kind;
    size_t position; /* of the entry, from 1; 0: the log as a whole */
    char text[480];  /* one line for people, safe to print */
};

/* NULL members: not asked. */
struct event_question {
    const unsigned char *rtmr3; /* the register's value, EVENT_DIGEST_BYTES */
    const char *leaf_sha256;    /* lower-case hex */
};

enum event_register_source { REGISTER_UNKNOWN, REGISTER_GIVEN, REGISTER_SHOWN };

enum { EVENT_FAULTS_KEPT = 32 };

struct event_verdict {
    size_t entries;
    size_t register_entries; /* in RTMR3 */
    size_t
        version_entries[3]; /* runtime events by the version of their digest; 0: wrong */
    size_t other_entries;   /* in RTMR3, but no runtime events: nothing to recompute */
    bool replayed;          /* every entry of RTMR3 has a digest */
    unsigned char rtmr3[EVENT_DIGEST_BYTES];
    enum event_register_source source; /* of what it was compared with */
    size_t certificate_events;
    size_t certificate_position; /* of the last one; 0: none */
    char certificate_leaf[65];   /* that it names; "": none that can be seen */

    size_t fault_count;
    struct event_fault faults[EVENT_FAULTS_KEPT]; /* the first ones */
};

/* It holds when there is no fault. Without a given register the shown one is compared. */
int event_verdict(struct event_verdict *ret, const struct event_log *log,
                  const struct event_question *question, struct err *err);

/* The kind for machines: "digest-wrong", … */
const char *event_fault_name(enum event_fault_kind kind);

#endif
