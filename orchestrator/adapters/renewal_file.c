#include "adapters/renewal_file.h"

#include "base/log.h"

#include <string.h>

enum { TEXT_MAX_BYTES = 8 * 1024 };

bool renewal_file_load(const struct store *store, const char *leaf,
                       struct renewal_record *ret)
{
    BUF_SCOPED text = {0};
    struct err err = ERR_INIT;

    *ret = (struct renewal_record){.leaf = ""};
    if (store_read_state(store, RENEWAL_RECORD, &text, &err) == 0 &&
        (text.len == 0 || renewal_record_read(buf_str(&text), ret, &err) == 0))
        return strcmp(ret->leaf, leaf) == 0;
    log_warning("%s/%s is not used, so the time of the renewal is chosen anew: %s",
                store->state, RENEWAL_RECORD, err.message);
    return false;
}

int renewal_file_save(const struct store *store, const struct renewal_record *record,
                      struct err *err)
{
    BUF_SCOPED text = {.max = TEXT_MAX_BYTES};

    return renewal_record_write(record, &text, err) < 0
               ? -1
               : store_write_state(store, RENEWAL_RECORD, buf_str(&text), err);
}
