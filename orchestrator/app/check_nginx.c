#include "adapters/nginx.h"
#include "app/check.h"
#include "app/machine.h"
#include "base/fs.h"
#include "domain/chain.h"
#include "domain/keys.h"
#include "domain/selfsigned.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/ec.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EKM_SECRET_CHARACTERS = 64 };

/*
 * What stands in for what the daemon keeps in run_dir and tls.dir: the test needs a pair and a secret,
 * also before there are any, and must not meet the one that the daemon may be making.
 */
struct stand_in {
    char folder[FS_PATH_MAX];
    char chain[FS_PATH_MAX];
    char key[FS_PATH_MAX];
    struct config config; /* the settings, with the folder as run_dir; borrows */
};

/* ---- what stands in ---- */

static int put_pair(struct stand_in *in, struct err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    SECRET_SCOPED key_pem = NULL;
    BUF_SCOPED chain_pem = {.max = CHAIN_PEM_MAX_BYTES};
    int failed;

    if (key == NULL)
        return err_openssl(err, "cannot make a key");
    failed =
        selfsigned_build(key, &in->config.domains, (int64_t)time(NULL), &chain_pem, err) <
                    0 ||
                keys_to_pem(key, &key_pem, err) < 0 ||
                fs_replace(in->chain, chain_pem.data, chain_pem.len, 0600, err) < 0 ||
                fs_replace(in->key, key_pem->bytes, key_pem->len, 0600, err) < 0
            ? -1
            : 0;
    EVP_PKEY_free(key);
    return failed;
}

static int put_secret(struct stand_in *in, struct err *err)
{
    SECRET_SCOPED secret = secret_new(EKM_SECRET_CHARACTERS);

    if (secret == NULL)
        return err_sys(err, ENOMEM, "no secure memory left");
    memset(secret->bytes, '0', secret->len);
    return nginx_write_secret(&in->config, secret, err);
}

/* The folder is there when `folder` is not "", also after a failure. */
static int stand_in_make(struct stand_in *in, const struct config *config,
                         struct err *err)
{
    const char *parent = getenv("TMPDIR");

    *in = (struct stand_in){.config = *config};
    if (fs_join(in->folder, parent == NULL || parent[0] != '/' ? "/tmp" : parent,
                "cert-manager-check-XXXXXX", err) < 0)
        return -1;
    if (mkdtemp(in->folder) == NULL) {
        err_sys(err, errno, "%s", in->folder);
        in->folder[0] = '\0';
        return -1;
    }
    in->config.run_dir = in->folder;
    if (fs_join(in->chain, in->folder, "cert.pem", err) < 0 ||
        fs_join(in->key, in->folder, "key.pem", err) < 0 || put_pair(in, err) < 0)
        return -1;
    return put_secret(in, err);
}

static void stand_in_remove(struct stand_in *in)
{
    struct err ignored = ERR_INIT;

    if (in->folder[0] != '\0')
        (void)fs_remove_tree(in->folder, &ignored);
}

/* ---- nginx -t ---- */

static int render(const struct config *config, const struct nginx_facts *facts,
                  enum nginx_level level, struct buf *ret_site, struct buf *ret_include,
                  struct err *err)
{
    buf_init(ret_site, NGINX_CONF_MAX_BYTES);
    buf_init(ret_include, NGINX_CONF_MAX_BYTES);
    return nginx_render(config, facts, level, ret_site, ret_include, err);
}

/* `ret_site` is what was tested. */
static int test(struct inquiry *inquiry, struct stand_in *in,
                const struct nginx_facts *facts, enum nginx_level level,
                struct buf *ret_site, struct err *err)
{
    struct nginx_facts tested = *facts;
    BUF_SCOPED include = {0};
    const struct nginx_test_request request = {
        .loop = &inquiry->loop,
        .config = &in->config,
        .live_run_dir = inquiry->config->run_dir,
        .files = {.site = ret_site, .include = &include},
        .chain = in->chain,
        .key = in->key,
        .timeout_ms = NGINX_TEST_MS,
    };
    struct nginx_test *nginx_test = malloc(sizeof *nginx_test);
    struct inquiry_end end = {0};
    int failed = -1;

