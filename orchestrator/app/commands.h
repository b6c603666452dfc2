/*
 * commands: one description and one file (cmd_<name>.c) for each verb of the command line.
 */
#ifndef CM_APP_COMMANDS_H
#define CM_APP_COMMANDS_H

#include "app/command.h"

extern const struct command cmd_run;
extern const struct command cmd_check;
extern const struct command cmd_render;
extern const struct command cmd_config;
extern const struct command cmd_status;
extern const struct command cmd_renew;
extern const struct command cmd_reload;
extern const struct command cmd_deploy;
extern const struct command cmd_log_level;
extern const struct command cmd_csr;
extern const struct command cmd_account;
extern const struct command cmd_verify_log;
extern const struct command cmd_health;
extern const struct command cmd_revoke;
extern const struct command cmd_prestart;
extern const struct command cmd_help;
extern const struct command cmd_version;

/* All of them, in the order of the manual; ends with NULL. */
extern const struct command *const commands[];

#endif
