/*
 * wake: a bystander that lets supervisord begin at once. supervisord starts its programs in the
 * round of its loop that follows the first event it waits for, and without one it waits for a second
 * (supervisor/supervisord.py, runforever). A connection to its socket is such an event.
 */
#ifndef CM_APP_WAKE_H
#define CM_APP_WAKE_H

#include "base/err.h"

/*
 * From now on the unix socket at `path` is tried until somebody listens there, for ten seconds at
 * most, and while this process lives, whatever it becomes; connecting is all that is done. A socket that
 * nobody listens at now is one that a killed container left behind, and removed. ERR_CONFIG when the path
 * is too long for a socket.
 */
int wake_when_listening(const char *path, struct err *err);

#endif
