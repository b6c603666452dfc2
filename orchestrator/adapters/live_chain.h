/*
 * live_chain: the file that nginx's workers take a renewed chain from, without a reload
 * (ngx_http_live_chain_module).
 *
 * It lies on tmpfs, written by us alone and only after its leaf was measured, and wins over
 * cert.pem: what somebody copies onto the volume is never served by that. There is one file for each
 * key, so that a new key never meets the chain of another: workers of before go on with theirs.
 */
#ifndef CM_ADAPTERS_LIVE_CHAIN_H
#define CM_ADAPTERS_LIVE_CHAIN_H

#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"

#include <openssl/evp.h>
#include <stdbool.h>

/* "<run_dir>/live-<16 hex digits of the public key's SHA-256>.pem" into FS_PATH_MAX bytes. */
int live_chain_path(const struct config *config, const EVP_PKEY *key, char *ret,
                    struct err *err);

/* Whether the file has this text. */
bool live_chain_is(const char *path, const struct buf *chain_pem);

/* Write it beside the file; live_chain_switch puts it in its place, in one rename(2). */
int live_chain_stage(const char *path, const struct buf *chain_pem, struct err *err);
int live_chain_switch(const char *path, struct err *err);

#endif
