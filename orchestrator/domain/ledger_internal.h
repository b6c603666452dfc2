/*
 * ledger_internal: what ledger.c (what happens), ledger_policy.c (what follows) and ledger_text.c
 * (its text) share.
 */
#ifndef CM_DOMAIN_LEDGER_INTERNAL_H
#define CM_DOMAIN_LEDGER_INTERNAL_H

#include "domain/ledger.h"

/* Index of the subject, or subject_count when there is none. */
size_t ledger_find_subject(const struct ledger *ledger,
                           const struct ledger_subject *subject);

/* The same, made where there is none. */
int ledger_add_subject(struct ledger *ledger, const struct ledger_subject *subject,
                       size_t *ret_index, struct err *err);

int ledger_append(struct ledger *ledger, const struct ledger_entry *entry,
                  struct err *err);

/* When it counts as made. */
int64_t ledger_time_of(const struct ledger_entry *entry, int64_t now);

/* Which entries a limit still looks at: `ret_counted` has one place for each, all of them false. */
void ledger_mark_counted(const struct ledger *ledger, const struct config *config,
                         int64_t now, bool *ret_counted);

#endif
