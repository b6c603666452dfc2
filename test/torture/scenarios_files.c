/* What is written to the volume: the old or the new, never half of either, and never a mixed pair. */
#include "scenario.h"

#include "adapters/ledger_file.h"
#include "adapters/store.h"
#include "base/fs.h"
#include "domain/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NOW = 1795459747 };

static bool is_one_of(const char *text, const char *one, const char *other)
{
    return strcmp(text, one) == 0 || strcmp(text, other) == 0;
}

/* ---- single files ---- */

static void put_old(struct scene *scene)
{
    scene_write(scene, "file", "old");
}

static int replace(struct scene *scene)
{
    return fs_replace(scene_path(scene, "file"), "the new one", 11, 0600, &scene->err);
}

static const char *old_or_new(struct scene *scene)
{
    const char *content = scene_content(scene, "file");

    if (!scene->failed)
        return strcmp(content, "the new one") == 0 ? NULL : "the file is not the new one";
    return is_one_of(content, "old", "the new one") ? NULL
                                                    : "the file is neither old nor new";
}

static int read_back(struct scene *scene)
{
    BUF_SCOPED content;
    int result;

    buf_init(&content, 64);
    result = fs_read(scene_path(scene, "file"), 64, &content, &scene->err);
    if (result == 0)
        scene_add(scene, buf_str(&content));
    return result;
}

static int read_secret(struct scene *scene)
{
    SECRET_SCOPED secret = NULL;
    int result = fs_read_secret(scene_path(scene, "file"), 64, &secret, &scene->err);

    if (result == 0)
        scene_add(scene, (const char *)secret->bytes);
    return result;
}

static void put_tree(struct scene *scene)
{
    mkdir(scene_path(scene, "tree"), 0700);
    mkdir(scene_path(scene, "tree/branch"), 0700);
    scene_write(scene, "tree/branch/leaf", "x");
    scene_write(scene, "tree/leaf", "x");
}

static int remove_tree(struct scene *scene)
{
    return fs_remove_tree(scene_path(scene, "tree"), &scene->err);
}

static const char *tree_is_gone(struct scene *scene)
{
    return !scene->failed && fs_exists(scene_path(scene, "tree")) ? "the tree is there"
                                                                  : NULL;
}

static int make_folder(struct scene *scene)
{
    return fs_make_folder(scene_path(scene, "a/b/c"), 0700, &scene->err);
}

static const char *folder_is_there(struct scene *scene)
{
    struct stat status;

    if (scene->failed)
        return NULL;
    if (stat(scene_path(scene, "a/b/c"), &status) != 0 ||
        (status.st_mode & 07777) != 0700)
        return "the folder is not as it was asked for";
    return NULL;
}

static int replace_link(struct scene *scene)
{
    return fs_replace_link(scene_path(scene, "link"), "file", &scene->err);
}

static void put_link(struct scene *scene)
{
    if (symlink("other", scene_path(scene, "link")) < 0)
        perror("symlink");
}

static const char *link_leads_somewhere(struct scene *scene)
{
    char target[16] = "";

    if (readlink(scene_path(scene, "link"), target, sizeof target - 1) < 0)
        return "there is no link";
    if (scene->failed)
        return is_one_of(target, "file", "other") ? NULL
                                                  : "the link is neither old nor new";
    return strcmp(target, "file") == 0 ? NULL : "the link is not the new one";
}

/* ---- the pair ---- */

struct volume {
    char tls[SCENE_PATH_SIZE];
    char run[SCENE_PATH_SIZE];
    struct config config;
    struct store store;
    struct ledger_file ledger;
};

static char directory[] = "https://ca.example/dir";

static void make_store(struct scene *scene)
{
    struct volume *volume = calloc(1, sizeof *volume);

    snprintf(volume->tls, sizeof volume->tls, "%s/tls", scene->folder);
    snprintf(volume->run, sizeof volume->run, "%s/run", scene->folder);
    mkdir(volume->run, 0755);
    mkdir(volume->tls, 0755);
    volume->config.tls.dir = volume->tls;
    volume->config.run_dir = volume->run;
    volume->config.acme.authorities.count = 1;
    volume->config.acme.authorities.items[0].directory = directory;
    scene->own = volume;
    if (store_init(&volume->store, &volume->config, &scene->err) < 0 ||
        store_check_writable(&volume->store, &scene->err) < 0)
        fprintf(stderr, "%s\n", scene->err.message);
}