    tested.live_chain = NULL; /* the pair is another one */
    if (nginx_test == NULL) {
        err_sys(err, ENOMEM, "nginx -t");
    } else if (render(&in->config, &tested, level, ret_site, &include, err) == 0) {
        nginx_test_start(nginx_test, &request, inquiry_note, &end);
        failed = inquiry_wait(inquiry, &end, err);
    }
    free(nginx_test);
    return failed;
}

/* The number of the line behind the path, 0 for none; the path itself means nothing to anybody. */
static unsigned long take_line(const struct stand_in *in, char *message)
{
    char path[FS_PATH_MAX];
    struct err ignored = ERR_INIT;
    char *found;
    char *end;
    unsigned long number;

    if (nginx_refused_path(&in->config, path, &ignored) < 0)
        return 0;
    found = strstr(message, path);
    if (found == NULL || found[strlen(path)] != ':')
        return 0;
    number = strtoul(found + strlen(path) + 1, &end, 10);
    if (number == 0)
        return 0;
    memmove(found + strlen("default.conf"), found + strlen(path),
            strlen(found + strlen(path)) + 1);
    memcpy(found, "default.conf", strlen("default.conf"));
    return number;
}

/* That line of the text, without the blanks around it. */
static const char *find_line(const char *text, unsigned long number, size_t *ret_len)
{
    while (--number > 0 && (text = strchr(text, '\n')) != NULL)
        text++;
    if (text == NULL)
        return NULL;
    text += strspn(text, " \t");
    *ret_len = strcspn(text, "\n");
    return *ret_len == 0 ? NULL : text;
}

static const char refusal_begins[] = "nginx refuses the configuration: ";

/* What nginx said, without who said it: the row has that. NULL when it was not asked. */
static const char *said(const struct err *err)
{
    const char *found = strstr(err->message, refusal_begins);

    return found == NULL ? NULL : found + strlen(refusal_begins);
}

static void show_refusal(struct check *check, const struct stand_in *in,
                         const struct buf *site, struct err *refusal, bool reduced_works)
{
    unsigned long number = take_line(in, refusal->message);
    const char *line = NULL;
    size_t len = 0;

    if (number > 0)
        line = find_line(buf_str(site), number, &len);
    verdicts_add(check->verdicts, VERDICT_FAILED, "nginx -t", "%s", said(refusal));
    verdicts_advise(
        check->verdicts, "%s%.*s%s%s", line == NULL ? "" : "that line is: ", (int)len,
        line == NULL ? "" : line, line == NULL ? "" : " | ",
        reduced_works
            ? "until it is put right HTTPS serves /health and /tdx_quote alone; "
              "`cert-manager render --output FOLDER` writes the whole file"
            : "the reduced configuration is refused, too: HTTPS stays off");
}

/* It comes to the ports last: all else was read and is right. */
static bool is_about_privilege(const char *message)
{
    return geteuid() != 0 && strstr(message, "bind() to ") != NULL &&
           strstr(message, "(13: ") != NULL;
}

static bool is_about_name(const char *message)
{
    return strstr(message, "host not found in upstream") != NULL;
}

