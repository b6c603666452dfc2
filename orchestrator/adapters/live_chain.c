#include "adapters/live_chain.h"

#include "base/fs.h"
#include "domain/chain.h"
#include "domain/keys.h"

#include <stdio.h>
#include <string.h>

int live_chain_path(const struct config *config, const EVP_PKEY *key, char *ret,
                    struct err *err)
{
    char id[KEYS_ID_SIZE];
    char name[64];

    if (keys_id(key, id, err) < 0)
        return -1;
    snprintf(name, sizeof name, "live-%s.pem", id);
    return fs_join(ret, config->run_dir, name, err);
}

static int staged_path(const char *path, char ret[FS_PATH_MAX], struct err *err)
{
    int len = snprintf(ret, FS_PATH_MAX, "%s.next", path);

    return len < 0 || len >= FS_PATH_MAX
               ? err_set(err, ERR_CONFIG, "run_dir: the path is too long")
               : 0;
}

bool live_chain_is(const char *path, const struct buf *chain_pem)
{
    struct err ignored = ERR_INIT;
    BUF_SCOPED live = {0};

    return fs_read(path, CHAIN_PEM_MAX_BYTES, &live, &ignored) == 0 &&
           strcmp(buf_str(&live), buf_str(chain_pem)) == 0;
}

int live_chain_stage(const char *path, const struct buf *chain_pem, struct err *err)
{
    char staged[FS_PATH_MAX];

    /* Workers read it as the user they run as. */
    return staged_path(path, staged, err) < 0
               ? -1
               : fs_replace(staged, chain_pem->data, chain_pem->len, 0644, err);
}

int live_chain_switch(const char *path, struct err *err)
{
    char staged[FS_PATH_MAX];

    return staged_path(path, staged, err) < 0 ? -1 : fs_rename_now(staged, path, err);
}
