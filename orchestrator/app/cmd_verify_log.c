#include "adapters/dstack.h"
#include "adapters/tls_probe.h"
#include "app/commands.h"
#include "app/setup.h"
#include "app/verify_report.h"
#include "base/fs.h"
#include "base/text.h"
#include "domain/chain.h"
#include "runtime/lookup.h"
#include "runtime/seq.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXIT_NOT_VERIFIED = 3,
    CALL_TIMEOUT_MS = 10000,
    HANDSHAKE_TIMEOUT_MS = 10000,
    HTTPS_PORT = 443,
    NAME_SIZE = 256,
};

struct arguments {
    const char *log;
    const char *agent;
    const char *cert;
    const char *host;
    const char *rtmr3_hex;
    bool json;

    unsigned char rtmr3[EVENT_DIGEST_BYTES];
    char name[NAME_SIZE]; /* of the host, without brackets */
    unsigned port;
};

/* ---- the command line ---- */

static bool parse_port(const char *text, unsigned *ret)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 5 || text[digits] != '\0')
        return false;
    *ret = (unsigned)strtoul(text, NULL, 10);
    return *ret >= 1 && *ret <= 65535;
}

/* NAME, NAME:PORT, [IPV6], [IPV6]:PORT, or an IPv6 address without brackets and port. */
static bool parse_host(struct arguments *arguments)
{
    const char *name = arguments->host;
    const char *end = strchr(name, ':');
    const char *port = end;

    arguments->port = HTTPS_PORT;
    if (name[0] == '[') {
        name++;
        end = strchr(name, ']');
        if (end == NULL)
            return false;
        port = end + 1;
    } else if (end == NULL || strchr(end + 1, ':') != NULL) {
        end = name + strlen(name);
        port = end;
    }
    if (end == name || end - name >= NAME_SIZE)
        return false;
    memcpy(arguments->name, name, (size_t)(end - name));
    arguments->name[end - name] = '\0';
    return port[0] == '\0' || (port[0] == ':' && parse_port(port + 1, &arguments->port));
}

/* 0, or the exit code. */
static int read_line(const struct command_line *line, struct arguments *ret)
{
    *ret = (struct arguments){
        .log = command_value(line, "log"),
        .agent = command_value(line, "agent"),
        .cert = command_value(line, "cert"),
        .host = command_value(line, "host"),
        .rtmr3_hex = command_value(line, "rtmr3"),
        .json = command_has(line, "json"),
    };
    if (ret->log != NULL && ret->agent != NULL)
        return command_wrong_use(
            line, "--agent: the log is that of a file or of an agent, not both");
    if (ret->cert != NULL && ret->host != NULL)
        return command_wrong_use(
            line, "--host: the certificate is that of a file or of a host, not both");
    if (ret->host != NULL && !parse_host(ret))
        return command_wrong_use(
            line, "--host: expected NAME or NAME:PORT, as in app.example.com:443");
    if (ret->rtmr3_hex != NULL &&
        text_unhex(ret->rtmr3, sizeof ret->rtmr3, ret->rtmr3_hex) < 0)
        return command_wrong_use(line, "--rtmr3: expected 96 hex digits");
    return 0;
}

/* ---- files ---- */

static int read_log(const char *path, struct event_log **ret, struct err *err)
{
    BUF_SCOPED text = {0};

    if (fs_read(path, EVENT_LOG_MAX_BYTES, &text, err) < 0)
        return -1;
    if (event_log_parse(buf_str(&text), text.len, ret, err) < 0)
        return err_wrap(err, "%s", path);
    return 0;
}

static int read_certificate(const char *path, char ret_sha256[65], struct err *err)
{
    BUF_SCOPED pem = {0};
    struct chain *chain = NULL;

    if (fs_read(path, CHAIN_PEM_MAX_BYTES, &pem, err) < 0)
        return -1;
    if (chain_parse(buf_str(&pem), pem.len, &chain, err) < 0)
        return err_wrap(err, "%s", path);
    memcpy(ret_sha256, chain_leaf(chain)->sha256, 65);
    chain_free(chain);
    return 0;
}

/* ---- the agent and the host ---- */