static void judge_test(struct check *check, struct inquiry *inquiry, struct stand_in *in,
                       const struct nginx_facts *facts)
{
    BUF_SCOPED site = {0};
    BUF_SCOPED reduced = {0};
    struct err err = ERR_INIT;
    struct err reduced_err = ERR_INIT;

    if (test(inquiry, in, facts, NGINX_HTTPS, &site, &err) == 0) {
        verdicts_add(check->verdicts, VERDICT_OK, "nginx -t",
                     "nginx takes the full configuration");
    } else if (said(&err) == NULL) {
        verdicts_add(check->verdicts, VERDICT_FAILED, "nginx -t", "%s", err.message);
    } else if (is_about_privilege(err.message)) {
        verdicts_add(check->verdicts, VERDICT_OK, "nginx -t",
                     "nginx takes the full configuration, as far as can be told without "
                     "root");
    } else if (is_about_name(err.message)) {
        (void)take_line(in, err.message);
        verdicts_add(check->verdicts, VERDICT_WARNING, "nginx -t", "%s", said(&err));
        verdicts_advise(check->verdicts,
                        "until the name resolves HTTPS serves /health and /tdx_quote "
                        "alone; backends of `routes` need not be there");
    } else {
        show_refusal(
            check, in, &site, &err,
            test(inquiry, in, facts, NGINX_HTTPS_REDUCED, &reduced, &reduced_err) == 0);
    }
}

static void check_test(struct check *check, const struct nginx_facts *facts)
{
    struct inquiry inquiry;
    struct stand_in in;
    struct err err = ERR_INIT;

    if (inquiry_open(&inquiry, check->config, &err) < 0) {
        verdicts_add(check->verdicts, VERDICT_FAILED, "nginx -t", "%s", err.message);
        return;
    }
    if (stand_in_make(&in, check->config, &err) == 0)
        judge_test(check, &inquiry, &in, facts);
    else
        verdicts_add(check->verdicts, VERDICT_FAILED, "nginx -t",
                     "no folder for the test: %s", err.message);
    stand_in_remove(&in);
    inquiry_close(&inquiry);
}

/* ---- nginx.conf ---- */

/* Without it our modules' directives, and the groups of addresses, are missing. */
static bool check_include(struct check *check)
{
    const struct config *config = check->config;
    char include[FS_PATH_MAX];
    BUF_SCOPED text = {0};
    struct err err = ERR_INIT;

    if (nginx_include_path(config, include, &err) < 0 ||
        fs_read(config->nginx.conf, NGINX_CONF_MAX_BYTES, &text, &err) < 0) {
        verdicts_add(check->verdicts, VERDICT_FAILED, "nginx.conf", "%s", err.message);
        return false;
    }
    include[strlen(include) - 1] = '\0'; /* it may stand there as a pattern, "….con[f]" */
    if (strstr(buf_str(&text), include) != NULL)
        return true;
    verdicts_add(check->verdicts, VERDICT_FAILED, "nginx.conf",
                 "%s does not include %sf, which has our modules' directives",
                 config->nginx.conf, include);
    verdicts_advise(check->verdicts,
                    "put `include %s[f];` into its http block, before that of %s, as our "
                    "own nginx.conf does",
                    include, config->nginx.site_conf);
    return false;
}

/* ---- templates ---- */

static bool check_templates(struct check *check, const struct nginx_facts *facts)
{
    static const enum nginx_level levels[] = {NGINX_HTTPS, NGINX_HTTPS_REDUCED,
                                              NGINX_HTTP_ONLY};
    bool good = true;

    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        BUF_SCOPED site = {0};
        BUF_SCOPED include = {0};
        struct err err = ERR_INIT;

        if (render(check->config, facts, levels[i], &site, &include, &err) == 0)
            continue;
        verdicts_add(check->verdicts, VERDICT_FAILED, "templates", "%s: %s",
                     nginx_level_name(levels[i]), err.message);
        good = good && levels[i] != NGINX_HTTPS;
    }
    if (good)
        verdicts_add(check->verdicts, VERDICT_OK, "templates",
                     "those in %s can be rendered", check->config->nginx.templates);
    return good;
}

/* ---- ports ---- */

static bool make_address(const char *text, unsigned port, struct sockaddr_storage *ret,
                         socklen_t *ret_len)
{
    struct sockaddr_in *ip4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *ip6 = (struct sockaddr_in6 *)ret;

    memset(ret, 0, sizeof *ret);
    if (inet_pton(AF_INET, text, &ip4->sin_addr) == 1) {
        ip4->sin_family = AF_INET;
        ip4->sin_port = htons((uint16_t)port);
        *ret_len = sizeof *ip4;
        return true;
    }
    ip6->sin6_family = AF_INET6;
    ip6->sin6_port = htons((uint16_t)port);
    *ret_len = sizeof *ip6;
    return inet_pton(AF_INET6, text, &ip6->sin6_addr) == 1;
}

