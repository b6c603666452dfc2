#include "adapters/store.h"

#include "domain/chain.h"
#include "domain/keys.h"
#include "support/pki.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* To the store a pair is two texts. */
#define OLD_CHAIN "the old chain\n"
#define OLD_KEY "the old key\n"
#define NEW_CHAIN "the new chain\n"
#define NEW_KEY "the new key\n"

struct fixture {
    char folder[64];
    char tls[96];
    char run[96];
    struct config config;
    struct store store;
};

static int group_setup(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    return secret_setup(&err);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err = ERR_INIT;

    assert_non_null(f);
    snprintf(f->folder, sizeof f->folder, "/tmp/test-store-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->tls, sizeof f->tls, "%s/tls", f->folder);
    snprintf(f->run, sizeof f->run, "%s/run", f->folder);
    assert_int_equal(mkdir(f->run, 0755), 0);
    f->config.tls.dir = f->tls;
    f->config.run_dir = f->run;
    assert_int_equal(store_init(&f->store, &f->config, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(fs_remove_tree(f->folder, &err), 0);
    free(f);
    return 0;
}

/* ---- files ---- */

static void write_file(const char *path, const char *text)
{
    struct err err = ERR_INIT;

    if (fs_replace(path, text, strlen(text), 0600, &err) < 0)
        fail_msg("%s", err.message);
}

static bool file_is(const char *path, const char *text)
{
    struct err err = ERR_INIT;
    BUF_SCOPED content = {0};

    return fs_read(path, 1024 * 1024, &content, &err) == 0 &&
           strcmp(buf_str(&content), text) == 0;
}

static void assert_file(const char *path, const char *text, mode_t mode)
{
    struct stat status;

    if (!file_is(path, text))
        fail_msg("%s is not \"%s\"", path, text);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, mode);
}

static void assert_missing(const char *path)
{
    if (fs_exists(path))
        fail_msg("%s is there", path);
}

static mode_t mode_of(const char *path)
{
    struct stat status;

    assert_int_equal(lstat(path, &status), 0);
    return status.st_mode & 07777;
}

static ino_t inode_of(const char *path)
{
    struct stat status;

    assert_int_equal(lstat(path, &status), 0);
    return status.st_ino;
}

/* ---- steps ---- */

static void assert_ok(int result, const struct err *err)
{
    if (result != 0)
        fail_msg("%s", err->message);
    assert_int_equal(err->kind, ERR_NONE);
}

static int stage(const struct fixture *f, const char *chain, const char *key,
                 struct err *err)
{
    SECRET_SCOPED secret = key == NULL ? NULL : secret_copy(key, strlen(key));
    BUF_SCOPED pem;

    buf_init(&pem, CHAIN_PEM_MAX_BYTES);
    return buf_append_str(&pem, chain, err) < 0 ||
                   store_stage(&f->store, &pem, secret, err) < 0
               ? -1
               : 0;
}

static void must_stage(const struct fixture *f, const char *chain, const char *key)
{
    struct err err = ERR_INIT;

    assert_ok(stage(f, chain, key, &err), &err);
}

static void must_promote(const struct fixture *f)
{
    struct err err = ERR_INIT;

    assert_ok(store_promote(&f->store, &err), &err);
}

static void must_finish(const struct fixture *f, bool expected)
{
    struct err err = ERR_INIT;
    bool finished = !expected;

    assert_ok(store_finish_promotion(&f->store, &finished, &err), &err);
    assert_int_equal(finished, expected);
}

static bool live_is(const struct fixture *f, const char *chain, const char *key)
{
    return file_is(f->store.chain, chain) && file_is(f->store.key, key);
}

static void assert_live(const struct fixture *f, const char *chain, const char *key)
{
    assert_file(f->store.chain, chain, 0644);
    assert_file(f->store.key, key, 0600);
}

static void assert_nothing_staged(const struct fixture *f)
{
    assert_missing(f->store.staged_chain);
    assert_missing(f->store.staged_key);
    assert_missing(f->store.intent);
}

/* The old pair is live. */
static void make_old_pair(const struct fixture *f)
{
    must_stage(f, OLD_CHAIN, OLD_KEY);
    must_promote(f);
    assert_live(f, OLD_CHAIN, OLD_KEY);
    assert_nothing_staged(f);
}

/* ---- paths ---- */

static void paths_are_below_the_two_folders(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    f->config.tls.dir = (char[]){"/t"};
    f->config.run_dir = (char[]){"/r"};
    assert_ok(store_init(&f->store, &f->config, &err), &err);
    assert_string_equal(f->store.chain, "/t/cert.pem");
    assert_string_equal(f->store.key, "/t/key.pem");
    assert_string_equal(f->store.state, "/t/.cert-manager");
    assert_true(strncmp(f->store.staged_key, "/t/.cert-manager/", 17) == 0);
    assert_string_equal(f->store.lock, "/r/promotion.lock");
}

static void a_path_can_be_too_long(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    char path[FS_PATH_MAX + 1];

    memset(path, 'x', sizeof path - 1);
    path[0] = '/';
    path[sizeof path - 1] = '\0';
    f->config.tls.dir = path;
    assert_int_equal(store_init(&f->store, &f->config, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
    path[FS_PATH_MAX - 10] = '\0';
    assert_int_equal(store_init(&f->store, &f->config, &err), -1);
    assert_int_equal(err.kind, ERR_CONFIG);
}

/* ---- reading ---- */

static void missing_files_are_no_error(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct secret *key = secret_new(1);
    BUF_SCOPED chain = {0};
    BUF_SCOPED text = {0};

    secret_free(key);
    assert_ok(store_load_chain(&f->store, &chain, &err), &err);
    assert_int_equal(chain.len, 0);
    assert_ok(store_load_key(&f->store, &key, &err), &err);
    assert_null(key);
    assert_ok(store_read_state(&f->store, "x.json", &text, &err), &err);
    assert_int_equal(text.len, 0);
    must_finish(f, false);
}

static void a_pair_is_read(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    SECRET_SCOPED key = NULL;
    BUF_SCOPED chain = {0};

    make_old_pair(f);
    assert_ok(store_load_chain(&f->store, &chain, &err), &err);
    assert_string_equal(buf_str(&chain), OLD_CHAIN);
    assert_ok(store_load_key(&f->store, &key, &err), &err);
    assert_string_equal((const char *)key->bytes, OLD_KEY);
}

static void what_is_no_file_is_an_error(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    SECRET_SCOPED key = NULL;
    BUF_SCOPED chain = {0};

    assert_int_equal(mkdir(f->tls, 0755), 0);
    assert_int_equal(mkdir(f->store.chain, 0755), 0);
    assert_int_equal(mkfifo(f->store.key, 0600), 0);
    assert_int_equal(store_load_chain(&f->store, &chain, &err), -1);
    assert_non_null(strstr(err.message, f->store.chain));
    assert_int_equal(store_load_key(&f->store, &key, &err), -1);
    assert_non_null(strstr(err.message, f->store.key));
    assert_null(key);
}

static void files_have_a_largest_size(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    SECRET_SCOPED key = NULL;
    BUF_SCOPED chain = {0};

    make_old_pair(f);
    assert_int_equal(truncate(f->store.chain, CHAIN_PEM_MAX_BYTES + 1), 0);
    assert_int_equal(truncate(f->store.key, KEYS_PEM_MAX_BYTES + 1), 0);
    assert_int_equal(store_load_chain(&f->store, &chain, &err), -1);
    assert_int_equal(store_load_key(&f->store, &key, &err), -1);
    assert_int_equal(truncate(f->store.chain, CHAIN_PEM_MAX_BYTES), 0);
    assert_int_equal(truncate(f->store.key, KEYS_PEM_MAX_BYTES), 0);
    err = (struct err)ERR_INIT;
    assert_ok(store_load_chain(&f->store, &chain, &err), &err);
    assert_ok(store_load_key(&f->store, &key, &err), &err);
}

/* ---- stage and promote ---- */

static void the_first_pair_is_promoted(void **state)
{
    const struct fixture *f = *state;

    must_stage(f, NEW_CHAIN, NEW_KEY);
    assert_missing(f->store.chain);
    assert_missing(f->store.key);
    assert_file(f->store.staged_chain, NEW_CHAIN, 0644);
    assert_file(f->store.staged_key, NEW_KEY, 0600);
    must_promote(f);
    assert_live(f, NEW_CHAIN, NEW_KEY);
    assert_nothing_staged(f);
    assert_int_equal(mode_of(f->tls), 0755);
    assert_int_equal(mode_of(f->store.state), 0700);
}

static void a_renewal_leaves_the_key_alone(void **state)
{
    const struct fixture *f = *state;
    ino_t key;

    make_old_pair(f);
    key = inode_of(f->store.key);
    must_stage(f, NEW_CHAIN, NULL);
    assert_live(f, OLD_CHAIN, OLD_KEY);
    must_promote(f);
    assert_live(f, NEW_CHAIN, OLD_KEY);
    assert_int_equal(inode_of(f->store.key), key);
    assert_nothing_staged(f);
}

static void assert_key_is_ours(const struct fixture *f, const char *content)
{
    struct stat status;

    assert_file(f->store.key, content, 0600);
    assert_int_equal(lstat(f->store.key, &status), 0);
    assert_int_equal(status.st_uid, geteuid());
    assert_int_equal(status.st_nlink, 1);
}

/* In the place of key.pem. Caller: free. */
static char *put_real_key(const struct fixture *f, mode_t mode)
{
    EVP_PKEY *key = pki_key();
    char *pem = pki_key_pem(key);
    struct err err = ERR_INIT;

    EVP_PKEY_free(key);
    make_old_pair(f);
    assert_ok(fs_replace(f->store.key, pem, strlen(pem), mode, &err), &err);
    return pem;
}

static void a_key_that_others_can_read_becomes_ours(void **state)
{
    static const mode_t modes[] = {0644, 0640, 0666, 0777};
    const struct fixture *f = *state;
    char *pem = put_real_key(f, 0600);

    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        assert_int_equal(chmod(f->store.key, modes[i]), 0);
        store_guard_key(&f->store, false);
        assert_key_is_ours(f, pem);
    }
    if (geteuid() == 0) {
        assert_int_equal(chown(f->store.key, 4711, 4712), 0);
        store_guard_key(&f->store, false);
        assert_key_is_ours(f, pem);
    }
    free(pem);
}

static void a_second_name_of_the_key_is_left_alone(void **state)
{
    const struct fixture *f = *state;
    char *pem = put_real_key(f, 0644);
    char other[FS_PATH_MAX];
    struct err err = ERR_INIT;

    assert_int_equal(fs_join(other, f->tls, "other", &err), 0);
    assert_int_equal(link(f->store.key, other), 0);
    store_guard_key(&f->store, false);
    assert_key_is_ours(f, pem);
    assert_file(other, pem, 0644);
    free(pem);
}

static void assert_key_stays(const struct fixture *f, const char *content, mode_t mode,
                             bool is_external)
{
    ino_t key = inode_of(f->store.key);

    store_guard_key(&f->store, is_external);
    assert_file(f->store.key, content, mode);
    assert_int_equal(inode_of(f->store.key), key);
}

static void a_key_of_somebody_else_and_what_is_none_stay(void **state)
{
    const struct fixture *f = *state;
    char *pem = put_real_key(f, 0640);
    struct err err = ERR_INIT;

    assert_key_stays(f, pem, 0640, true);
    free(pem);
    assert_ok(fs_replace(f->store.key, "no key", strlen("no key"), 0644, &err), &err);
    assert_key_stays(f, "no key", 0644, false);
}

static void both_files_change_with_the_key(void **state)
{
    const struct fixture *f = *state;

    make_old_pair(f);
    must_stage(f, NEW_CHAIN, NEW_KEY);
    assert_live(f, OLD_CHAIN, OLD_KEY);
    must_promote(f);
    assert_live(f, NEW_CHAIN, NEW_KEY);
    assert_nothing_staged(f);
}

/* Whoever reads the old file while it is replaced reads it to its end. */
static void a_file_that_is_open_stays_whole(void **state)
{
    const struct fixture *f = *state;
    FILE *chain;
    char text[64];

    make_old_pair(f);
    chain = fopen(f->store.chain, "re");
    must_stage(f, NEW_CHAIN, NULL);
    must_promote(f);
    assert_non_null(fgets(text, sizeof text, chain));
    assert_string_equal(text, OLD_CHAIN);
    fclose(chain);
}

static void modes_do_not_depend_on_the_umask(void **state)
{
    const struct fixture *f = *state;
    mode_t before = umask(0);

    make_old_pair(f);
    umask(0777);
    must_stage(f, NEW_CHAIN, NEW_KEY);
    must_promote(f);
    assert_live(f, NEW_CHAIN, NEW_KEY);
    umask(before);
    assert_int_equal(mode_of(f->store.state), 0700);
    assert_int_equal(mode_of(f->store.lock), 0600);
}

static void assert_staged_key(const struct fixture *f, const char *expected)
{
    SECRET_SCOPED key = NULL;
    struct err err = ERR_INIT;

    assert_ok(store_load_staged_key(&f->store, &key, &err), &err);
    if (expected == NULL)
        assert_null(key);
    else
        assert_string_equal((const char *)key->bytes, expected);
}

/* That of the live pair when a chain was staged alone. */
static void a_staged_key_is_read(void **state)
{
    const struct fixture *f = *state;

    assert_staged_key(f, NULL);
    make_old_pair(f);
    must_stage(f, NEW_CHAIN, NULL);
    assert_staged_key(f, OLD_KEY);
    must_stage(f, NEW_CHAIN, NEW_KEY);
    assert_staged_key(f, NEW_KEY);
}

static void a_staged_chain_is_read(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    BUF_SCOPED chain = {0};

    assert_ok(store_load_staged_chain(&f->store, &chain, &err), &err);
    assert_int_equal(chain.len, 0);
    must_stage(f, NEW_CHAIN, NEW_KEY);
    assert_ok(store_load_staged_chain(&f->store, &chain, &err), &err);
    assert_string_equal(buf_str(&chain), NEW_CHAIN);
    buf_done(&chain);
    must_promote(f);
    assert_ok(store_load_staged_chain(&f->store, &chain, &err), &err);
    assert_int_equal(chain.len, 0);
    assert_int_equal(mkdir(f->store.staged_chain, 0700), 0);
    assert_int_equal(store_load_staged_chain(&f->store, &chain, &err), -1);
}

static void an_abandoned_key_is_never_promoted(void **state)
{
    const struct fixture *f = *state;

    make_old_pair(f);
    must_stage(f, "a chain that nginx refuses\n", NEW_KEY);
    must_stage(f, NEW_CHAIN, NULL);
    assert_missing(f->store.staged_key);
    must_promote(f);
    assert_live(f, NEW_CHAIN, OLD_KEY);
}

/* ---- the way back ---- */

static int keep_previous(const struct fixture *f, const char *chain, const char *key,
                         struct err *err)
{
    SECRET_SCOPED secret = key == NULL ? NULL : secret_copy(key, strlen(key));
    BUF_SCOPED pem = {.max = CHAIN_PEM_MAX_BYTES};

    return buf_append_str(&pem, chain, err) < 0
               ? -1
               : store_keep_previous(&f->store, &pem, secret, err);
}

static void what_was_kept_is_put_back_and_what_is_staged_stays(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;

    must_stage(f, NEW_CHAIN, NEW_KEY);
    must_promote(f);
    must_stage(f, "a chain that waits\n", NULL);
    assert_ok(keep_previous(f, OLD_CHAIN, OLD_KEY, &err), &err);
    assert_ok(store_put_back(&f->store, &err), &err);
    assert_live(f, OLD_CHAIN, OLD_KEY);
    assert_file(f->store.staged_chain, "a chain that waits\n", 0644);
    assert_missing(f->store.previous_chain);
    assert_missing(f->store.previous_key);
}

static void what_is_kept_already_is_not_written_again(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    ino_t chain;
    ino_t key;

    assert_ok(keep_previous(f, OLD_CHAIN, OLD_KEY, &err), &err);
    chain = inode_of(f->store.previous_chain);
    key = inode_of(f->store.previous_key);
    assert_ok(keep_previous(f, OLD_CHAIN, OLD_KEY, &err), &err);
    assert_int_equal(inode_of(f->store.previous_chain), chain);
    assert_int_equal(inode_of(f->store.previous_key), key);
    assert_ok(keep_previous(f, OLD_CHAIN, NEW_KEY, &err), &err);
    assert_file(f->store.previous_key, NEW_KEY, 0600);
    assert_ok(keep_previous(f, OLD_CHAIN, NULL, &err), &err);
    assert_missing(f->store.previous_key);
    assert_ok(keep_previous(f, NEW_CHAIN, NULL, &err), &err);
    assert_file(f->store.previous_chain, NEW_CHAIN, 0644);
}

/* It was measured: to go on with another chain would be wrong. */
static void a_staged_chain_that_is_gone_is_an_error(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;

    make_old_pair(f);
    assert_int_equal(store_promote(&f->store, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(err.code, ENOENT);
    assert_non_null(strstr(err.message, f->store.staged_chain));
    must_stage(f, NEW_CHAIN, NEW_KEY);
    assert_int_equal(unlink(f->store.staged_chain), 0);
    assert_int_equal(store_promote(&f->store, &err), -1);
    assert_live(f, OLD_CHAIN, OLD_KEY);
    assert_missing(f->store.intent);
}

static void without_its_lock_nothing_is_promoted(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    bool finished = true;

    make_old_pair(f);
    must_stage(f, NEW_CHAIN, NEW_KEY);
    assert_int_equal(unlink(f->store.lock), 0);
    assert_int_equal(symlink("/dev/null", f->store.lock), 0);
    assert_int_equal(store_promote(&f->store, &err), -1);
    assert_int_equal(store_finish_promotion(&f->store, &finished, &err), -1);
    assert_false(finished);
    assert_int_equal(store_set_aside(&f->store, "why", 1, &err), -1);
    assert_live(f, OLD_CHAIN, OLD_KEY);
}

static void a_folder_that_cannot_be_looked_at_does_not_keep_us(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    char path[FS_PATH_MAX + 16];

    make_old_pair(f);
    assert_int_equal(store_check_writable(&f->store, &err), 0);
    snprintf(path, sizeof path, "%s/set-aside", f->store.state);
    assert_int_equal(symlink("set-aside", path), 0);
    assert_int_equal(store_set_aside(&f->store, "why", 1, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_non_null(strstr(err.message, "set-aside"));
    assert_live(f, OLD_CHAIN, OLD_KEY);
}

/* That it is not there would mean that nothing is staged, or that no order was made. */
static void state_that_cannot_be_looked_at_is_not_missing(void **state)
{
    struct fixture *f = *state;
    BUF_SCOPED text = {0};
    SECRET_SCOPED key = NULL;
    bool finished = true;
    char *before = f->config.tls.dir;
    char loop[128];

    snprintf(loop, sizeof loop, "%s/loop", f->folder);
    assert_int_equal(symlink("loop", loop), 0);
    f->config.tls.dir = loop;
    for (int i = 0; i < 4; i++) {
        struct err err = ERR_INIT;
        int result;

        assert_int_equal(store_init(&f->store, &f->config, &err), 0);
        result = i == 0   ? store_read_state(&f->store, "name", &text, &err)
                 : i == 1 ? store_load_staged_chain(&f->store, &text, &err)
                 : i == 2 ? store_load_staged_key(&f->store, &key, &err)
                          : store_finish_promotion(&f->store, &finished, &err);
        assert_int_equal(result, -1);
        assert_int_equal(err.kind, ERR_SYS);
        assert_int_equal(err.code, ELOOP);
    }
    assert_false(finished);
    f->config.tls.dir = before;
}

/* ---- a promotion that was cut off, made by hand ---- */

static void without_an_intent_nothing_is_finished(void **state)
{
    const struct fixture *f = *state;

    make_old_pair(f);
    must_stage(f, NEW_CHAIN, NEW_KEY);
    must_finish(f, false);
    assert_live(f, OLD_CHAIN, OLD_KEY);
    assert_file(f->store.staged_chain, NEW_CHAIN, 0644);
    assert_file(f->store.staged_key, NEW_KEY, 0600);
}

static void a_promotion_is_finished_from_every_state(void **state)
{
    const struct fixture *f = *state;

    for (int renamed = 0; renamed <= 2; renamed++) {
        make_old_pair(f);
        must_stage(f, NEW_CHAIN, NEW_KEY);
        write_file(f->store.intent, "");
        if (renamed >= 1)
            assert_int_equal(rename(f->store.staged_key, f->store.key), 0);
        if (renamed >= 2)
            assert_int_equal(rename(f->store.staged_chain, f->store.chain), 0);
        must_finish(f, true);
        assert_live(f, NEW_CHAIN, NEW_KEY);
        assert_nothing_staged(f);
        must_finish(f, false);
        assert_live(f, NEW_CHAIN, NEW_KEY);
    }
}

static void an_intent_without_anything_staged_is_forgotten(void **state)
{
    const struct fixture *f = *state;

    make_old_pair(f);
    write_file(f->store.intent, "");
    must_finish(f, true);
    assert_live(f, OLD_CHAIN, OLD_KEY);
    assert_nothing_staged(f);
}

/* Else whoever finds the intent would promote a pair that was only staged. */
static void a_cut_off_promotion_is_finished_before_the_next_is_staged(void **state)
{
    const struct fixture *f = *state;

    make_old_pair(f);
    must_stage(f, NEW_CHAIN, NEW_KEY);
    write_file(f->store.intent, "");
    must_stage(f, "the next chain\n", NULL);
    assert_live(f, NEW_CHAIN, NEW_KEY);
    assert_missing(f->store.intent);
    must_finish(f, false);
    assert_live(f, NEW_CHAIN, NEW_KEY);
    must_promote(f);
    assert_live(f, "the next chain\n", NEW_KEY);
}

/* ---- a process that is killed at any system call ---- */

typedef int (*work_fn)(const struct fixture *f, struct err *err);

static int promote(const struct fixture *f, struct err *err)
{
    return store_promote(&f->store, err);
}

static int finish(const struct fixture *f, struct err *err)
{
    bool finished;

    return store_finish_promotion(&f->store, &finished, err);
}

static int stage_new(const struct fixture *f, struct err *err)
{
    return stage(f, NEW_CHAIN, NEW_KEY, err);
}

static int set_aside(const struct fixture *f, struct err *err)
{
    return store_set_aside(&f->store, "why", 1795459747, err);
}

static pid_t fork_traced(const struct fixture *f, work_fn work)
{
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        struct err err = ERR_INIT;

        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(77);
        raise(SIGSTOP);
        _exit(work(f, &err) == 0 ? 0 : 1);
    }
    return child;
}

/* Runs `work` in a child that is killed after `calls` system calls. True when it was
 * through before. */
static bool killed_after(const struct fixture *f, work_fn work, int calls)
{
    pid_t child = fork_traced(f, work);
    int status;

    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); /* no tracing here */
    assert_true(WIFSTOPPED(status));
    assert_int_equal(
        ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD),
        0);
    status = 0;
    for (int stops = 0; stops < 2 * calls;) { /* at its begin and its end */
        long number = WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
        bool at_call = number == (SIGTRAP | 0x80);

        stops += at_call;
        /* Any other stop is a signal, which the child gets. */
        assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, at_call ? 0 : number), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            return true;
        }
    }
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return false;
}

static void a_promotion_may_be_killed_at_any_time(void **state)
{
    const struct fixture *f = *state;
    bool through = false;
    int mixed = 0;
    int calls;

    for (calls = 0; !through; calls++) {
        bool old;

        make_old_pair(f);
        must_stage(f, NEW_CHAIN, NEW_KEY);
        through = killed_after(f, promote, calls);
        old = live_is(f, OLD_CHAIN, OLD_KEY);
        if (!old && !live_is(f, NEW_CHAIN, NEW_KEY)) {
            assert_true(fs_exists(f->store.intent));
            mixed++;
        }
        must_finish(f, fs_exists(f->store.intent));
        if (old && !live_is(f, NEW_CHAIN, NEW_KEY)) {
            assert_live(f, OLD_CHAIN, OLD_KEY);
            assert_file(f->store.staged_key, NEW_KEY, 0600);
        } else {
            assert_live(f, NEW_CHAIN, NEW_KEY);
            assert_nothing_staged(f);
        }
        must_finish(f, false);
    }
    assert_true(calls > 20);
    assert_true(mixed > 0); /* or the test has missed what it is about */
}

static void its_finish_may_be_killed_at_any_time(void **state)
{
    const struct fixture *f = *state;
    bool through = false;
    int mixed = 0;

    for (int calls = 0; !through; calls++) {
        make_old_pair(f);
        must_stage(f, NEW_CHAIN, NEW_KEY);
        write_file(f->store.intent, "");
        through = killed_after(f, finish, calls);
        mixed += live_is(f, OLD_CHAIN, NEW_KEY);
        must_finish(f, fs_exists(f->store.intent));
        assert_live(f, NEW_CHAIN, NEW_KEY);
        assert_nothing_staged(f);
    }
    assert_true(mixed > 0);
}

static void a_renewal_may_be_killed_at_any_time(void **state)
{
    const struct fixture *f = *state;
    bool through = false;

    for (int calls = 0; !through; calls++) {
        make_old_pair(f);
        must_stage(f, NEW_CHAIN, NULL);
        through = killed_after(f, promote, calls);
        assert_missing(f->store.intent);
        assert_true(live_is(f, OLD_CHAIN, OLD_KEY) || live_is(f, NEW_CHAIN, OLD_KEY));
    }
    assert_live(f, NEW_CHAIN, OLD_KEY);
}

static void staging_may_be_killed_at_any_time(void **state)
{
    const struct fixture *f = *state;
    bool through = false;

    make_old_pair(f);
    for (int calls = 0; !through; calls++) {
        through = killed_after(f, stage_new, calls);
        assert_live(f, OLD_CHAIN, OLD_KEY);
        must_finish(f, false);
    }
    must_promote(f);
    assert_live(f, NEW_CHAIN, NEW_KEY);
}

static void setting_aside_may_be_killed_at_any_time(void **state)
{
    const struct fixture *f = *state;
    bool through = false;
    char chain[FS_PATH_MAX + 64];
    char key[FS_PATH_MAX + 64];

    snprintf(chain, sizeof chain, "%s/set-aside/1795459747/cert.pem", f->store.state);
    snprintf(key, sizeof key, "%s/set-aside/1795459747/key.pem", f->store.state);
    for (int calls = 0; !through; calls++) {
        make_old_pair(f);
        unlink(chain);
        unlink(key);
        through = killed_after(f, set_aside, calls);
        assert_true(file_is(f->store.chain, OLD_CHAIN) != file_is(chain, OLD_CHAIN));
        assert_true(file_is(f->store.key, OLD_KEY) != file_is(key, OLD_KEY));
    }
    assert_file(chain, OLD_CHAIN, 0644);
    assert_file(key, OLD_KEY, 0600);
}

/* ---- two processes ---- */

/* Whether a process waits for a lock of a file, as the kernel tells it. */
static bool waits_for_lock(pid_t pid)
{
    char pattern[32];
    char line[256];
    bool waits = false;
    FILE *locks = fopen("/proc/locks", "re");

    assert_non_null(locks);
    snprintf(pattern, sizeof pattern, " %d ", (int)pid);
    while (!waits && fgets(line, sizeof line, locks) != NULL)
        waits = strstr(line, "-> FLOCK") != NULL && strstr(line, pattern) != NULL;
    fclose(locks);
    return waits;
}

static void a_promotion_waits_for_the_lock(void **state)
{
    static const work_fn works[] = {promote, finish, set_aside};
    const struct fixture *f = *state;
    struct err err = ERR_INIT;

    for (size_t i = 0; i < sizeof works / sizeof works[0]; i++) {
        pid_t child;
        int status;
        int lock;

        make_old_pair(f);
        must_stage(f, NEW_CHAIN, NEW_KEY);
        write_file(f->store.intent, "");
        assert_ok(fs_lock(f->store.lock, &lock, &err), &err);
        child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            close(lock); /* the open file is shared: it would hold its own lock */
            _exit(works[i](f, &err) == 0 ? 0 : 1);
        }
        while (!waits_for_lock(child) && waitpid(child, &status, WNOHANG) == 0)
            sched_yield();
        assert_int_equal(kill(child, 0), 0);
        assert_live(f, OLD_CHAIN, OLD_KEY);
        close(lock);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_false(live_is(f, OLD_CHAIN, OLD_KEY));
        assert_int_equal(unlink(f->store.intent) == 0, works[i] == set_aside);
    }
}

/* ---- set aside ---- */

/* Path of a file of the pair that was set aside at that time. */
static const char *aside(const struct fixture *f, int64_t when, const char *name)
{
    static char path[FS_PATH_MAX + 64];

    snprintf(path, sizeof path, "%s/set-aside/%lld/%s", f->store.state, (long long)when,
             name);
    return path;
}

static void a_pair_is_set_aside_and_kept(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;

    make_old_pair(f);
    assert_ok(store_set_aside(&f->store, "the certificate is self-signed", 100, &err),
              &err);
    assert_missing(f->store.chain);
    assert_missing(f->store.key);
    assert_file(aside(f, 100, "cert.pem"), OLD_CHAIN, 0644);
    assert_file(aside(f, 100, "key.pem"), OLD_KEY, 0600);
    assert_file(aside(f, 100, "reason"), "the certificate is self-signed", 0600);
    assert_int_equal(mode_of(aside(f, 100, ".")), 0700);
    make_old_pair(f);
    assert_ok(store_set_aside(&f->store, "again", 200, &err), &err);
    assert_file(aside(f, 100, "cert.pem"), OLD_CHAIN, 0644);
    assert_file(aside(f, 200, "cert.pem"), OLD_CHAIN, 0644);
}

static void half_a_pair_is_set_aside(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;

    make_old_pair(f);
    assert_int_equal(unlink(f->store.key), 0);
    assert_ok(store_set_aside(&f->store, "no key", 1, &err), &err);
    assert_file(aside(f, 1, "cert.pem"), OLD_CHAIN, 0644);
    assert_missing(aside(f, 1, "key.pem"));
    write_file(f->store.key, OLD_KEY);
    assert_ok(store_set_aside(&f->store, "no chain", 2, &err), &err);
    assert_missing(aside(f, 2, "cert.pem"));
    assert_file(aside(f, 2, "key.pem"), OLD_KEY, 0600);
    assert_ok(store_set_aside(&f->store, "nothing", 3, &err), &err);
    assert_file(aside(f, 3, "reason"), "nothing", 0600);
}

/* The links move, what they lead to stays. */
static void links_are_set_aside_as_links(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    char outside[128];

    snprintf(outside, sizeof outside, "%s/outside.pem", f->folder);
    write_file(outside, OLD_CHAIN);
    assert_int_equal(mkdir(f->tls, 0755), 0);
    assert_int_equal(symlink(outside, f->store.chain), 0);
    assert_int_equal(symlink("nowhere", f->store.key), 0);
    assert_ok(store_set_aside(&f->store, "links", 1, &err), &err);
    assert_missing(f->store.chain);
    assert_missing(f->store.key);
    assert_true(file_is(outside, OLD_CHAIN));
    assert_true(file_is(aside(f, 1, "cert.pem"), OLD_CHAIN));
    assert_true(fs_exists(aside(f, 1, "key.pem")));
}

/* ---- state ---- */

static void a_state_is_written_and_read(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};

    assert_ok(store_write_state(&f->store, "a.json", "{}", &err), &err);
    assert_ok(store_write_state(&f->store, "a.json", "{\"b\":1}", &err), &err);
    assert_ok(store_read_state(&f->store, "a.json", &text, &err), &err);
    assert_string_equal(buf_str(&text), "{\"b\":1}");
    assert_int_equal(mode_of(f->store.state), 0700);
    buf_done(&text);
    assert_ok(store_read_state(&f->store, "b.json", &text, &err), &err);
    assert_string_equal(buf_str(&text), "");
}

