/*
 * seccomp: the system calls that this process, and its threads, may make from here on. For good.
 *
 * Allowed is what a daemon with files, sockets, timers and threads needs, and what libraries take instead
 * of it. Anything else fails with ENOSYS, as on an older kernel, for which libraries have a way out; nothing
 * is ever killed for a call, since a newer libc must not cost anybody HTTPS. Programs cannot be run, nor
 * processes forked (runtime/spawn.h has a helper for that); sockets are of the families unix, IPv4, IPv6
 * and netlink. The kernel's audit log has what was refused, where that is on.
 */
#ifndef CM_BASE_SECCOMP_H
#define CM_BASE_SECCOMP_H

#include "base/err.h"

#include <stdbool.h>

/* Whether the kernel, and whoever confines us already, offers it. */
bool seccomp_is_offered(void);

/* Needs no_new_privs, or to be privileged. */
int seccomp_confine(struct err *err);

#endif
