/*
 * nginx_fixture: a machine's folders in miniature, with nginx's configuration and the settings
 * that name them, as a cmocka fixture for the calls of adapters/nginx.h. Everything asserts.
 */
#ifndef TEST_SUPPORT_NGINX_FIXTURE_H
#define TEST_SUPPORT_NGINX_FIXTURE_H

#include "adapters/nginx.h"
#include "adapters/nginx_compose.h"

#include "support/loop.h"
#include "support/pki.h"

#define NGINX "/usr/sbin/nginx"

enum { PATH_SIZE = 256 };

struct nginx_fixture {
    uv_loop_t *loop;
    char folder[64];
    char etc[PATH_SIZE]; /* nginx.conf and what it includes by relative names */
    char conf[PATH_SIZE];
    char site_folder[PATH_SIZE];
    char site[PATH_SIZE];
    char pid_file[PATH_SIZE];
    char run[PATH_SIZE];
    char include[PATH_SIZE];
    char mirror[PATH_SIZE];
    char refused[PATH_SIZE];
    char tls[PATH_SIZE];
    char staged_chain[PATH_SIZE];
    char staged_key[PATH_SIZE];
    char script[PATH_SIZE];
    struct config config;
    struct nginx_facts facts;
    struct upstreams upstreams;
    struct ended ended;
    struct nginx_test test;
    struct nginx_compose compose;
    struct nginx_wait wait;
    struct nginx_reload reload;
    struct nginx_probe probe;
    pid_t child;   /* that calls itself nginx, or 0: ended with the test */
    pid_t nginx;   /* a real master, or 0: ended with its workers */
    int nginx_log; /* what it says */
};

int nginx_fixture_setup(void **state);
int nginx_fixture_teardown(void **state);

#define nginx_fixture_test(function)                                                     \
    cmocka_unit_test_setup_teardown(function, nginx_fixture_setup, nginx_fixture_teardown)

/* Skips the test on machines without nginx. */
void fixture_need_nginx(void);
void fixture_end_child(struct nginx_fixture *f);

/* nginx itself, with nginx.conf as it is; returns when it has started so many workers. */
void fixture_start_nginx(struct nginx_fixture *f, unsigned workers);
void fixture_end_nginx(struct nginx_fixture *f);

/* nginx.path is a shell script with this body. */
void fixture_use_script(struct nginx_fixture *f, const char *body);

/* Settings are never written to. */
char *fixture_text(const char *literal);

/* After a change of the settings: the upstreams that they name. */
void fixture_init_upstreams(struct nginx_fixture *f);

/* ---- files ---- */

void fixture_path(char ret[PATH_SIZE], const char *folder, const char *name);
void fixture_write(const char *path, const char *content);
void fixture_make_folder(const char *path);
bool fixture_file_is(const char *path, const char *content);
void fixture_assert_file(const char *path, const char *content);

/* nginx.conf with its first lines and a text inside the block http. */
void fixture_write_conf(const struct nginx_fixture *f, const char *head,
                        const char *http);

void fixture_write_usual_conf(const struct nginx_fixture *f); /* with our pid file */

void fixture_assert_mode(const char *path, mode_t mode); /* of the path itself */

/* ---- configurations ---- */

/* A text as a buffer that is only read. */
struct buf fixture_literal(const char *content);

/* nginx_render into buffers that are zeroed or from an earlier call. */
int fixture_render(const struct nginx_fixture *f, enum nginx_level level,
                   struct buf *site, struct buf *include, struct err *err);

/* The staged pair: a leaf of one key, and another key, or a pair that fits. */
void fixture_write_pair(const struct nginx_fixture *f, EVP_PKEY *key,
                        EVP_PKEY *certified);
void fixture_write_good_pair(const struct nginx_fixture *f);

#endif