static void a_state_has_a_largest_size(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};
    char path[FS_PATH_MAX];

    assert_ok(store_write_state(&f->store, "a.json", "{}", &err), &err);
    assert_ok(fs_join(path, f->store.state, "a.json", &err), &err);
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(truncate(path, 64 * 1024 + 1), 0);
    assert_int_equal(store_read_state(&f->store, "a.json", &text, &err), -1);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(truncate(path, 64 * 1024), 0);
    err = (struct err)ERR_INIT;
    assert_ok(store_read_state(&f->store, "a.json", &text, &err), &err);
    assert_int_equal(text.len, 64 * 1024);
}

static void the_state_folder_is_closed_to_others(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(mkdir(f->tls, 0750), 0);
    assert_int_equal(mkdir(f->store.state, 0777), 0);
    assert_ok(store_write_state(&f->store, "a.json", "{}", &err), &err);
    assert_int_equal(mode_of(f->store.state), 0700);
    assert_int_equal(mode_of(f->tls), 0750);
}

/* ---- can it be written ---- */

static void a_new_folder_is_made_and_left_clean(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_ok(store_check_writable(&f->store, &err), &err);
    assert_int_equal(mode_of(f->tls), 0755);
    assert_int_equal(mode_of(f->store.state), 0700);
    assert_int_equal(rmdir(f->store.state), 0); /* empty */
    assert_int_equal(rmdir(f->tls), 0);
}