static void free_store(struct scene *scene)
{
    struct volume *volume = scene->own;

    ledger_file_done(&volume->ledger);
    free(volume);
}

/* Of these texts; to the store a pair is two of them. */
static const char old_chain[] = "the old chain", old_key[] = "the old key";
static const char new_chain[] = "the new chain", new_key[] = "the new key";

static void put_pair(struct scene *scene)
{
    make_store(scene);
    scene_write(scene, "tls/cert.pem", old_chain);
    scene_write(scene, "tls/key.pem", old_key);
}

/* To store_stage or store_keep_previous; `key` may be NULL. */
static int give(struct scene *scene, const char *chain, const char *key,
                int (*take)(const struct store *store, const struct buf *chain_pem,
                            const struct secret *key_pem, struct err *err))
{
    const struct volume *volume = scene->own;
    SECRET_SCOPED secret = key == NULL ? NULL : secret_copy(key, strlen(key));
    BUF_SCOPED pem;

    buf_init(&pem, 1024);
    if (key != NULL && secret == NULL)
        return err_sys(&scene->err, 12, "no secure memory");
    if (buf_append_str(&pem, chain, &scene->err) < 0)
        return -1;
    return take(&volume->store, &pem, secret, &scene->err);
}

static int stage(struct scene *scene, const char *chain, const char *key)
{
    return give(scene, chain, key, store_stage);
}

static int keep_previous(struct scene *scene, const char *key)
{
    return give(scene, old_chain, key, store_keep_previous);
}

static int bring_chain(struct scene *scene)
{
    const struct volume *volume = scene->own;

    if (stage(scene, new_chain, NULL) < 0 || keep_previous(scene, NULL) < 0 ||
        store_promote_chain(&volume->store, &scene->err) < 0)
        return -1;
    return store_sync(&volume->store, &scene->err);
}

static int bring_pair(struct scene *scene)
{
    const struct volume *volume = scene->own;

    if (stage(scene, new_chain, new_key) < 0 || keep_previous(scene, old_key) < 0)
        return -1;
    return store_promote(&volume->store, &scene->err);
}

/* What a start finds, when it has finished what was cut off. */
static const char *judge_pair(struct scene *scene, const char *chain, const char *key,
                              const char *other_chain, const char *other_key)
{
    const struct volume *volume = scene->own;
    struct err err = ERR_INIT;
    bool finished = false;
    const char *live_chain, *live_key;

    if (store_finish_promotion(&volume->store, &finished, &err) < 0) {
        fprintf(stderr, "%s\n", err.message);
        return "what was cut off cannot be finished";
    }
    live_chain = scene_content(scene, "tls/cert.pem");
    live_key = scene_content(scene, "tls/key.pem");
    if (strcmp(live_chain, chain) == 0 && strcmp(live_key, key) == 0)
        return NULL;
    if (scene->failed && strcmp(live_chain, other_chain) == 0 &&
        strcmp(live_key, other_key) == 0)
        return NULL;
    fprintf(stderr, "\"%s\" with \"%s\"\n", live_chain, live_key);
    return "the live pair is not what it has to be";
}

static const char *chain_is_whole(struct scene *scene)
{
    return judge_pair(scene, new_chain, old_key, old_chain, old_key);
}

static const char *pair_is_whole(struct scene *scene)
{
    return judge_pair(scene, new_chain, new_key, old_chain, old_key);
}

static void bring_pair_before(struct scene *scene)
{
    put_pair(scene);
    if (bring_pair(scene) < 0)
        fprintf(stderr, "%s\n", scene->err.message);
}

static int put_back(struct scene *scene)
{
    const struct volume *volume = scene->own;

    return store_put_back(&volume->store, &scene->err);
}

