/*
 * evidence folder: what nginx serves at /evidences/, switched as a whole.
 *
 * <run_dir>/evidences is a symbolic link to evidences-1 or evidences-2 beside it. The next evidence
 * is written into the one that the link does not name, and shown by one rename of a new link; so
 * nobody is ever shown a folder that is half written. Modes are 0755 and 0644: workers of nginx
 * read it.
 */
#ifndef CM_ADAPTERS_EVIDENCE_FOLDER_H
#define CM_ADAPTERS_EVIDENCE_FOLDER_H

#include "base/buf.h"
#include "base/err.h"
#include "base/fs.h"
#include "domain/config.h"
#include "domain/nginx_conf.h"

/*
 * Tells nginx's configuration of it, unless it is off, as it always is in development, where nobody
 * attests. `path` has FS_PATH_MAX bytes, and lives as long as the facts.
 */
int evidence_folder_for_nginx(const struct config *config, char *path,
                              struct nginx_facts *facts, struct err *err);

/* An empty folder for the next evidence: its path into `ret` of FS_PATH_MAX bytes. */
int evidence_folder_prepare(const struct config *config, char *ret, struct err *err);
int evidence_folder_write(const char *folder, const char *name, const void *data,
                          size_t len, struct err *err);

/* The prepared folder is shown from now on, and the former one removed. */
int evidence_folder_publish(const struct config *config, const char *folder,
                            struct err *err);

/* Nothing is shown from now on. The link goes first. */
int evidence_folder_withdraw(const struct config *config, struct err *err);

#endif