static void a_folder_may_be_no_folder(void **state)
{
    const struct fixture *f = *state;
    struct err err = ERR_INIT;

    write_file(f->tls, "");
    assert_int_equal(store_check_writable(&f->store, &err), -1);
    assert_true(strncmp(err.message, "the TLS folder cannot be written: ", 34) == 0);
    assert_non_null(strstr(err.message, f->tls));
}

enum { CHILD_GOOD = 0, CHILD_CANNOT = 77 };

/* Asserts that the child exits well; skips where it cannot do its work. */
static void in_child(const struct fixture *f, int (*work)(const struct fixture *f))
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0)
        _exit(work(f));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CHILD_CANNOT)
        skip();
    assert_int_equal(WEXITSTATUS(status), CHILD_GOOD);
}

/* In the child: whether the check fails with this errno, in the named words. */
static int expect_unwritable(const struct fixture *f, int code)
{
    struct err err = ERR_INIT;

    if (store_check_writable(&f->store, &err) == 0 || err.kind != ERR_SYS ||
        err.code != code ||
        strncmp(err.message, "the TLS folder cannot be written: ", 34) != 0) {
        fprintf(stderr, "code %d: %s\n", err.code, err.message);
        return 1;
    }
    return CHILD_GOOD;
}

/* A file system of its own at `path`, seen by this process only. */
static bool mount_here(const char *path, unsigned long flags, const char *options)
{
    return unshare(CLONE_NEWNS) == 0 &&
           mount("none", "/", "none", MS_REC | MS_PRIVATE, "") == 0 &&
           mount("tmpfs", path, "tmpfs", flags, options) == 0;
}