/* 0, or the errno of a bind(2) that nginx would make. Nothing listens. */
static int try_port(const char *text, unsigned port)
{
    static const int on = 1;
    struct sockaddr_storage address;
    socklen_t len;
    int failure = 0;
    int fd;

    if (!make_address(text, port, &address, &len))
        return EINVAL;
    fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address.ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, len) < 0)
        failure = errno;
    close(fd);
    return failure;
}

/* Whether it is free. */
static bool check_port(struct check *check, const char *address, unsigned port)
{
    int failure = try_port(address, port);

    if (failure == 0)
        return true;
    verdicts_add(check->verdicts, failure == EACCES ? VERDICT_WARNING : VERDICT_FAILED,
                 "ports", "%s, port %u: %s", address, port, strerror(failure));
    if (failure == EADDRINUSE)
        verdicts_advise(check->verdicts,
                        "another program has it, and nginx could not start: `ss -ltnp` "
                        "shows which");
    else if (failure == EACCES)
        verdicts_advise(check->verdicts, "only root may tell");
    else
        verdicts_advise(check->verdicts, "nginx.address has to be one of this machine");
    return false;
}

static void check_ports(struct check *check, const struct nginx_facts *facts)
{
    const struct config *config = check->config;
    const unsigned ports[] = {config->nginx.http_port, config->nginx.https_port};
    pid_t master = nginx_master(config);
    bool free_ports = true;

    if (master != 0) {
        verdicts_add(check->verdicts, VERDICT_OK, "ports", "nginx runs (process %d)",
                     (int)master);
        return;
    }
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        const char *address = config->nginx.address;

        free_ports &= check_port(check, address == NULL ? "0.0.0.0" : address, ports[i]);
        if (address == NULL && facts->ipv6)
            free_ports &= check_port(check, "::", ports[i]);
    }
    if (free_ports)
        verdicts_add(check->verdicts, VERDICT_OK, "ports",
                     "%u and %u are free, nginx does not run", ports[0], ports[1]);
}

/* ---- all of it ---- */

static void check_upstreams(struct check *check, const struct upstreams *upstreams)
{
    for (size_t i = 0; i < upstreams->count; i++) {
        const struct upstream *upstream = &upstreams->items[i];

        if (upstream->count > 0)
            continue;
        verdicts_add(check->verdicts, VERDICT_WARNING, "backends",
                     "%s, port %u: the name does not resolve", upstream->host,
                     upstream->port);
        verdicts_advise(check->verdicts, "its paths answer 502 until it does");
    }
}

void check_nginx(struct check *check)
{
    struct machine *machine = malloc(sizeof *machine);
    struct err err = ERR_INIT;

    if (machine == NULL ||
        machine_ask(machine, check->config,
                    check->offline ? MACHINE_OFFLINE : MACHINE_ALL, &err) < 0) {
        verdicts_add(check->verdicts, VERDICT_FAILED, "templates", "%s",
                     machine == NULL ? "out of memory" : err.message);
        free(machine);
        return;
    }
    if (!check->offline)
        check_upstreams(check, machine->facts.upstreams);
    if (check_templates(check, &machine->facts)) {
        if (machine->version_err.kind == ERR_NONE && check_include(check))
            check_test(check, &machine->facts);
        else if (machine->version_err.kind != ERR_NONE)
            verdicts_add(check->verdicts, VERDICT_FAILED, "nginx -t",
                         "nginx cannot be run (nginx.path): %s",
                         machine->version_err.message);
    }
    check_ports(check, &machine->facts);
    if (machine_close(machine))
        free(machine);
    else
        check->hangs = true; /* the loop's threads still know it */
}
