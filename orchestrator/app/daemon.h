/*
 * daemon: turns events into flows. The pure plan (domain/plan.h) says what comes next;
 * here it is started, its outcome recorded, and the plan asked again. One flow runs at a
 * time.
 */
#ifndef CM_APP_DAEMON_H
#define CM_APP_DAEMON_H

#include "app/command.h"
#include "base/buf.h"
#include "base/err.h"
#include "domain/config.h"
#include "domain/deployment.h"

/*
 * SIGHUP waits from here on until a life of daemon_run() reads it. For the first moment of a daemon: it
 * would be ended by one that comes while it reads its settings.
 */
void daemon_hold_hangups(void);

/*
 * Runs until SIGTERM or SIGINT. The exit code of the process.
 *
 * On SIGHUP, and when asked over the control socket, the settings are read again from where `said` says.
 * Good ones take the place of those in `config`, and everything begins anew with them, in a new event
 * loop; nginx and its connections see nothing of that.
 */
int daemon_run(struct config *config, const struct command_line *said);

/*
 * When no daemon is at work: the same, for this deployment alone, which is served when it returns. What is
 * there otherwise stays as it is, nothing is ordered, and nobody is answered. In `ret` is what holds now.
 * ERR_SYS with code EWOULDBLOCK when another one is at work after all. Once in a process.
 */
int daemon_deploy(const struct config *config, struct deployment *deployment,
                  struct buf *ret, struct err *err);

#endif
