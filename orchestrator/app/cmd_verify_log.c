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

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: cert-manager verify-log [--log FILE | --agent ENDPOINT]\n"
    "                               [--cert FILE | --host NAME[:PORT]]\n"
    "                               [--rtmr3 HEX] [--json]\n"
    "\n"
    "Checks the TEE's event log as an attesting client does: the digest of every\n"
    "runtime event, RTMR3 replayed from them, and whether the last event \"New TLS\n"
    "Certificate\" names a certificate. Every fault is told in one line.\n"
    "\n"
    "  --log FILE          the log: an array of events, the guest agent's Info, its\n"
    "                      tcb_info, or an answer of GetQuote; at most 16 MiB\n"
    "  --agent ENDPOINT    without FILE: the agent whose Info has the log, a unix\n"
    "                      socket or an http:// URL; else that of\n"
    "                      $DSTACK_SIMULATOR_ENDPOINT, else dstack's usual socket\n"
    "  --cert FILE         the certificate: PEM, leaf first\n"
    "  --host NAME[:PORT]  the certificate that this host presents (port 443); an\n"
    "                      IPv6 address with a port stands in brackets\n"
    "  --rtmr3 HEX         the register's value, 96 hex digits, from a verified\n"
    "                      quote; else RTMR3 is compared with what the agent shows\n"
    "  --json              one JSON object instead of lines for people\n"
    "\n"
    "exit status: 0 the log holds and names the certificate, if one was given;\n"
    "1 no verdict: a file, the agent or the host cannot be read, or what they gave\n"
    "is no event log; 2 wrong use; 3 the log or the certificate does not verify\n"
    "\n"
    "examples:\n"
    "  cert-manager verify-log --host app.example.com\n"
    "  curl -s --unix-socket /var/run/dstack.sock -X POST -d '{}' \\\n"
    "    -H 'Content-Type: application/json' http://localhost/Info >info.json\n"
    "  cert-manager verify-log --log info.json --cert cert.pem --rtmr3 4c70… --json\n";

enum {
    EXIT_WRONG_USE = 2,
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
    bool help;

    unsigned char rtmr3[EVENT_DIGEST_BYTES];
    char name[NAME_SIZE]; /* of the host, without brackets */
    unsigned port;
};

/* ---- the command line ---- */

__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...)
{
    char message[ERR_MESSAGE_MAX];
    char line[2 * ERR_MESSAGE_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    text_escape(line, sizeof line, message, strlen(message));
    fprintf(stderr, "cert-manager verify-log: %s\n", line);
}

static int wrong_use(const char *option, const char *problem)
{
    complain("%s: %s (verify-log --help explains)", option, problem);
    return EXIT_WRONG_USE;
}

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

static int read_options(int argc, char **argv, struct arguments *ret)
{
    static const struct option options[] = {
        {"log", required_argument, NULL, 'l'},   {"agent", required_argument, NULL, 'a'},
        {"cert", required_argument, NULL, 'c'},  {"host", required_argument, NULL, 'H'},
        {"rtmr3", required_argument, NULL, 'r'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},        {0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
        switch (option) {
        case 'l':
            ret->log = optarg;
            break;
        case 'a':
            ret->agent = optarg;
            break;
        case 'c':
            ret->cert = optarg;
            break;
        case 'H':
            ret->host = optarg;
            break;
        case 'r':
            ret->rtmr3_hex = optarg;
            break;
        case 'j':
            ret->json = true;
            break;
        case 'h':
            ret->help = true;
            return 0;
        default:
            fputs(help, stderr);
            return EXIT_WRONG_USE;
        }
    }
    return optind == argc ? 0 : wrong_use(argv[optind], "no such argument");
}

/* 0, or the exit code. */
static int parse(int argc, char **argv, struct arguments *ret)
{
    int code = read_options(argc, argv, ret);

    if (code != 0 || ret->help)
        return code;
    if (ret->log != NULL && ret->agent != NULL)
        return wrong_use("--agent", "the log is that of a file or of an agent, not both");
    if (ret->cert != NULL && ret->host != NULL)
        return wrong_use("--host",
                         "the certificate is that of a file or of a host, not "
                         "both");
    if (ret->host != NULL && !parse_host(ret))
        return wrong_use("--host",
                         "expected NAME or NAME:PORT, as in app.example.com:443");
    if (ret->rtmr3_hex != NULL &&
        text_unhex(ret->rtmr3, sizeof ret->rtmr3, ret->rtmr3_hex) < 0)
        return wrong_use("--rtmr3", "expected 96 hex digits");
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

    if (http_setup(err) < 0)
        return -1;
    if (uv_loop_init(&s->loop) != 0)
        return err_set(err, ERR_SYS, "cannot create the event loop");
    s->http = http_new(&s->loop, err);
    if (s->http == NULL) {
        uv_loop_close(&s->loop);
        return -1;
    }
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

/* Only a report that was written whole counts. */
static int print(const struct verify_report *report, bool json)
{
    if (json)
        verify_report_print_json(report);
    else
        verify_report_print(report);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        complain("cannot write to standard output");
        return EXIT_FAILURE;
    }
    return report->verdict.fault_count == 0 ? EXIT_SUCCESS : EXIT_NOT_VERIFIED;
}

int cmd_verify_log(int argc, char **argv)
{
    struct arguments arguments = {0};
    struct session *session = NULL;
    struct verify_report *report = NULL;
    struct err err = ERR_INIT;
    int code = parse(argc, argv, &arguments);

    if (arguments.help)
        fputs(help, stdout);
    if (code != 0 || arguments.help)
        return code;
    setup_harden();
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    session = calloc(1, sizeof *session);
    report = calloc(1, sizeof *report);
    if (session == NULL || report == NULL) {
        complain("out of memory");
        code = EXIT_FAILURE;
    } else if (judge(&arguments, session, report, &err) < 0) {
        complain("%s", err.message);
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
