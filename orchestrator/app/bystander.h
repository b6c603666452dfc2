/*
 * bystander: a small process of its own beside the one that this one becomes by exec.
 */
#ifndef CM_APP_BYSTANDER_H
#define CM_APP_BYSTANDER_H

#include "base/err.h"

/*
 * `run` is called in it with `argument`, and it ends after that; signals that are meant for the whole
 * session do not end it. Forked twice, so that it is no child of the caller: nginx's master would report
 * the end of a child that it does not know.
 */
int bystander_start(void (*run)(void *argument), void *argument, struct err *err);

#endif
