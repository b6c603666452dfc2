#include "adapters/certbot_internal.h"

#include "support/child.h"
#include "support/loop.h"
#include "support/names.h"
#include "support/pki.h"

#include "domain/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* To the adapter a chain is some text. */
#define LEAF "the leaf\n"
#define REST "the rest\n"
#define STRANGER 65533 /* a user who owns nothing here */

static const struct process_name ended = {.pid = 0x7ffffffe, .started = 1};

struct fixture {
    uv_loop_t *loop;
    char folder[64];
    char run_dir[96];
    char work[FS_PATH_MAX];   /* where a run of before is, below run_dir */
    char memory[FS_PATH_MAX]; /* and in /dev/shm */
    struct config config;
    struct certbot certbot;
    struct ended ended;
};

static char domain[] = "app.example.test";
static char main_directory[] = "https://main.example.test/directory";
static char directory[] = "https://ca.example.test/directory";

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err = ERR_INIT;
    void *loop;

    assert_non_null(f);
    umask(077);
    assert_int_equal(loop_setup(&loop), 0);
    f->loop = loop;
    snprintf(f->folder, sizeof f->folder, "/tmp/test_certbot.XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->run_dir, sizeof f->run_dir, "%s/run", f->folder);
    assert_int_equal(mkdir(f->run_dir, 0755), 0);
    f->config.run_dir = f->run_dir;
    f->config.domain = domain;
    f->config.domains = (struct config_list){.items = &f->config.domain, .count = 1};
    f->config.acme.authorities.count = 2;
    f->config.acme.authorities.items[0].directory = main_directory;
    f->config.acme.authorities.items[1].directory = directory;
    f->config.certbot.timeout_ms = 60000;
    assert_int_equal(certbot_place(&f->config, 0, f->work, &err), 0);
    assert_int_equal(certbot_place(&f->config, 1, f->memory, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    void *loop = f->loop;

    certbot_done(&f->certbot);
    assert_int_equal(fs_remove_tree(f->memory, &err), 0);
    assert_int_equal(fs_remove_tree(f->folder, &err), 0);
    free(f);
    return loop_teardown(&loop);
}

/* ---- what an earlier run left ---- */

static void put(const char *folder, const char *name, const char *text)
{
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    assert_int_equal(fs_join(path, folder, name, &err), 0);
    assert_int_equal(fs_replace(path, text, strlen(text), 0600, &err), 0);
}

static void put_link(const char *folder, const char *name, const char *target)
{
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    assert_int_equal(fs_join(path, folder, name, &err), 0);
    assert_int_equal(fs_remove(path, &err), 0);
    assert_int_equal(symlink(target, path), 0);
}

static void put_chain(const char *folder)
{
    put(folder, "out/cert.pem", LEAF);
    put(folder, "out/chain.pem", REST);
    put(folder, "out/fullchain.pem", LEAF REST);
}

static void put_record(const char *folder, const struct process_name *name,
                       const char *of_domain)
{
    const struct certbot_record record = {
        .pid = name->pid, .started = name->started, .begun = PKI_NOW};
    const struct certbot_purpose purpose = {directory, names_of(of_domain),
                                            "0123456789abcdef"};
    struct err err = ERR_INIT;

    assert_int_equal(certbot_save_record(folder, &record, &purpose, &err), 0);
}

/* A run of that process for our domain, without a chain. */
static void put_run(const char *folder, const struct process_name *name)
{
    static const char *const parts[] = {"config", "out"};
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    assert_int_equal(mkdir(folder, 0710), 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(fs_join(path, folder, parts[i], &err), 0);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    put(folder, "config/private_key.json", "secret");
    put(folder, "stdout", "Requesting a certificate for app.example.test\n");
    put(folder, "stderr", "Saving debug log to logs/letsencrypt.log\n");
    put_record(folder, name, domain);
}

/* A process that leads a group, as certbot does. */
static struct process_name start_shell(const char *script)
{
    struct process_name name;
    struct err err = ERR_INIT;
    char line;
    int ends[2];
    pid_t pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setpgid(0, 0);
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &line, 1), 1);
    close(ends[0]);
    assert_int_equal(process_name_read(pid, &name, &err), 0);
    return name;
}

/* ---- taking over ---- */

static void begin(struct fixture *f)
{
    const struct certbot_request request = {
        .loop = f->loop, .config = &f->config, .key_id = "0123456789abcdef"};

    certbot_take_over(&f->certbot, &request, ended_done, &f->ended);
    assert_int_equal(f->ended.times, 0);
}

static void take_over(struct fixture *f)
{
    begin(f);
    loop_run(f->loop);
    assert_int_equal(f->ended.times, 1);
}

static void assert_taken_over(struct fixture *f, const char *folder)
{
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    ended_assert_ok(&f->ended);
    assert_string_equal(buf_str(&f->certbot.chain_pem), LEAF REST);
    assert_true(f->certbot.ran);
    assert_int_equal(f->certbot.outcome.verdict, CERTBOT_ISSUED);
    /* It stays until the chain is safe, but not the account. */
    assert_int_equal(fs_join(path, folder, "out/fullchain.pem", &err), 0);
    assert_true(fs_exists(path));
    assert_int_equal(fs_join(path, folder, "config", &err), 0);
    assert_false(fs_exists(path));
    certbot_discard(&f->certbot);
    certbot_discard(&f->certbot);
    assert_false(fs_exists(folder));
    assert_int_equal(f->certbot.chain_pem.len, 0);
}

static void assert_nothing_of_use(const struct fixture *f)
{
    ended_assert_ok(&f->ended);
    assert_int_equal(f->certbot.chain_pem.len, 0);
    assert_false(f->certbot.ran);
    assert_false(fs_exists(f->work));
    assert_false(fs_exists(f->memory));
}

static void test_nothing_is_there(void **state)
{
    struct fixture *f = *state;

    take_over(f);
    assert_nothing_of_use(f);
}

static void test_chain_below_run_dir(void **state)
{
    struct fixture *f = *state;

    put_run(f->work, &ended);
    put_chain(f->work);
    take_over(f);
    assert_taken_over(f, f->work);
}

static void test_chain_in_shared_memory(void **state)
{
    struct fixture *f = *state;

    put_run(f->memory, &ended);
    put_chain(f->memory);
    take_over(f);
    assert_taken_over(f, f->memory);
}

static void test_one_chain_is_enough(void **state)
{
    struct fixture *f = *state;

    put_run(f->work, &ended);
    put_chain(f->work);
    put_run(f->memory, &ended);
    put_chain(f->memory);
    take_over(f);
    assert_false(fs_exists(f->memory));
    assert_taken_over(f, f->work);
}

/* As a kill of certbot, or a full disk, can leave it. */
static void test_chain_that_is_not_complete(void **state)
{
    static const struct {
        const char *leaf, *rest, *whole;
    } cases[] = {
        {LEAF, NULL, NULL},      {LEAF, "", ""},
        {LEAF, REST, ""},        {LEAF, REST, LEAF},
        {LEAF, "the", LEAF},     {LEAF, REST, LEAF "the rest"},
        {"", REST, REST},        {"", "", ""},
        {NULL, NULL, LEAF REST}, {LEAF, NULL, LEAF},
        {LEAF, REST, REST LEAF}, {NULL, LEAF, LEAF},
        {LEAF, "", LEAF REST},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        f->ended = (struct ended){.times = 0};
        put_run(f->work, &ended);
        if (cases[i].leaf != NULL)
            put(f->work, "out/cert.pem", cases[i].leaf);
        if (cases[i].rest != NULL)
            put(f->work, "out/chain.pem", cases[i].rest);
        if (cases[i].whole != NULL)
            put(f->work, "out/fullchain.pem", cases[i].whole);
        take_over(f);
        assert_nothing_of_use(f);
    }
}

/* A CA whose leaf needs no other certificate. */
static void test_chain_of_one(void **state)
{
    struct fixture *f = *state;

    put_run(f->work, &ended);
    put(f->work, "out/cert.pem", LEAF);
    put(f->work, "out/chain.pem", "");
    put(f->work, "out/fullchain.pem", LEAF);
    take_over(f);
    ended_assert_ok(&f->ended);
    assert_string_equal(buf_str(&f->certbot.chain_pem), LEAF);
}

static void test_running_one_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct process_name name;
    char script[2 * FS_PATH_MAX];

    snprintf(script, sizeof script,
             "echo; sleep 0.3; cd %s/out; printf '" LEAF "' >cert.pem; printf '" REST
             "' >chain.pem; cat cert.pem chain.pem >fullchain.pem",
             f->work);
    name = start_shell(script);
    put_run(f->work, &name);
    take_over(f);
    assert_int_equal(child_end(name.pid), 0);
    assert_taken_over(f, f->work);
}

