/*
 * account memory: the accounts that CAs gave for our account key, kept with the certificate so
 * that renewals need not ask for them (domain/account.h).
 */
#ifndef CM_ADAPTERS_ACCOUNT_MEMORY_H
#define CM_ADAPTERS_ACCOUNT_MEMORY_H

#include "adapters/store.h"
#include "domain/account.h"

/*
 * Zeroed when none is remembered for this owner. What cannot be read is logged and
 * counts as none.
 */
void account_memory_load(const struct store *store, const struct account_owner *owner,
                         struct account *ret);

int account_memory_save(const struct store *store, const struct account_owner *owner,
                        const struct account *account, struct err *err);

/* All of them, when a CA does not accept one any more: the CAs are asked for them anew. */
void account_memory_forget(const struct store *store);

#endif
