/*
 * account memory: the account URL that a CA gave for our account key, kept with the
 * certificate so that renewals need not ask for it. It is bound to directory and key: a
 * record for others counts as none.
 */
#ifndef CM_ADAPTERS_ACCOUNT_MEMORY_H
#define CM_ADAPTERS_ACCOUNT_MEMORY_H

#include "adapters/store.h"

#include <stddef.h>

/*
 * "" into `ret` when nothing fitting is remembered. A damaged record is logged and
 * counts as none.
 */
void account_memory_load(const struct store *store, const char *directory,
                         const char *thumbprint, char *ret, size_t size);

int account_memory_save(const struct store *store, const char *directory,
                        const char *thumbprint, const char *url, struct err *err);

#endif