struct session {
    const struct arguments *arguments;
    uv_loop_t loop;
    struct http *http;
    struct dstack agent;
    struct dstack_call call;
    struct lookup lookup;
    struct tls_probe probe;
    struct seq seq;
    struct err err; /* kind ERR_NONE: it went well */

    struct event_log *log;
    char log_source[DSTACK_URL_SIZE];
    char leaf_sha256[65];
};

static int begin_info(void *owner, struct err *err)
{
    struct session *s = owner;

    (void)err;
    if (s->log != NULL)
        return SEQ_READY;
    dstack_info(&s->call, &s->agent, seq_resume, &s->seq);
    return SEQ_WAIT;
}

static int finish_info(void *owner, struct err *err)
{
    struct session *s = owner;
    const char *tcb_info = s->call.tcb_info;

    if (s->log != NULL)
        return SEQ_NEXT;
    snprintf(s->log_source, sizeof s->log_source, "%s", s->call.endpoint);
    if (event_log_parse(tcb_info, strlen(tcb_info), &s->log, err) < 0)
        return err_wrap(err, "guest agent %s: tcb_info", s->call.endpoint);
    return SEQ_NEXT;
}

static void abort_info(void *owner)
{
    struct session *s = owner;

    dstack_cancel(&s->call);
}

static bool is_address(const char *name)
{
    struct sockaddr_in ip4;
    struct sockaddr_in6 ip6;

    return uv_ip4_addr(name, 0, &ip4) == 0 || uv_ip6_addr(name, 0, &ip6) == 0;
}

static int begin_lookup(void *owner, struct err *err)
{
    struct session *s = owner;
    const char *name = s->arguments->name;

    (void)err;
    if (s->arguments->host == NULL || is_address(name))
        return SEQ_READY;
    lookup_start(&s->lookup, &s->loop, name, seq_resume, &s->seq);
    return SEQ_WAIT;
}

static void abort_lookup(void *owner)
{
    struct session *s = owner;

    lookup_cancel(&s->lookup);
}

static int begin_handshake(void *owner, struct err *err)
{
    struct session *s = owner;
    const char *name = s->arguments->name;
    bool resolved = !is_address(name);
    const struct tls_probe_target target = {
        .address = resolved ? s->lookup.addresses[0] : name,
        .port = s->arguments->port,
        .server_name =
            resolved ? name : "", /* RFC 6066 §3: an address is no server name */
    };

    (void)err;
    if (s->arguments->host == NULL)
        return SEQ_READY;
    tls_probe_start(&s->probe, &s->loop, &target, HANDSHAKE_TIMEOUT_MS, seq_resume,
                    &s->seq);
    return SEQ_WAIT;
}

static int finish_handshake(void *owner, struct err *err)
{
    struct session *s = owner;

    (void)err;
    if (s->arguments->host != NULL)
        memcpy(s->leaf_sha256, s->probe.leaf_sha256, sizeof s->leaf_sha256);
    return SEQ_NEXT;
}

static void abort_handshake(void *owner)
{
    struct session *s = owner;

    tls_probe_cancel(&s->probe);
}

/* Each has a time limit of its own; that of a look-up is the resolver's. */
static const struct seq_step steps[] = {
    {"read event log", begin_info, finish_info, abort_info, 0},
    {"resolve host", begin_lookup, NULL, abort_lookup, 0},
    {"TLS handshake", begin_handshake, finish_handshake, abort_handshake, 0},
    {0},
};

static void on_session_done(void *owner, const struct err *err)
{
    struct session *s = owner;

    if (err != NULL)
        s->err = *err;
    dstack_call_done(&s->call);
    http_close(s->http, NULL, NULL);
}

static int run_session(struct session *s, struct err *err)
{
    const char *variable = getenv("DSTACK_SIMULATOR_ENDPOINT");

    s->http = http_new_loop(&s->loop, err);
    if (s->http == NULL)
        return -1;
    s->agent = (struct dstack){.http = s->http, .timeout_ms = CALL_TIMEOUT_MS};
    if (s->arguments->agent != NULL)
        s->agent.configured = s->arguments->agent;
    else if (variable != NULL && variable[0] != '\0')
        s->agent.configured = variable;
    seq_start(&s->seq, &s->loop, "verify-log", steps, s, on_session_done, s);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    uv_loop_close(&s->loop);
    if (s->err.kind == ERR_NONE)
        return 0;
    *err = s->err;
    return -1;
}

