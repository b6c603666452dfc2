#include "app/commands.h"

const struct command *const commands[] = {
    &cmd_run,    &cmd_check,  &cmd_render,    &cmd_config, &cmd_status,  &cmd_renew,
    &cmd_reload, &cmd_deploy, &cmd_log_level, &cmd_csr,    &cmd_account, &cmd_verify_log,
    &cmd_health, &cmd_revoke, &cmd_prestart,  &cmd_help,   &cmd_version, NULL,
};