static void test_hanging_one_is_ended(void **state)
{
    struct fixture *f = *state;
    struct process_name name = start_shell("echo; exec sleep 1000");

    f->config.certbot.timeout_ms = 200;
    put_run(f->work, &name);
    take_over(f);
    ended_assert_failed(&f->ended, ERR_TIMEOUT, "not finished within 200 ms");
    assert_int_equal(child_end(name.pid), SIGTERM);
    assert_false(f->certbot.ran);
    assert_false(fs_exists(f->work));
}

static void test_hanging_one_that_has_the_chain(void **state)
{
    struct fixture *f = *state;
    struct process_name name = start_shell("echo; exec sleep 1000");

    f->config.certbot.timeout_ms = 200;
    put_run(f->work, &name);
    put_chain(f->work);
    take_over(f);
    assert_int_equal(child_end(name.pid), SIGTERM);
    assert_taken_over(f, f->work);
}

static void test_failure_is_told(void **state)
{
    struct fixture *f = *state;

    put_run(f->work, &ended);
    put(f->work, "stderr",
        "acme.messages.Error: urn:ietf:params:acme:error:rateLimited :: title :: too "
        "many certificates, retry after 2026-11-24 18:44:03 UTC\n");
    take_over(f);
    ended_assert_failed(&f->ended, ERR_PEER, "rate limited (rateLimited): too many");
    assert_true(f->certbot.ran);
    assert_int_equal(f->certbot.outcome.verdict, CERTBOT_RATE_LIMITED);
    assert_int_equal(f->certbot.outcome.retry_at, INT64_C(1795545843));
    assert_false(fs_exists(f->work));
}

