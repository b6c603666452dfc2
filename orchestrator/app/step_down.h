/*
 * step_down: before nginx starts, its configuration is tested, and replaced by one that depends on
 * less when nginx would refuse it: with HTTPS by the one without the application, otherwise by the
 * one from our own template.
 */
#ifndef CM_APP_STEP_DOWN_H
#define CM_APP_STEP_DOWN_H

#include "adapters/store.h"
#include "domain/config.h"

/* Waits for `nginx -t`. What goes wrong is logged. Not while nginx runs. */
void step_down_if_refused(const struct config *config, const struct store *store);

#endif
