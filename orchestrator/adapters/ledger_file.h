/*
 * ledger_file: the ledger of orders in the state folder, <state>/ledger.json.
 *
 * What the ledger says decides whether a CA may be asked, so nothing may be ordered that it does not
 * have: ledger_file_begin comes before certbot, and when it fails there is no order. A file that is
 * damaged is set aside and reported, and of each limit all permits but one count as used. One that
 * cannot be read is not judged: then nothing is ordered until it can be.
 */
#ifndef CM_ADAPTERS_LEDGER_FILE_H
#define CM_ADAPTERS_LEDGER_FILE_H

#include "adapters/store.h"
#include "domain/ledger.h"

#include <stdbool.h>
#include <stdint.h>

struct ledger_file {
    const struct store *store; /* borrowed, as the next */
    const struct config *config;
    struct ledger ledger; /* valid while open */
    bool open;
};

/* `file` is zeroed before the first call; nothing is done when it is open. */
int ledger_file_open(struct ledger_file *file, const struct store *store,
                     const struct config *config, int64_t now, struct err *err);
void ledger_file_done(struct ledger_file *file);

/* Pruned, and written durably. */
int ledger_file_save(struct ledger_file *file, int64_t now, struct err *err);

/* As ledger_begin; when it cannot be written nothing has begun. */
int ledger_file_begin(struct ledger_file *file, const struct ledger_subject *subject,
                      int64_t now, int64_t *ret_at, struct err *err);

/*
 * Why the TLS folder will not outlive the container, or NULL: a limit is of no use that is
 * forgotten with each of them.
 */
const char *ledger_file_why_lost(const struct store *store);

#endif
