/*
 * daemon: turns events into flows. The pure plan (domain/plan.h) says what comes next;
 * here it is started, its outcome recorded, and the plan asked again. One flow runs at a
 * time.
 */
#ifndef CM_APP_DAEMON_H
#define CM_APP_DAEMON_H

#include "domain/config.h"

/* Runs until SIGTERM or SIGINT. The exit code of the process. */
int daemon_run(const struct config *config);

#endif
