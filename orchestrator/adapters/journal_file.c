#include "adapters/journal_file.h"

#include "base/fs.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_MAX_BYTES = 4096 };

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

static int save(const struct store *store, const char *name, const struct buf *text,
                struct err *err)
{
    return store_write_state(store, name, buf_str(text), err);
}

int journal_save_intent(const struct store *store, const struct journal_intent *intent,
                        struct err *err)
{
    BUF_SCOPED text = {.max = TEXT_MAX_BYTES};

    return journal_intent_write(intent, &text, err) < 0
               ? -1
               : save(store, JOURNAL_INTENT, &text, err);
}

int journal_save_record(const struct store *store, const struct journal_record *record,
                        struct err *err)
{
    BUF_SCOPED text = {.max = TEXT_MAX_BYTES};

    return journal_record_write(record, &text, err) < 0
               ? -1
               : save(store, JOURNAL_RECORD, &text, err);
}

int journal_forget_intent(const struct store *store, struct err *err)
{
    return store_remove_state(store, JOURNAL_INTENT, err);
}

int journal_forget_record(const struct store *store, struct err *err)
{
    return store_remove_state(store, JOURNAL_RECORD, err);
}

static void log_unread(const struct store *store, const char *name, const struct err *why)
{
    log_warning("%s/%s is not used: %s", store->state, name, why->message);
}

static void put_aside(const struct store *store, const char *name, const struct err *why)
{
    struct err err = ERR_INIT;

    if (store_set_state_aside(store, name, &err) < 0)
        log_warning("%s/%s is damaged (%s) and stays where it is: %s", store->state, name,
                    why->message, err.message);
    else
        log_warning("%s/%s is damaged (%s); it is kept as %s.damaged", store->state, name,
                    why->message, name);
}

/* What is no file, or too large, is as good as damaged; what cannot be read now may be later. */
bool journal_load_intent(const struct store *store, struct journal_intent *ret)
{
    struct err err = ERR_INIT;
    struct err ignored = ERR_INIT;
    BUF_SCOPED text = {0};
    int failed = store_read_state(store, JOURNAL_INTENT, &text, &err);

    *ret = (struct journal_intent){.way = JOURNAL_FORWARD};
    if (failed == 0 && text.len == 0)
        return false;
    if (failed == 0 && journal_intent_read(buf_str(&text), ret, &err) == 0)
        return true;
    if (err.kind == ERR_SYS) {
        log_unread(store, JOURNAL_INTENT, &err);
        return false;
    }
    (void)journal_forget_record(store, &ignored);
    put_aside(store, JOURNAL_INTENT, &err);
    return false;
}

bool journal_has_intent(const struct store *store)
{
    char path[FS_PATH_MAX];
    struct err ignored = ERR_INIT;

    return fs_join(path, store->state, JOURNAL_INTENT, &ignored) == 0 && fs_exists(path);
}

bool journal_load_record(const struct store *store, struct journal_record *ret)
{
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};

    *ret = (struct journal_record){.leaf = ""};
    if (store_read_state(store, JOURNAL_RECORD, &text, &err) < 0) {
        log_unread(store, JOURNAL_RECORD, &err);
        return false;
    }
    if (text.len == 0)
        return false;
    if (journal_record_read(buf_str(&text), ret, &err) == 0)
        return true;
    if (err.kind == ERR_SYS)
        log_unread(store, JOURNAL_RECORD, &err);
    else
        put_aside(store, JOURNAL_RECORD, &err);
    return false;
}

void journal_boot_id(char ret[JOURNAL_BOOT_SIZE])
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED text = {0};

    ret[0] = '\0';
    if (fs_read(BOOT_ID_FILE, JOURNAL_BOOT_SIZE - 1, &text, &ignored) == 0)
        snprintf(ret, JOURNAL_BOOT_SIZE, "%.*s", (int)strcspn(buf_str(&text), "\n"),
                 buf_str(&text));
}
