/* Whether this container does what it is for: for health checks and restart policies. */
#include "adapters/tls_probe.h"
#include "app/commands.h"
#include "app/control_client.h"
#include "app/inquiry.h"
#include "app/setup.h"
#include "base/log.h"
#include "base/text.h"
#include "domain/health.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Whoever asks gives up after some seconds, too, and then nobody learns why. */
enum {
    PATIENCE_MS = 3 * 1000,
    HTTP_BODY_MAX_BYTES = 64 * 1024,
    ANSWER_MAX_BYTES = 16 * 1024,
    URL_SIZE = 128,
    HOST_HEADER_SIZE = 300
};

/* ---- the ports of nginx ---- */

static int shake_hands(const struct config *config, struct buf *ret_chain,
                       struct err *err)
{
    struct tls_probe_target target = tls_probe_own_port(config);
    struct inquiry_end end = {0};
    struct inquiry inquiry;
    struct tls_probe probe;
    int failed;

    target.ret_chain = ret_chain;
    if (inquiry_open(&inquiry, config, err) < 0)
        return -1;
    tls_probe_start(&probe, &inquiry.loop, &target, PATIENCE_MS, inquiry_note, &end);
    failed = inquiry_wait(&inquiry, &end, err);
    inquiry_close(&inquiry);
    return failed == 0 ? 0 : err_wrap(err, "HTTPS does not answer");
}

/* By a handshake of our own, whatever anybody says. */
static int check_https(const struct config *config, struct health *ret, struct err *err)
{
    BUF_SCOPED pem = {.max = CHAIN_PEM_MAX_BYTES};
    struct chain *chain = NULL;
    int failed;

    if (shake_hands(config, &pem, err) < 0 ||
        chain_parse(pem.data, pem.len, &chain, err) < 0)
        return -1;
    memcpy(ret->sha256, chain_leaf(chain)->sha256, sizeof ret->sha256);
    failed = health_check_chain(chain, &config->domains, (int64_t)time(NULL), err);
    chain_free(chain);
    return failed;
}

/* What it answers does not matter: without a certificate it is 503. */
static int check_http(const struct config *config, struct err *err)
{
    const char *address =
        config->nginx.address == NULL ? "127.0.0.1" : config->nginx.address;
    bool v6 = strchr(address, ':') != NULL;
    char host[HOST_HEADER_SIZE];
    const char *const headers[] = {host, "Connection: close", NULL};
    char url[URL_SIZE];
    const struct http_request request = {
        .method = "HEAD",
        .url = url,
        .headers = headers,
        .max_body = HTTP_BODY_MAX_BYTES,
        .timeout_ms = PATIENCE_MS,
        .proxy_protocol = config->nginx.proxy_protocol,
    };
    struct inquiry_end end = {0};
    struct inquiry inquiry;
    struct http_call call;
    int failed;

    snprintf(host, sizeof host, "Host: %s", config->domain);
    snprintf(url, sizeof url, "http://%s%s%s:%u/", v6 ? "[" : "", address, v6 ? "]" : "",
             config->nginx.http_port);
    if (inquiry_open(&inquiry, config, err) < 0)
        return -1;
    http_start(&call, inquiry.http, &request, inquiry_note, &end);
    failed = inquiry_wait(&inquiry, &end, err);
    http_call_done(&call);
    inquiry_close(&inquiry);
    return failed == 0 ? 0 : err_wrap(err, "port 80 does not answer");
}

/* ---- the daemon ---- */

static int ask_daemon(const struct config *config, struct health *ret, struct err *err)
{
    const struct control_question question = {
        .method = "GET", .path = "/health", .timeout_ms = PATIENCE_MS};
    struct control_answer answer;
    int failed;

    if (control_ask(config, &question, &answer, err) < 0)
        return -1;
    failed = health_from_json(&answer.body, ret, err);
    control_answer_done(&answer);
    return failed;
}

/* ---- the three questions ---- */

/* The daemon knows more about why there is no HTTPS than a handshake shows. */
static int ask_whether_it_serves(const struct config *config, struct health *ret,
                                 struct err *err)
{
    struct health word;
    struct err ignored = ERR_INIT;

    if (check_https(config, ret, err) == 0)
        return 0;
    if (ask_daemon(config, &word, &ignored) == 0 && !word.healthy)
        return err_set(err, err->kind, "%s (the daemon: %s)", err->message, word.reason);
    return -1;
}

/* Of the leaf that is presented. */
static int compare(const struct health *word, struct health *ret, struct err *err)
{
    if (!word->healthy)
        return err_set(err, ERR_PEER, "%s", word->reason);
    if (strcmp(word->sha256, ret->sha256) != 0)
        return err_set(err, ERR_PEER, "HTTPS presents leaf %s, and %s was applied",
                       ret->sha256, word->sha256);
    ret->attested = word->attested;
    return word->attested ? 0 : err_set(err, ERR_PEER, "not attested: %s", word->reason);
}

/* A second time when something was just being changed between the two questions. */
static int ask_whether_it_is_attested(const struct config *config, struct health *ret,
                                      struct err *err)
{
    struct health word;
    struct err first = ERR_INIT;