/* ---- the command ---- */

static int gather(const struct arguments *arguments, struct session *s, struct err *err)
{
    s->arguments = arguments;
    if (arguments->log != NULL) {
        snprintf(s->log_source, sizeof s->log_source, "%s", arguments->log);
        if (read_log(arguments->log, &s->log, err) < 0)
            return -1;
    }
    if (arguments->cert != NULL &&
        read_certificate(arguments->cert, s->leaf_sha256, err) < 0)
        return -1;
    if (arguments->log != NULL && arguments->host == NULL)
        return 0;
    return run_session(s, err);
}

static int judge(const struct arguments *arguments, struct session *s,
                 struct verify_report *report, struct err *err)
{
    if (gather(arguments, s, err) < 0)
        return -1;
    report->log_source = s->log_source;
    report->certificate_source =
        arguments->cert != NULL ? arguments->cert : arguments->host;
    report->question.rtmr3 = arguments->rtmr3_hex != NULL ? arguments->rtmr3 : NULL;
    report->question.leaf_sha256 =
        report->certificate_source != NULL ? s->leaf_sha256 : NULL;
    return event_verdict(&report->verdict, s->log, &report->question, err);
}

static int print(const struct verify_report *report, bool json)
{
    if (json)
        verify_report_print_json(report);
    else
        verify_report_print(report);
    return report->verdict.fault_count == 0 ? EXIT_SUCCESS : EXIT_NOT_VERIFIED;
}

static int run(const struct command_line *line)
{
    struct arguments arguments;
    struct session *session = NULL;
    struct verify_report *report = NULL;
    struct err err = ERR_INIT;
    int code = read_line(line, &arguments);

    if (code != 0)
        return code;
    setup_harden();
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    session = calloc(1, sizeof *session);
    report = calloc(1, sizeof *report);
    if (session == NULL || report == NULL) {
        command_complain(line, "out of memory");
        code = EXIT_FAILURE;
    } else if (judge(&arguments, session, report, &err) < 0) {
        command_complain(line, "%s", err.message);
        code = EXIT_FAILURE;
    } else {
        code = print(report, arguments.json);
    }
    if (session != NULL)
        event_log_free(session->log);
    free(session);
    free(report);
    return code;
}

static const struct command_option options[] = {
    {"log", "FILE",
     "the log: an array of events, the guest agent's Info, its tcb_info, or an answer of "
     "GetQuote; at most 16 MiB",
     NULL},
    {"agent", "ENDPOINT",
     "without --log: the agent whose Info has the log, a unix socket or an http:// URL; "
     "else that of $DSTACK_SIMULATOR_ENDPOINT, else dstack's usual socket",
     NULL},
    {"cert", "FILE", "the certificate: PEM, leaf first", NULL},
    {"host", "NAME[:PORT]",
     "the certificate that this host presents (port 443); an IPv6 address with a port "
     "stands in brackets",
     ""},
    {"rtmr3", "HEX",
     "the register's value, 96 hex digits, from a verified quote; else RTMR3 is compared "
     "with what the agent shows",
     ""},
    {"json", NULL, "one JSON object instead of lines for people", NULL},
    {0},
};

static const char *const examples[] = {
    "cert-manager verify-log --host app.example.com",
    "curl -s --unix-socket /var/run/dstack.sock -X POST -d '{}' \\",
    "  -H 'Content-Type: application/json' http://localhost/Info >info.json",
    "cert-manager verify-log --log info.json --cert cert.pem --rtmr3 4c70… --json",
    NULL,
};

const struct command cmd_verify_log = {
    .name = "verify-log",
    .summary = "say whether the event log holds, and names a certificate",
    .description =
        "Checks the TEE's event log as an attesting client does: the digest of every "
        "runtime event, RTMR3 replayed from them, and whether the last event \"New TLS "
        "Certificate\" names a certificate. Every fault is told in one line.",
    .options = options,
    .exit_status =
        "0 the log holds and names the certificate, if one was given\n"
        "1 no verdict: a file, the agent or the host cannot be read, or what they gave "
        "is no event log\n"
        "2 wrong use\n"
        "3 the log or the certificate does not verify",
    .examples = examples,
    .run = run,
};
