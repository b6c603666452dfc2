/*
 * renewal file: the renewal record of the served leaf in the state folder.
 */
#ifndef CM_ADAPTERS_RENEWAL_FILE_H
#define CM_ADAPTERS_RENEWAL_FILE_H

#include "adapters/store.h"
#include "domain/renewal_record.h"

/* False when there is none for this leaf. A damaged one is logged, and replaced by the next. */
bool renewal_file_load(const struct store *store, const char *leaf,
                       struct renewal_record *ret);

int renewal_file_save(const struct store *store, const struct renewal_record *record,
                      struct err *err);

#endif