static void test_output_without_end_is_cut(void **state)
{
    struct fixture *f = *state;
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    put_run(f->work, &ended);
    put_chain(f->work);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fs_join(path, f->work, i == 0 ? "stdout" : "stderr", &err), 0);
        assert_int_equal(truncate(path, INT64_C(1) << 32), 0);
    }
    take_over(f);
    assert_taken_over(f, f->work);
}

/* ---- cancel ---- */

static void test_cancel_ends_it(void **state)
{
    struct fixture *f = *state;
    struct process_name name = start_shell("echo; exec sleep 1000");

    put_run(f->work, &name);
    begin(f);
    uv_run(f->loop, UV_RUN_NOWAIT);
    certbot_cancel(&f->certbot);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "canceled");
    assert_int_equal(child_end(name.pid), SIGTERM);
    assert_int_equal(f->certbot.chain_pem.len, 0);
    assert_false(fs_exists(f->work));
}

static void test_cancel_keeps_a_chain(void **state)
{
    struct fixture *f = *state;
    struct process_name name = start_shell("echo; exec sleep 1000");

    put_run(f->work, &name);
    put_chain(f->work);
    begin(f);
    uv_run(f->loop, UV_RUN_NOWAIT);
    certbot_cancel(&f->certbot);
    loop_run(f->loop);
    ended_assert_failed(&f->ended, ERR_CANCELED, "canceled");
    assert_int_equal(child_end(name.pid), SIGTERM);
    assert_string_equal(buf_str(&f->certbot.chain_pem), LEAF REST);
    assert_true(fs_exists(f->work));
}

/* ---- what is not ours, or not what it seems ---- */

static void test_run_for_something_else_is_ended(void **state)
{
    struct fixture *f = *state;
    struct process_name name = start_shell("echo; exec sleep 1000");

    put_run(f->work, &name);
    put_chain(f->work);
    put_record(f->work, &name, "other.example.test");
    take_over(f);
    assert_int_equal(child_end(name.pid), SIGTERM);
    assert_nothing_of_use(f);
}

/* Its number was given away again: nothing is waited for, and nobody is ended. */
static void test_number_of_another_process(void **state)
{
    struct fixture *f = *state;
    struct process_name other = start_shell("echo; exec sleep 1000");
    const struct process_name name = {.pid = other.pid, .started = other.started - 1};

    put_run(f->work, &name);
    put_chain(f->work);
    take_over(f);
    assert_taken_over(f, f->work);
    f->ended = (struct ended){.times = 0};
    put_run(f->work, &name);
    put_record(f->work, &name, "other.example.test");
    take_over(f);
    assert_nothing_of_use(f);
    assert_true(process_name_lives(&other));
    kill(other.pid, SIGKILL);
    assert_int_equal(child_end(other.pid), SIGKILL);
}

