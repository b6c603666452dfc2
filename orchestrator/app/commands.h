/*
 * commands: one function and one file (cmd_<name>.c) per verb of the command line. Each
 * gets argv from its own name on and returns the exit code of the process.
 */
#ifndef CM_APP_COMMANDS_H
#define CM_APP_COMMANDS_H

int cmd_run(int argc, char **argv);
int cmd_prestart(int argc, char **argv);
int cmd_verify_log(int argc, char **argv);
int cmd_render(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