static int check_with_small_files(const struct fixture *f)
{
    const struct rlimit limit = {.rlim_cur = 100 * 1024, .rlim_max = 100 * 1024};
    struct err err = ERR_INIT;
    char chain[CHAIN_PEM_MAX_BYTES];

    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
        return CHILD_CANNOT;
    if (expect_unwritable(f, EFBIG) != CHILD_GOOD)
        return 1;
    memset(chain, 'x', sizeof chain - 1);
    chain[sizeof chain - 1] = '\0';
    if (stage(f, chain, NULL, &err) == 0 || err.code != EFBIG)
        return 2;
    return file_is(f->store.staged_chain, NEW_CHAIN) ? CHILD_GOOD : 3;
}

static void a_limit_of_file_sizes_is_noticed(void **state)
{
    const struct fixture *f = *state;

    make_old_pair(f);
    must_stage(f, NEW_CHAIN, NULL);
    in_child(f, check_with_small_files);
    assert_live(f, OLD_CHAIN, OLD_KEY);
}

static int check_full(const struct fixture *f)
{
    if (!mount_here(f->tls, 0, "size=128k"))
        return CHILD_CANNOT;
    return expect_unwritable(f, ENOSPC);
}

static void a_full_place_is_noticed(void **state)
{
    const struct fixture *f = *state;

    assert_int_equal(mkdir(f->tls, 0755), 0);
    in_child(f, check_full);
}

