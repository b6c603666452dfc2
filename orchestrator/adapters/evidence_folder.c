#include "adapters/evidence_folder.h"

#include <string.h>
#include <unistd.h>

#define LINK_NAME "evidences"

static const char *const names[] = {LINK_NAME "-1", LINK_NAME "-2"};

static int link_path(const struct config *config, char *ret, struct err *err)
{
    return fs_join(ret, config->run_dir, LINK_NAME, err);
}

int evidence_folder_for_nginx(const struct config *config, char *path,
                              struct nginx_facts *facts, struct err *err)
{
    if (!config->evidence || config->development)
        return 0;
    if (link_path(config, path, err) < 0)
        return -1;
    facts->evidence = path;
    return 0;
}

/* Whether the link names this one. Whatever else is at its path names none. */
static bool is_shown(const char *link, const char *name)
{
    char target[sizeof LINK_NAME "-1"];
    ssize_t len = readlink(link, target, sizeof target);

    return len == (ssize_t)strlen(name) && memcmp(target, name, (size_t)len) == 0;
}

int evidence_folder_prepare(const struct config *config, char *ret, struct err *err)
{
    char link[FS_PATH_MAX];

    if (link_path(config, link, err) < 0 ||
        fs_join(ret, config->run_dir, names[is_shown(link, names[0])], err) < 0 ||
        fs_remove_tree(ret, err) < 0)
        return -1;
    return fs_make_folder(ret, 0755, err);
}

int evidence_folder_write(const char *folder, const char *name, const void *data,
                          size_t len, struct err *err)
{
    char path[FS_PATH_MAX];

    return fs_join(path, folder, name, err) < 0 ? -1
                                                : fs_replace(path, data, len, 0644, err);
}

/* All but `kept`, NULL for none. */
static int remove_folders(const struct config *config, const char *kept, struct err *err)
{
    char path[FS_PATH_MAX];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (kept != NULL && strcmp(kept, names[i]) == 0)
            continue;
        if (fs_join(path, config->run_dir, names[i], err) < 0 ||
            fs_remove_tree(path, err) < 0)
            return -1;
    }
    return 0;
}

int evidence_folder_publish(const struct config *config, const char *folder,
                            struct err *err)
{
    const char *name = strrchr(folder, '/') + 1;
    char link[FS_PATH_MAX];

    if (link_path(config, link, err) < 0 || fs_replace_link(link, name, err) < 0)
        return -1;
    return remove_folders(config, name, err);
}

int evidence_folder_withdraw(const struct config *config, struct err *err)
{
    char link[FS_PATH_MAX];

    if (link_path(config, link, err) < 0 || fs_remove_tree(link, err) < 0)
        return -1;
    return remove_folders(config, NULL, err);
}