static void test_records_that_are_none(void **state)
{
    static const char *const records[] = {"", "{", "[]", "{\"pid\":1}", "\xff"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++) {
        f->ended = (struct ended){.times = 0};
        put_run(f->work, &ended);
        put_chain(f->work);
        put(f->work, "run.json", records[i]);
        take_over(f);
        assert_nothing_of_use(f);
    }
}

static void test_record_that_is_missing_or_no_file(void **state)
{
    struct fixture *f = *state;
    char path[FS_PATH_MAX];
    char elsewhere[FS_PATH_MAX];
    struct err err = ERR_INIT;

    assert_int_equal(fs_join(path, f->work, "run.json", &err), 0);
    assert_int_equal(fs_join(elsewhere, f->run_dir, "elsewhere", &err), 0);
    for (int i = 0; i < 4; i++) {
        f->ended = (struct ended){.times = 0};
        put_run(f->work, &ended);
        put_chain(f->work);
        (void)unlink(elsewhere);
        assert_int_equal(rename(path, elsewhere), 0);
        if (i == 1)
            put_link(f->work, "run.json", elsewhere);
        else if (i == 2)
            assert_int_equal(mkfifo(path, 0600), 0);
        else if (i == 3)
            assert_int_equal(mkdir(path, 0700), 0);
        take_over(f);
        assert_nothing_of_use(f);
        assert_true(fs_exists(elsewhere));
    }
}

static void test_links_in_place_of_the_chain(void **state)
{
    static const char *const names[] = {"out/cert.pem", "out/chain.pem",
                                        "out/fullchain.pem"};
    static const char *const texts[] = {LEAF, REST, LEAF REST};
    struct fixture *f = *state;

    for (size_t i = 0; i < 3; i++) {
        f->ended = (struct ended){.times = 0};
        put_run(f->work, &ended);
        put_chain(f->work);
        put(f->run_dir, "elsewhere", texts[i]);
        put_link(f->work, names[i], "../../elsewhere");
        take_over(f);
        assert_nothing_of_use(f);
    }
}

static void test_fifo_in_place_of_the_chain(void **state)
{
    struct fixture *f = *state;
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    put_run(f->work, &ended);
    put_chain(f->work);
    assert_int_equal(fs_join(path, f->work, "out/fullchain.pem", &err), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    take_over(f);
    assert_nothing_of_use(f);
}

static void test_link_in_place_of_the_folder(void **state)
{
    struct fixture *f = *state;
    char victim[FS_PATH_MAX];
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    assert_int_equal(fs_join(victim, f->folder, "victim", &err), 0);
    put_run(victim, &ended);
    put_chain(victim);
    assert_int_equal(symlink(victim, f->work), 0);
    assert_int_equal(symlink(victim, f->memory), 0);
    take_over(f);
    assert_nothing_of_use(f);
    assert_int_equal(fs_join(path, victim, "config/private_key.json", &err), 0);
    assert_true(fs_exists(path));
}

static void test_file_in_place_of_the_folder(void **state)
{
    struct fixture *f = *state;

    put(f->run_dir, "certbot", "not a folder");
    take_over(f);
    assert_nothing_of_use(f);
}

static void test_folder_that_others_can_write(void **state)
{
    static const mode_t modes[] = {0770, 0702, 0777, 01777};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        f->ended = (struct ended){.times = 0};
        put_run(f->work, &ended);
        put_chain(f->work);
        assert_int_equal(chmod(f->work, modes[i]), 0);
        take_over(f);
        assert_nothing_of_use(f);
    }
}

/* Whoever owns it could have written the record, and have us end any process. */
static void test_folder_of_somebody_else(void **state)
{
    struct fixture *f = *state;
    struct process_name name = start_shell("echo; exec sleep 1000");

    if (geteuid() == 0) {
        put_run(f->memory, &name);
        put_chain(f->memory);
        put_record(f->memory, &name, "other.example.test");
        assert_int_equal(chown(f->memory, STRANGER, STRANGER), 0);
        take_over(f);
        assert_nothing_of_use(f);
        assert_true(process_name_lives(&name));
    }
    kill(name.pid, SIGKILL);
    assert_int_equal(child_end(name.pid), SIGKILL);
    if (geteuid() != 0)
        skip();
}

/* ---- at the start ---- */

