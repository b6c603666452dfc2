/*
 * setup: what every command does first: settings from file and environment, logging,
 * secrets.
 */
#ifndef CM_APP_SETUP_H
#define CM_APP_SETUP_H

#include "domain/config.h"

/* Exit codes, documented in README.md; 78 is EX_CONFIG of sysexits.h. */
enum { EXIT_CONFIG = 78 };

#define SETUP_DEFAULT_CONFIG "/etc/cert-manager/config.yaml"

/* Commands that repeat what another one has just logged skip them: level debug. */
enum setup_warnings { SETUP_LOG_WARNINGS, SETUP_SKIP_WARNINGS };

/* Before setup_load: where lines go, when standard output is for something else. Borrowed. */
void setup_log_to(int fd);

/*
 * `config_file` as given on the command line, or NULL: then CERT_MANAGER_CONFIG unless it
 * is empty, then SETUP_DEFAULT_CONFIG when that exists. 0, or the exit code after the
 * reasons were logged. `config` is released with config_done in either case.
 */
int setup_load(struct config *config, const char *config_file,
               enum setup_warnings warnings);

/* No core dumps, not dumpable, umask 077, SIGPIPE ignored. */
void setup_harden(void);

#endif