static int go_back(struct scene *scene)
{
    const struct volume *volume = scene->own;

    return store_go_back(&volume->store, &scene->err);
}

static const char *back_is_whole(struct scene *scene)
{
    return judge_pair(scene, old_chain, old_key, new_chain, new_key);
}

static void cut_promotion_off(struct scene *scene)
{
    const struct volume *volume = scene->own;

    put_pair(scene);
    volume = scene->own;
    if (stage(scene, new_chain, new_key) < 0)
        fprintf(stderr, "%s\n", scene->err.message);
    scene_write(scene, "tls/.cert-manager/promotion", "");
    (void)volume;
}

static int finish(struct scene *scene)
{
    const struct volume *volume = scene->own;
    bool finished = false;

    return store_finish_promotion(&volume->store, &finished, &scene->err);
}

static const char *finished_is_whole(struct scene *scene)
{
    return judge_pair(scene, new_chain, new_key, old_chain, old_key);
}

/* What is staged was not measured yet. */
static void stage_alone(struct scene *scene)
{
    put_pair(scene);
    if (stage(scene, new_chain, new_key) < 0)
        fprintf(stderr, "%s\n", scene->err.message);
}

static const char *nothing_is_promoted(struct scene *scene)
{
    return judge_pair(scene, old_chain, old_key, old_chain, old_key);
}

static int set_aside(struct scene *scene)
{
    const struct volume *volume = scene->own;

    return store_set_aside(&volume->store, "the reason", NOW, &scene->err);
}

/* Nothing is ever deleted. */
static const char *nothing_is_lost(struct scene *scene)
{
    char path[SCENE_PATH_SIZE];
    const char *names[] = {"cert.pem", "key.pem"}, *contents[] = {old_chain, old_key};

    for (size_t i = 0; i < 2; i++) {
        bool is_live, is_aside;

        snprintf(path, sizeof path, "tls/%s", names[i]);
        is_live = strcmp(scene_content(scene, path), contents[i]) == 0;
        /* A folder that cannot be looked at is not taken: then it is a later one. */
        is_aside = false;
        for (int at = NOW; at < NOW + 3 && !is_aside; at++) {
            snprintf(path, sizeof path, "tls/.cert-manager/set-aside/%d/%s", at,
                     names[i]);
            is_aside = strcmp(scene_content(scene, path), contents[i]) == 0;
        }
        if (!is_live && !is_aside)
            return "a part of the pair is lost";
        if (!scene->failed && !is_aside)
            return "a part of the pair is not set aside";
    }
    return NULL;
}

static int write_state(struct scene *scene)
{
    const struct volume *volume = scene->own;

    return store_write_state(&volume->store, "intent.json", "{\"way\": \"new\"}",
                             &scene->err);
}

static void put_state(struct scene *scene)
{
    make_store(scene);
    scene_write(scene, "tls/.cert-manager/intent.json", "{}");
}

static const char *state_is_whole(struct scene *scene)
{
    const char *content = scene_content(scene, "tls/.cert-manager/intent.json");

    if (!scene->failed)
        return strcmp(content, "{\"way\": \"new\"}") == 0
                   ? NULL
                   : "the state is not the new one";
    return is_one_of(content, "{\"way\": \"new\"}", "{}")
               ? NULL
               : "the state is neither old nor new";
}

static int check_writable(struct scene *scene)
{
    const struct volume *volume = scene->own;

    return store_check_writable(&volume->store, &scene->err);
}

/* ---- the ledger ---- */

static const struct ledger_subject subject = {
    .directory = "https://ca.example/dir", .names = "app.example.test", .account = "v1"};

static void open_ledger(struct scene *scene)
{
    struct volume *volume = scene->own;
    int64_t at;

    make_store(scene);
    volume = scene->own;
    if (ledger_file_open(&volume->ledger, &volume->store, &volume->config, NOW,
                         &scene->err) < 0 ||
        ledger_file_begin(&volume->ledger, &subject, NOW - 5, &at, &scene->err) < 0)
        fprintf(stderr, "%s\n", scene->err.message);
}

