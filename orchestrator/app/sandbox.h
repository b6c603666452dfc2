/*
 * sandbox: what the daemon forbids itself, for good (hardening.sandbox).
 *
 * To gain privileges, to run programs (a helper does that, runtime/spawn.h), system calls that it does not
 * need (base/seccomp.h), and to change what holds programs, libraries, settings and devices: of
 * the folders that are known to have those it writes to none but what settings name (base/landlock.h).
 * What the kernel does not offer is left out, with one warning: nobody goes without HTTPS for that.
 */
#ifndef CM_APP_SANDBOX_H
#define CM_APP_SANDBOX_H

#include "domain/config.h"
#include "domain/status.h"

#include <stdbool.h>

/* Once, before there are threads and keys. */
void sandbox_begin(const struct config *config);

/* The helper ends. */
void sandbox_end(void);

const struct status_hardening *sandbox_in_force(void);

/* What this kernel offers, for `check`; nothing changes. */
void sandbox_look(const struct config *config, struct status_hardening *ret);

/*
 * Whether the daemon could do what settings that are read later say; each reason that it could not is an
 * error of the report.
 */
void sandbox_judge(const struct config *now, const struct config *next,
                   struct config_report *report);

#endif
