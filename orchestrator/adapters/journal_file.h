/*
 * journal_file: the intent and the record of domain/journal.h in the state folder.
 *
 * One that is damaged is moved aside (its name gets ".damaged"), reported once, and counts as
 * missing: what it would have said is found out from the agent and the disk.
 */
#ifndef CM_ADAPTERS_JOURNAL_FILE_H
#define CM_ADAPTERS_JOURNAL_FILE_H

#include "adapters/store.h"
#include "domain/journal.h"

#include <stdbool.h>

int journal_save_intent(const struct store *store, const struct journal_intent *intent,
                        struct err *err);
int journal_forget_intent(const struct store *store, struct err *err);

/*
 * Whether there is one. Failures are logged, and mean that there is none. A record does not survive a
 * damaged intent, which may have been about an event that it does not know.
 */
bool journal_load_intent(const struct store *store, struct journal_intent *ret);

/* Readable or not. */
bool journal_has_intent(const struct store *store);

int journal_save_record(const struct store *store, const struct journal_record *record,
                        struct err *err);
bool journal_load_record(const struct store *store, struct journal_record *ret);
int journal_forget_record(const struct store *store, struct err *err);

/* The id of this boot, or "" where the kernel does not tell (random(4)). */
void journal_boot_id(char ret[JOURNAL_BOOT_SIZE]);

#endif
