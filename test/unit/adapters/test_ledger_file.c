/* The ledger on the volume: damaged, not to be read, not to be written. */
#include "adapters/ledger_file.h"

#include "base/fs.h"
#include "domain/ledger_policy.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW INT64_C(1795459747) /* 2026-11-23 18:49:07 UTC */

static char directory[] = AUTHORITY_PRODUCTION;

struct fixture {
    char folder[64];
    char tls[96];
    char path[160]; /* of the ledger */
    struct config config;
    struct store store;
    struct ledger_file file;
    struct ledger_question question;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err = ERR_INIT;

    assert_non_null(f);
    snprintf(f->folder, sizeof f->folder, "/tmp/test-ledger-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->tls, sizeof f->tls, "%s/tls", f->folder);
    snprintf(f->path, sizeof f->path, "%s/.cert-manager/ledger.json", f->tls);
    f->config.tls.dir = f->tls;
    f->config.run_dir = f->folder;
    f->config.acme.authorities.count = 1;
    f->config.acme.authorities.items[0].directory = directory;
    assert_int_equal(store_init(&f->store, &f->config, &err), 0);
    assert_int_equal(fs_make_folder(f->tls, 0755, &err), 0);
    assert_int_equal(fs_make_folder(f->store.state, 0700, &err), 0);
    f->question.subject = (struct ledger_subject){directory, "app.example.org", "v1"};
    f->question.limits = ledger_limits_of(&f->config, directory);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    ledger_file_done(&f->file);
    assert_int_equal(fs_remove_tree(f->folder, &err), 0);
    free(f);
    return 0;
}

static void open_well(struct fixture *f)
{
    struct err err = ERR_INIT;

    ledger_file_done(&f->file);
    assert_int_equal(ledger_file_open(&f->file, &f->store, &f->config, NOW, &err), 0);
}

static void write_text(const struct fixture *f, const char *text)
{
    struct err err = ERR_INIT;

    assert_int_equal(fs_replace(f->path, text, strlen(text), 0600, &err), 0);
}

static void an_order_is_on_disk_before_it_is_made(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct stat status;
    int64_t at;

    open_well(f);
    assert_int_equal(ledger_file_begin(&f->file, &f->question.subject, NOW, &at, &err),
                     0);
    open_well(f); /* another life */
    assert_int_equal(f->file.ledger.count, 1);
    assert_int_equal(f->file.ledger.entries[0].at, at);
    assert_int_equal(f->file.ledger.entries[0].outcome, LEDGER_PENDING);
    assert_int_equal(stat(f->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

static void what_cannot_be_written_has_not_begun(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    int64_t at = 0;

    open_well(f);
    assert_int_equal(mkdir(f->path, 0700), 0);
    assert_int_equal(ledger_file_begin(&f->file, &f->question.subject, NOW, &at, &err),
                     -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_non_null(strstr(err.message, "the ledger of orders cannot be written"));
    assert_int_equal(at, 0);
    assert_int_equal(f->file.ledger.count, 0);
    assert_int_equal(rmdir(f->path), 0);
    assert_int_equal(ledger_file_begin(&f->file, &f->question.subject, NOW, &at, &err),
                     0);
}

/* It is kept, and of what the CA allows one order is left. */
static void a_damaged_file_is_set_aside(void **state)
{
    static const char *const texts[] = {"", "garbage", "{\"version\":1,\"subjects\":[",
                                        "{\"version\":2,\"subjects\":[],\"entries\":[]}"};
    struct fixture *f = *state;
    char aside[176];

    snprintf(aside, sizeof aside, "%s.damaged", f->path);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct err err = ERR_INIT;
        BUF_SCOPED kept = {0};
        int64_t at;

        write_text(f, texts[i]);
        open_well(f);
        assert_int_equal(fs_read(aside, 1024, &kept, &err), 0);
        assert_string_equal(buf_str(&kept), texts[i]);
        assert_int_equal(ledger_ask(&f->file.ledger, &f->question, NOW).action,
                         LEDGER_ORDER);
        assert_int_equal(
            ledger_file_begin(&f->file, &f->question.subject, NOW, &at, &err), 0);
        open_well(f); /* what is lost is still lost in another life */
        assert_true(ledger_ask(&f->file.ledger, &f->question, NOW).from > NOW);
    }
}

static void what_is_no_file_is_set_aside(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(f->path, 0700), 0);
    open_well(f);
    assert_int_equal(f->file.ledger.unknown_before, NOW);
}

/* What was put there before is removed for it, up to a depth. */
static void one_that_cannot_be_set_aside_keeps_the_ledger_shut(void **state)
{
    enum { TOO_DEEP = 40 };
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    char below[256];
    size_t len;

    snprintf(below, sizeof below, "%s.damaged", f->path);
    len = strlen(below);
    write_text(f, "garbage");
    assert_int_equal(mkdir(below, 0700), 0);
    for (int depth = 0; depth < TOO_DEEP; depth++) {
        strcat(below, "/d");
        assert_int_equal(mkdir(below, 0700), 0);
    }
    assert_int_equal(ledger_file_open(&f->file, &f->store, &f->config, NOW, &err), -1);
    assert_false(f->file.open);
    assert_non_null(strstr(err.message, "nothing is ordered without the ledger"));
    for (; strlen(below) > len + 2; *strrchr(below, '/') = '\0')
        assert_int_equal(rmdir(below), 0);
    open_well(f);
}

/* It is not known to be damaged: nothing is done to it. */
static void one_that_cannot_be_read_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;

    assert_int_equal(symlink("ledger.json", f->path), 0);
    assert_int_equal(ledger_file_open(&f->file, &f->store, &f->config, NOW, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(unlink(f->path), 0);
    open_well(f);
    assert_int_equal(f->file.ledger.unknown_before, 0);
}

/* Everything but the first blocks of memory, which reading the file takes. */
static int left;

static void *scarce(size_t size)
{
    return left-- > 0 ? wipe_malloc(size) : wipe_malloc(SIZE_MAX);
}

static void one_that_there_is_no_memory_for_is_not_damaged(void **state)
{
    struct fixture *f = *state;
    int64_t at;
    struct err err = ERR_INIT;

    open_well(f);
    assert_int_equal(ledger_file_begin(&f->file, &f->question.subject, NOW, &at, &err),
                     0);
    ledger_file_done(&f->file);
    for (int blocks = 0; !f->file.open; blocks++) {
        left = blocks;
        json_set_alloc_funcs(scarce, wipe_free);
        if (ledger_file_open(&f->file, &f->store, &f->config, NOW, &err) < 0)
            assert_int_equal(err.kind, ERR_SYS);
        json_set_alloc_funcs(wipe_malloc, wipe_free);
    }
    assert_int_equal(f->file.ledger.count, 1);
    assert_int_equal(f->file.ledger.unknown_before, 0);
}

static void a_folder_that_will_not_last_is_noticed(void **state)
{
    const struct fixture *f = *state;
    struct store in_memory = f->store;
    struct store missing = f->store;

    snprintf(in_memory.folder, sizeof in_memory.folder, "/dev/shm");
    snprintf(missing.folder, sizeof missing.folder, "%s/missing", f->folder);
    assert_string_equal(ledger_file_why_lost(&in_memory), "in memory");
    assert_null(ledger_file_why_lost(&missing));
}

#define ledger_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ledger_test(an_order_is_on_disk_before_it_is_made),
        ledger_test(what_cannot_be_written_has_not_begun),
        ledger_test(a_damaged_file_is_set_aside),
        ledger_test(what_is_no_file_is_set_aside),
        ledger_test(one_that_cannot_be_set_aside_keeps_the_ledger_shut),
        ledger_test(one_that_cannot_be_read_is_left_alone),
        ledger_test(one_that_there_is_no_memory_for_is_not_damaged),
        ledger_test(a_folder_that_will_not_last_is_noticed),
    };

    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