    if (ask_whether_it_serves(config, ret, err) < 0 || ask_daemon(config, &word, err) < 0)
        return -1;
    if (compare(&word, ret, &first) == 0)
        return 0;
    return check_https(config, ret, err) < 0 || ask_daemon(config, &word, err) < 0
               ? -1
               : compare(&word, ret, err);
}

static int ask_whether_it_lives(const struct config *config, struct health *ret,
                                struct err *err)
{
    if (ask_daemon(config, ret, err) < 0)
        return -1;
    return check_http(config, err);
}

/* ---- the command ---- */

static void print(const struct health *health, bool json, bool live)
{
    BUF_SCOPED text = {.max = ANSWER_MAX_BYTES};
    struct err ignored = ERR_INIT;

    if (json && health_to_json(health, &text, &ignored) == 0)
        fputs(buf_str(&text), stdout);
    else if (!json && live)
        puts("live: the daemon and port 80 answer");
    else if (!json)
        printf("healthy: HTTPS serves leaf %s%s\n", health->sha256,
               health->attested ? ", attested" : "");
}

static int tell(const struct command_line *line, struct health *health,
                const struct err *failure)
{
    bool json = command_has(line, "json");

    health->healthy = failure == NULL;
    snprintf(health->reason, sizeof health->reason, "%s",
             failure == NULL ? "" : failure->message);
    if (json || health->healthy)
        print(health, json, command_has(line, "live"));
    else
        command_complain(line, "unhealthy: %s", health->reason);
    return health->healthy ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int judge(const struct command_line *line, const struct config *config)
{
    struct health health = {.healthy = false};
    struct err err = ERR_INIT;
    int failed = command_has(line, "live") ? ask_whether_it_lives(config, &health, &err)
                 : command_has(line, "attested")
                     ? ask_whether_it_is_attested(config, &health, &err)
                     : ask_whether_it_serves(config, &health, &err);

    return tell(line, &health, failed == 0 ? NULL : &err);
}

/*
 * A daemon goes on with the settings that it has while the file is being edited, and must not be
 * restarted for that: it could not start. Its ports are not known here, so its word has to do.
 */
static int judge_by_word(const struct command_line *line,
                         const struct config_report *report)
{
    struct config config;
    struct health word;
    struct err err = ERR_INIT;
    int failed = setup_reach(&config, line);

    failed = failed != 0 ? failed : ask_daemon(&config, &word, &err);
    config_done(&config);
    if (failed != 0) {
        for (size_t i = 0; i < report->error_count; i++)
            log_fatal("%s", report->errors[i]);
        return EXIT_CONFIG;
    }
    command_complain(line,
                     "the settings cannot be used, see `cert-manager check`; this "
                     "is the word of the daemon, which goes on with those of before");
    if (!command_has(line, "live") && !word.healthy)
        failed = err_set(&err, ERR_PEER, "%s", word.reason);
    else if (command_has(line, "attested") && !word.attested)
        failed = err_set(&err, ERR_PEER, "not attested: %s", word.reason);
    return tell(line, &word, failed == 0 ? NULL : &err);
}

static int run(const struct command_line *line)
{
    struct config_report report;
    struct config config = {0};
    int code;

    if (command_has(line, "live") && command_has(line, "attested"))
        return command_wrong_use(line,
                                 "--live and --attested ask different questions: "
                                 "give one of them");
    setup_harden();
    setup_log_to(STDERR_FILENO);
    code = setup_process();
    if (code != 0)
        return code;
    code = setup_read(&config, &report, line) == 0 ? judge(line, &config)
                                                   : judge_by_word(line, &report);
    config_report_done(&report);
    config_done(&config);
    return code;
}

static const struct command_option options[] = {
    SETUP_OPTIONS,
    {"attested", NULL,
     "the daemon, too, has to say that the leaf which is presented is healthy and "
     "attested",
     NULL},
    {"live", NULL,
     "instead of HTTPS: the daemon and port 80 answer, whatever they say. What restarts "
     "a container should ask for no more: a CA that is down is not mended by a restart",
     NULL},
    {"json", NULL, "one JSON object instead of a line for people", NULL},
    {0},
};

static const char *const examples[] = {
    "cert-manager health",
    "cert-manager health --attested",
    "HEALTHCHECK --interval=30s --start-period=3m CMD [\"cert-manager\", \"health\"]",
    NULL,
};

const struct command cmd_health = {
    .name = "health",
    .summary = "say whether HTTPS serves a valid certificate, for health checks",
    .description =
        "Makes a handshake with the port that nginx serves, and looks whether the leaf "
        "is valid now and for each of the names, attested or not. It needs no daemon for "
        "that, and ends within seconds, with one line. While the settings cannot be "
        "used, "
        "such as a file that is being edited, it is the word of the daemon that counts, "
        "which goes on with those of before.",
    .options = options,
    .exit_status =
        "0 healthy\n"
        "1 not, with the reason\n"
        "2 wrong use\n"
        "78 unusable setting, and no daemon answers",
    .examples = examples,
    .run = run,
};
