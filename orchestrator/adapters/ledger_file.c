#include "adapters/ledger_file.h"

#include "base/fs.h"
#include "base/log.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* ---- reading ---- */

static int start_anew(struct ledger_file *file, const struct err *damage, int64_t now,
                      struct err *err)
{
    if (store_set_state_aside(file->store, STORE_LEDGER, err) < 0)
        return err_wrap(err, "the ledger of orders is damaged (%s), and stays",
                        damage->message);
    file->ledger.unknown_before = now;
    if (ledger_file_save(file, now, err) < 0)
        return -1;
    log_warning(
        "the ledger of orders is damaged (%s); it is kept as %s/%s.damaged, and "
        "what a CA allows counts as used up but for one order",
        damage->message, file->store->state, STORE_LEDGER);
    return 0;
}

static int load(struct ledger_file *file, int64_t now, struct err *err)
{
    char path[FS_PATH_MAX];
    BUF_SCOPED text = {0};
    struct err damage = ERR_INIT;

    if (fs_join(path, file->store->state, STORE_LEDGER, err) < 0)
        return -1;
    if (store_read_large_state(file->store, STORE_LEDGER, LEDGER_MAX_BYTES, &text,
                               &damage) == 0 &&
        ((text.len == 0 && !fs_exists(path)) ||
         ledger_read(&text, &file->ledger, &damage) == 0))
        return 0;
    if (damage.kind == ERR_SYS) {
        *err = damage;
        return -1;
    }
    return start_anew(file, &damage, now, err);
}

int ledger_file_open(struct ledger_file *file, const struct store *store,
                     const struct config *config, int64_t now, struct err *err)
{
    if (file->open)
        return 0;
    *file = (struct ledger_file){.store = store, .config = config};
    if (load(file, now, err) < 0) {
        ledger_done(&file->ledger);
        return err_wrap(err, "nothing is ordered without the ledger of orders");
    }
    file->open = true;
    return 0;
}

void ledger_file_done(struct ledger_file *file)
{
    ledger_done(&file->ledger);
    file->open = false;
}

/* ---- writing ---- */

int ledger_file_save(struct ledger_file *file, int64_t now, struct err *err)
{
    BUF_SCOPED text = {0};

    ledger_prune(&file->ledger, file->config, now);
    buf_init(&text, LEDGER_MAX_BYTES);
    if (ledger_write(&file->ledger, &text, err) < 0 ||
        store_write_state(file->store, STORE_LEDGER, buf_str(&text), err) < 0)
        return err_wrap(err, "the ledger of orders cannot be written");
    return 0;
}

int ledger_file_begin(struct ledger_file *file, const struct ledger_subject *subject,
                      int64_t now, int64_t *ret_at, struct err *err)
{
    int64_t at;

    if (ledger_begin(&file->ledger, subject, now, &at, err) < 0)
        return -1;
    if (ledger_file_save(file, now, err) < 0) {
        ledger_withdraw(&file->ledger, subject, at);
        return -1;
    }
    *ret_at = at;
    return 0;
}

/* ---- whether it lasts ---- */

const char *ledger_file_why_lost(const struct store *store)
{
    struct stat folder;
    struct stat root;
    struct statfs system;

    if (stat(store->folder, &folder) < 0 || stat("/", &root) < 0 ||
        statfs(store->folder, &system) < 0)
        return NULL;
    if (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC)
        return "in memory";
    return folder.st_dev == root.st_dev ? "on the root file system" : NULL;
}
