/*
 * step_down: before nginx starts, the configuration that it took once is tested again, and replaced
 * by the one without the application when nginx would refuse it now.
 */
#ifndef CM_APP_STEP_DOWN_H
#define CM_APP_STEP_DOWN_H

#include "adapters/store.h"
#include "domain/config.h"

/* Waits for `nginx -t`. What goes wrong is logged. Not while nginx runs. */
void step_down_if_refused(const struct config *config, const struct store *store);

#endif
