/*
 * What certbot.c, certbot_command.c, certbot_folder.c and certbot_orphan.c share: the folder of a run, which
 * outlives us, and the verdict on what is in it.
 *
 *     <folder>/            0710, ours, for the group of certbot's user to pass through
 *         run.json         the record: which process it is, and what for; ours
 *         stdout, stderr   made by us, written by certbot through its descriptors
 *         config/ work/ logs/ out/ tmp/    certbot's; the account key is in config/
 *
 * Only below those five can certbot's user put something of its own. What is read from
 * there is read without following a link, and believed only after the chain was checked.
 */
#ifndef CM_ADAPTERS_CERTBOT_INTERNAL_H
#define CM_ADAPTERS_CERTBOT_INTERNAL_H

#include "adapters/certbot.h"
#include "domain/certbot_record.h"

enum {
    CERTBOT_PLACES = 2,
    CERTBOT_TERM_GRACE_MS = 2000,
    CERTBOT_ARGUMENTS_MAX = 48,
    CERTBOT_VARIABLES_MAX = 8,
    CERTBOT_VARIABLE_SIZE = FS_PATH_MAX + 128,
};

/*
 * Any directory name works as certbot's account identifier, as long as --account names
 * it.
 */
#define CERTBOT_ACCOUNT_ID "cert-manager"

/* Both lists end with NULL. Nothing in it is secret: whoever runs here can read both. */
struct certbot_command {
    const char *argv[CERTBOT_ARGUMENTS_MAX];
    const char *environment[CERTBOT_VARIABLES_MAX];
    char output[FS_PATH_MAX], errors[FS_PATH_MAX]; /* files for what it says */

    /* Private. */
    char config[FS_PATH_MAX], work[FS_PATH_MAX], logs[FS_PATH_MAX], csr[FS_PATH_MAX];
    char cert[FS_PATH_MAX], chain[FS_PATH_MAX], fullchain[FS_PATH_MAX], tmp[FS_PATH_MAX];
    char variables[CERTBOT_VARIABLES_MAX][CERTBOT_VARIABLE_SIZE];
};

/* For a run in `folder`. It points into itself: do not copy it. */
int certbot_fill_command(struct certbot_command *command, const char *folder,
                         const struct certbot_request *request, struct err *err);

/*
 * The folder in a place, into `ret` of FS_PATH_MAX bytes: 0 is below run_dir, 1 below
 * /dev/shm.
 */
int certbot_place(const struct config *config, int place, char *ret, struct err *err);

/* The place for a new run: it has to be tmpfs, because the account key is in it. */
int certbot_choose_place(const struct config *config, char *ret, struct err *err);

struct certbot_purpose certbot_purpose_of(const struct certbot_request *request);

/* Atomic: it is there as a whole or not at all. */
int certbot_save_record(const char *folder, const struct certbot_record *record,
                        const struct certbot_purpose *purpose, struct err *err);

/* `ret` is for CERTBOT_LEFT_RUN, `err` for CERTBOT_LEFT_UNKNOWN. */
enum certbot_left certbot_look(const char *folder, const struct certbot_purpose *purpose,
                               struct certbot_record *ret, struct err *err);

/*
 * The chain, when certbot wrote all of it; false, and an empty buffer, otherwise. Nobody
 * needs to have seen how certbot ended.
 */
bool certbot_read_complete_chain(const char *folder, struct buf *ret);

/*
 * What the run in certbot->folder came to: outcome and chain_pem. Arguments and error as in
 * certbot_outcome.h; a complete chain is a success however certbot ended.
 */
int certbot_judge(struct certbot *certbot, int exit_status, int term_signal,
                  struct err *err);

/* The same for one that we ended, whose error is then ended_by_us. */
int certbot_judge_ended(struct certbot *certbot, struct err *err);

/*
 * The last step of each operation: the folder is removed or, when there is a chain, only
 * the account in it. Calls `done`.
 */
void certbot_finish(struct certbot *certbot, const struct err *err);

#endif
