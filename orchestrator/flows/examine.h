/*
 * examine: judge the pair in the TLS folder by the start rules (domain/stored.h), and set
 * it aside when it must not stay. Blocks only for the disk; run again after a failure.
 */
#ifndef CM_FLOWS_EXAMINE_H
#define CM_FLOWS_EXAMINE_H

#include "adapters/store.h"
#include "domain/chain.h"
#include "domain/config.h"

#include <openssl/evp.h>

/*
 * *ret_chain is the chain to serve, owned by the caller, or NULL when one has to be
 * obtained.
 */
int examine_stored(const struct store *store, const struct config *config,
                   const EVP_PKEY *tls_key, struct chain **ret_chain, struct err *err);

#endif
