/* settings: what must hold of every load of a configuration, for the targets that make one. */
#ifndef TEST_FUZZ_SETTINGS_H
#define TEST_FUZZ_SETTINGS_H

#include "domain/config.h"

/*
 * Loads, and requires: errors or none, all of them fit for a log; and settings that are shown as a file
 * mean the same when that is loaded. No text of the program has `unseen` in it, unless that is NULL.
 * Whether the settings were accepted; `ret` then belongs to the caller.
 */
bool fuzz_load_settings(const struct config_sources *sources, const char *unseen,
                        struct config *ret);

#endif