static int check_read_only(const struct fixture *f)
{
    if (geteuid() != 0) {
        chmod(f->tls, 0555);
        return expect_unwritable(f, EACCES);
    }
    if (!mount_here(f->tls, MS_RDONLY, ""))
        return CHILD_CANNOT;
    return expect_unwritable(f, EROFS);
}

static void a_read_only_place_is_noticed(void **state)
{
    const struct fixture *f = *state;

    assert_int_equal(mkdir(f->tls, 0755), 0);
    in_child(f, check_read_only);
}

/* Nothing can be renamed from one file system to another. */
static int check_two_file_systems(const struct fixture *f)
{
    if (!mount_here(f->store.state, 0, ""))
        return CHILD_CANNOT;
    return expect_unwritable(f, EXDEV);
}

static void a_state_folder_on_another_file_system_is_noticed(void **state)
{
    const struct fixture *f = *state;

    make_old_pair(f);
    in_child(f, check_two_file_systems);
}

#define store_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        store_test(paths_are_below_the_two_folders),
        store_test(a_path_can_be_too_long),
        store_test(missing_files_are_no_error),
        store_test(a_pair_is_read),
        store_test(what_is_no_file_is_an_error),
        store_test(files_have_a_largest_size),
        store_test(the_first_pair_is_promoted),
        store_test(a_renewal_leaves_the_key_alone),
        store_test(a_key_that_others_can_read_becomes_ours),
        store_test(a_second_name_of_the_key_is_left_alone),
        store_test(a_key_of_somebody_else_and_what_is_none_stay),
        store_test(both_files_change_with_the_key),
        store_test(a_file_that_is_open_stays_whole),
        store_test(modes_do_not_depend_on_the_umask),
        store_test(a_staged_chain_is_read),
        store_test(a_staged_key_is_read),
        store_test(an_abandoned_key_is_never_promoted),
        store_test(what_was_kept_is_put_back_and_what_is_staged_stays),
        store_test(what_is_kept_already_is_not_written_again),
        store_test(a_staged_chain_that_is_gone_is_an_error),
        store_test(without_its_lock_nothing_is_promoted),
        store_test(a_folder_that_cannot_be_looked_at_does_not_keep_us),
        store_test(state_that_cannot_be_looked_at_is_not_missing),
        store_test(without_an_intent_nothing_is_finished),
        store_test(a_promotion_is_finished_from_every_state),
        store_test(an_intent_without_anything_staged_is_forgotten),
        store_test(a_cut_off_promotion_is_finished_before_the_next_is_staged),
        store_test(a_promotion_may_be_killed_at_any_time),
        store_test(its_finish_may_be_killed_at_any_time),
        store_test(a_renewal_may_be_killed_at_any_time),
        store_test(staging_may_be_killed_at_any_time),
        store_test(setting_aside_may_be_killed_at_any_time),
        store_test(a_promotion_waits_for_the_lock),
        store_test(a_pair_is_set_aside_and_kept),
        store_test(half_a_pair_is_set_aside),
        store_test(links_are_set_aside_as_links),
        store_test(a_state_is_written_and_read),
        store_test(a_state_has_a_largest_size),
        store_test(the_state_folder_is_closed_to_others),
        store_test(a_new_folder_is_made_and_left_clean),
        store_test(a_folder_may_be_no_folder),
        store_test(a_limit_of_file_sizes_is_noticed),
        store_test(a_full_place_is_noticed),
        store_test(a_read_only_place_is_noticed),
        store_test(a_state_folder_on_another_file_system_is_noticed),
    };

    return cmocka_run_group_tests(tests, group_setup, NULL);
}
