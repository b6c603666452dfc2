#include "adapters/account_memory.h"

#include "base/log.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define STATE_NAME "account.json"

static bool member_is(const json_t *record, const char *name, const char *value)
{
    const char *text = json_string_value(json_object_get(record, name));

    return text != NULL && strcmp(text, value) == 0;
}

void account_memory_load(const struct store *store, const char *directory,
                         const char *thumbprint, char *ret, size_t size)
{
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};
    const char *url;
    json_t *record;

    ret[0] = '\0';
    if (store_read_state(store, STATE_NAME, &text, &err) < 0) {
        log_warning("the remembered account cannot be read, so the CA is asked: %s",
                    err.message);
        return;
    }
    if (text.len == 0)
        return;
    record = json_loads(buf_str(&text), JSON_REJECT_DUPLICATES, NULL);
    url = json_string_value(json_object_get(record, "url"));
    if (url == NULL)
        log_warning("%s/%s is damaged, so the CA is asked for the account", store->state,
                    STATE_NAME);
    else if (member_is(record, "directory", directory) &&
             member_is(record, "thumbprint", thumbprint) && strlen(url) < size)
        snprintf(ret, size, "%s", url);
    json_decref(record);
}

int account_memory_save(const struct store *store, const char *directory,
                        const char *thumbprint, const char *url, struct err *err)
{
    json_t *record = json_pack("{s:s, s:s, s:s}", "directory", directory, "thumbprint",
                               thumbprint, "url", url);
    char *text = json_dumps(record, JSON_INDENT(1));
    int failed;

    json_decref(record);
    if (text == NULL)
        return err_set(err, ERR_PEER, "the account URL is not valid UTF-8");
    failed = store_write_state(store, STATE_NAME, text, err);
    wipe_free(text);
    return failed;
}
