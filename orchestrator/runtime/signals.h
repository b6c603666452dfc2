/*
 * signals: those that the process lives by, read from a descriptor. They are blocked all the time, so
 * one that comes while no loop runs waits, and is neither lost nor deadly. Of one number at most one waits.
 *
 * Embedded in its owner. signals_start … signals_close; the owner's memory stays until the loop has ended.
 */
#ifndef CM_RUNTIME_SIGNALS_H
#define CM_RUNTIME_SIGNALS_H

#include "base/err.h"

#include <uv.h>

struct signals {
    /* Private. */
    uv_poll_t poll;
    int fd; /* -1: it is not open */
    void (*came)(void *owner, int number);
    void *owner;
};

/*
 * `numbers` end with 0. Blocks them, for good: to be called before there is another thread. Children
 * get them unblocked (runtime/spawn.h). ERR_SYS; it is closed in either case.
 */
int signals_start(struct signals *signals, uv_loop_t *loop, const int *numbers,
                  void (*came)(void *owner, int number), void *owner, struct err *err);

/* After signals_start, also a failed one. `came` is not called any more. */
void signals_close(struct signals *signals);

#endif
