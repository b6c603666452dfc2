/*
 * watch: names of entries that appear, change or go in one folder (inotify through
 * libuv).
 *
 * A hint, never a truth: events may be merged or lost; who is told looks for himself.
 */
#ifndef CM_RUNTIME_WATCH_H
#define CM_RUNTIME_WATCH_H

#include "base/err.h"

#include <uv.h>

struct watch {
    /* Private. On the heap, because a start that failed leaves a handle to close, too. */
    struct watch_io *io; /* NULL while it is not open */
};

/* `name` is "" when it is not known. -1 with ERR_SYS when the folder cannot be watched;
 * then there is nothing to close. */
int watch_start(struct watch *watch, uv_loop_t *loop, const char *folder,
                void (*changed)(void *owner, const char *name), void *owner,
                struct err *err);

/* Accepts a watch that is zeroed, never started or is closed: `closed` (may be NULL) is
 * called all the same, in a later round of the loop. `changed` is not called any more. */
void watch_close(struct watch *watch, uv_loop_t *loop, void (*closed)(void *owner),
                 void *owner);

#endif