static int begin_order(struct scene *scene)
{
    struct volume *volume = scene->own;
    int64_t at;

    return ledger_file_begin(&volume->ledger, &subject, NOW, &at, &scene->err);
}

/* What is ordered is on the volume, and what was there stays. */
static const char *ledger_is_whole(struct scene *scene)
{
    struct volume *volume = scene->own;
    size_t remembered = volume->ledger.ledger.count;
    struct err err = ERR_INIT;

    ledger_file_done(&volume->ledger);
    volume->ledger = (struct ledger_file){0};
    if (ledger_file_open(&volume->ledger, &volume->store, &volume->config, NOW, &err) <
            0 ||
        volume->ledger.ledger.unknown_before != 0) {
        fprintf(stderr, "%s\n", err.message);
        return "the ledger is damaged";
    }
    if (scene->failed && remembered != 1)
        return "an order that was not begun is remembered";
    if (!scene->failed && volume->ledger.ledger.count != 2)
        return "the order is not on the volume";
    return volume->ledger.ledger.count < 1 ? "an order is forgotten" : NULL;
}

static void put_ledger(struct scene *scene)
{
    struct volume *volume;

    open_ledger(scene);
    volume = scene->own;
    ledger_file_done(&volume->ledger);
    volume->ledger = (struct ledger_file){0};
}

static int read_ledger(struct scene *scene)
{
    struct volume *volume = scene->own;
    char text[64];

    if (ledger_file_open(&volume->ledger, &volume->store, &volume->config, NOW,
                         &scene->err) < 0)
        return -1;
    snprintf(text, sizeof text, "%zu entries, %d", volume->ledger.ledger.count,
             volume->ledger.ledger.unknown_before != 0);
    scene_add(scene, text);
    return 0;
}

static void damage_ledger(struct scene *scene)
{
    put_ledger(scene);
    scene_write(scene, "tls/.cert-manager/ledger.json", "{\"version\": 1, \"ent");
}

/* It is kept, and never taken for one without entries. */
static const char *damage_is_kept(struct scene *scene)
{
    const struct volume *volume = scene->own;

    if (strlen(scene_content(scene, "tls/.cert-manager/ledger.json.damaged")) == 0 &&
        strlen(scene_content(scene, "tls/.cert-manager/ledger.json")) == 0)
        return "the damaged ledger is lost";
    if (!scene->failed && volume->ledger.ledger.unknown_before == 0)
        return "a damaged ledger counts as an empty one";
    return NULL;
}

const struct scenario scenarios_of_files[] = {
    {"a file is replaced", put_old, replace, old_or_new, NULL, false},
    {"a file is read", put_old, read_back, NULL, NULL, false},
    {"a secret is read", put_old, read_secret, NULL, NULL, false},
    {"a tree is removed", put_tree, remove_tree, tree_is_gone, NULL, false},
    {"a folder is made", NULL, make_folder, folder_is_there, NULL, false},
    {"a link is replaced", put_link, replace_link, link_leads_somewhere, NULL, false},
    {"the volume is proven writable", make_store, check_writable, NULL, free_store,
     false},
    {"a renewed chain comes live", put_pair, bring_chain, chain_is_whole, free_store,
     false},
    {"a pair with another key comes live", put_pair, bring_pair, pair_is_whole,
     free_store, false},
    {"the former pair is put back", bring_pair_before, put_back, back_is_whole,
     free_store, false},
    {"the former pair comes back", bring_pair_before, go_back, back_is_whole, free_store,
     false},
    {"a promotion is finished", cut_promotion_off, finish, finished_is_whole, free_store,
     false},
    {"there is no promotion to finish", stage_alone, finish, nothing_is_promoted,
     free_store, false},
    {"a pair is set aside", put_pair, set_aside, nothing_is_lost, free_store, false},
    {"a state file is written", put_state, write_state, state_is_whole, free_store,
     false},
    {"an order is entered", open_ledger, begin_order, ledger_is_whole, free_store, false},
    {"the ledger is read", put_ledger, read_ledger, NULL, free_store, false},
    {"a damaged ledger is read", damage_ledger, read_ledger, damage_is_kept, free_store,
     false},
    {0},
};
