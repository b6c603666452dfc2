#include "adapters/account_memory.h"

#include "base/log.h"

#define STATE_NAME "account.json"

/* False, and an empty text, when it cannot be read. */
static bool read_memory(const struct store *store, struct buf *ret)
{
    struct err err = ERR_INIT;

    if (store_read_state(store, STATE_NAME, ret, &err) == 0)
        return true;
    buf_clear(ret);
    log_warning("the remembered accounts cannot be read, so the CA is asked: %s",
                err.message);
    return false;
}

void account_memory_load(const struct store *store, const struct account_owner *owner,
                         struct account *ret)
{
    BUF_SCOPED text = {0};

    *ret = (struct account){.url = ""};
    if (read_memory(store, &text) &&
        account_find(buf_str(&text), owner, ret) == ACCOUNT_MEMORY_DAMAGED)
        log_warning("%s/%s is damaged, so the CA is asked for the account", store->state,
                    STATE_NAME);
}

int account_memory_save(const struct store *store, const struct account_owner *owner,
                        const struct account *account, struct err *err)
{
    BUF_SCOPED before = {0};
    BUF_SCOPED text = {.max = ACCOUNT_MEMORY_MAX_BYTES};

    read_memory(store, &before);
    if (account_note(buf_str(&before), owner, account, &text, err) < 0)
        return -1;
    return store_write_state(store, STATE_NAME, buf_str(&text), err);
}

void account_memory_forget(const struct store *store)
{
    struct err err = ERR_INIT;

    if (store_remove_state(store, STATE_NAME, &err) < 0)
        log_warning("the remembered accounts cannot be forgotten: %s", err.message);
}
