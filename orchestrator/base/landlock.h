/*
 * landlock: where this process may still write, make and remove files. For good.
 *
 * Reading stays free. Nothing can be executed, and no device be told anything but bytes. Paths are taken as
 * they are now: a folder that is removed and made anew is another one, unless what it is in is
 * allowed, too.
 */
#ifndef CM_BASE_LANDLOCK_H
#define CM_BASE_LANDLOCK_H

#include "base/err.h"

#include <stddef.h>

/*
 * The version that the kernel has, 0: none that is of use. The second one is the first that lets files be
 * renamed from folder to folder.
 */
int landlock_version(void);

struct landlock {
    int fd;
    int version;
};

int landlock_begin(struct landlock *rules, struct err *err);

/* Of a folder and all below it, or of a file. What is not there is left out. */
int landlock_allow(const struct landlock *rules, const char *path, struct err *err);

/* Needs no_new_privs, or to be privileged. */
int landlock_confine(const struct landlock *rules, struct err *err);
void landlock_drop(struct landlock *rules);

#endif
