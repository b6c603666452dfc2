/*
 * setup: what every command does first: settings from file and environment, logging,
 * secrets.
 */
#ifndef CM_APP_SETUP_H
#define CM_APP_SETUP_H

#include "app/command.h"
#include "domain/config.h"

/* Exit codes, documented in README.md; 78 is EX_CONFIG of sysexits.h. */
enum { EXIT_CONFIG = 78 };

#define SETUP_DEFAULT_CONFIG "/etc/cert-manager/config.yaml"

/* The options of every command that calls setup_load(). */
#define SETUP_OPTIONS                                                                    \
    {"config", "FILE",                                                                   \
     "the settings; else $CERT_MANAGER_CONFIG, else " SETUP_DEFAULT_CONFIG               \
     " when it exists. The environment wins over it",                                    \
     NULL},                                                                              \
    {                                                                                    \
        "set", "KEY=VALUE…",                                                             \
            "a setting, by its key in the file, such as log.level=debug; wins over "     \
            "file and environment, and a later one over an earlier. A list is written "  \
            "as in the file: domains=[a.example.com, b.example.com]",                    \
            NULL                                                                         \
    }

/* Commands that repeat what another one has just logged skip them: level debug. */
enum setup_warnings { SETUP_LOG_WARNINGS, SETUP_SKIP_WARNINGS };

/* Before setup_load: where lines go, when standard output is for something else. Borrowed. */
void setup_log_to(int fd);

/* The log, and memory for secrets. 0, or the exit code after the reason was logged. */
int setup_process(void);

/*
 * setup_process(), and the settings by what was said to the SETUP_OPTIONS of a command. The file is
 * that of --config, else CERT_MANAGER_CONFIG unless it is empty, else SETUP_DEFAULT_CONFIG when that
 * exists. 0, or the exit code after the reasons were logged. `config` is released with config_done in either case.
 */
int setup_load(struct config *config, const struct command_line *line,
               enum setup_warnings warnings);

/*
 * The same for a command that only asks the daemon, which runs with settings of its own: errors and
 * warnings are not its matter, and it gets what can be read of them, which has to have run_dir.
 */
int setup_reach(struct config *config, const struct command_line *line);

/*
 * The same settings as they are now, by what was said to the command at its start; nothing is logged,
 * and nothing follows them yet. 0, or -1 with the reasons in the report. Both are released in either case.
 */
int setup_read(struct config *config, struct config_report *report,
               const struct command_line *line);

/* From here on the log is as the settings want it. */
void setup_follow(const struct config *config);

/* Of this process, of what it becomes, and of what it starts. */
void setup_forbid_core_dumps(void);

/* No core dumps, not dumpable, umask 077, SIGPIPE ignored. */
void setup_harden(void);

#endif