static void put_real_chain(const char *folder, char ret_leaf[65])
{
    struct pki_chain chain;
    struct chain *parsed;
    struct err err = ERR_INIT;
    char *leaf;
    char *rest;
    char *whole;

    pki_chain_init(&chain, &(struct pki_spec){.names = "DNS:app.example.test"});
    leaf = pki_pem(chain.leaf, NULL);
    rest = pki_pem(chain.intermediate, NULL);
    whole = pki_pem(chain.leaf, chain.intermediate, NULL);
    put(folder, "out/cert.pem", leaf);
    put(folder, "out/chain.pem", rest);
    put(folder, "out/fullchain.pem", whole);
    assert_int_equal(chain_parse(whole, strlen(whole), &parsed, &err), 0);
    memcpy(ret_leaf, chain_leaf(parsed)->sha256, 65);
    chain_free(parsed);
    free(leaf);
    free(rest);
    free(whole);
    pki_chain_done(&chain);
}

static void test_clean_up_of_what_is_safe_elsewhere(void **state)
{
    struct fixture *f = *state;
    const char *leaves[] = {"", "0123", NULL};
    char leaf[65];

    put_run(f->work, &ended);
    put_real_chain(f->work, leaf);
    certbot_clean_up(&f->config, leaves, 2);
    assert_true(fs_exists(f->work));
    leaves[2] = leaf;
    certbot_clean_up(&f->config, leaves, 3);
    assert_false(fs_exists(f->work));
}

static void test_clean_up_of_what_has_no_record(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(f->work, 0700), 0);
    assert_int_equal(mkdir(f->memory, 0700), 0);
    put(f->memory, "run.json", "{");
    certbot_clean_up(&f->config, NULL, 0);
    assert_false(fs_exists(f->work));
    assert_false(fs_exists(f->memory));
}

/* Whether it is of use only the next issue can say. */
/* Without descriptors, or memory, nobody can tell what is there: a chain that was paid for, say. */
static void test_what_cannot_be_looked_at_stays(void **state)
{
    static const struct config_list nobody = {.count = 0};
    static const struct certbot_purpose purpose = {"", &nobody, ""};
    struct fixture *f = *state;
    struct certbot_record record;
    struct err err = ERR_INIT;
    struct rlimit limit;
    struct rlimit none;

    put_run(f->work, &ended);
    put_chain(f->work);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(certbot_look(f->work, &purpose, &record, &err),
                     CERTBOT_LEFT_UNKNOWN);
    assert_true(certbot_clean_up(&f->config, NULL, 0));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(err.code, EMFILE);
    assert_int_equal(certbot_look(f->work, &purpose, &record, &err), CERTBOT_LEFT_RUN);
}

static void test_clean_up_leaves_the_rest(void **state)
{
    struct fixture *f = *state;
    struct process_name name = start_shell("echo; exec sleep 1000");
    const char *leaves[1];
    char leaf[65];

    put_run(f->work, &ended);
    put_chain(f->work); /* no certificates */
    put_run(f->memory, &name);
    put_real_chain(f->memory, leaf);
    leaves[0] = leaf;
    certbot_clean_up(&f->config, leaves, 1);
    assert_true(fs_exists(f->work));
    assert_true(fs_exists(f->memory)); /* it still runs */
    assert_true(process_name_lives(&name));
    kill(name.pid, SIGKILL);
    assert_int_equal(child_end(name.pid), SIGKILL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_is_there),
        TEST(test_chain_below_run_dir),
        TEST(test_chain_in_shared_memory),
        TEST(test_one_chain_is_enough),
        TEST(test_chain_that_is_not_complete),
        TEST(test_chain_of_one),
        TEST(test_running_one_is_waited_for),
        TEST(test_hanging_one_is_ended),
        TEST(test_hanging_one_that_has_the_chain),
        TEST(test_failure_is_told),
        TEST(test_output_without_end_is_cut),
        TEST(test_cancel_ends_it),
        TEST(test_cancel_keeps_a_chain),
        TEST(test_run_for_something_else_is_ended),
        TEST(test_number_of_another_process),
        TEST(test_records_that_are_none),
        TEST(test_record_that_is_missing_or_no_file),
        TEST(test_links_in_place_of_the_chain),
        TEST(test_fifo_in_place_of_the_chain),
        TEST(test_link_in_place_of_the_folder),
        TEST(test_file_in_place_of_the_folder),
        TEST(test_folder_that_others_can_write),
        TEST(test_folder_of_somebody_else),
        TEST(test_clean_up_of_what_is_safe_elsewhere),
        TEST(test_clean_up_of_what_has_no_record),
        TEST(test_what_cannot_be_looked_at_stays),
        TEST(test_clean_up_leaves_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
