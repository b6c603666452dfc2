/*
 * done: how every asynchronous operation ends.
 *
 * `x_start(x, …, done, owner)` never calls `done` before it returns; failures of starting also
 * arrive through `done`; `done` is called exactly once, after all handles of the operation have
 * closed, so its memory may be reused or freed from within. `x_cancel(x)` is idempotent and only
 * hastens `done`, which then says ERR_CANCELED. `err` is NULL on success and borrowed.
 *
 * seq_resume() has this form: a step passes it, with its sequence as the owner.
 */
#ifndef CM_RUNTIME_DONE_H
#define CM_RUNTIME_DONE_H

#include "base/err.h"

typedef void (*done_fn)(void *owner, const struct err *err);

#endif
