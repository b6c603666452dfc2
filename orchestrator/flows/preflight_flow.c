#include "flows/preflight_flow.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static struct preflight_finding *finding(struct preflight_flow *flow,
                                         enum preflight_check check)
{
    return &flow->found.findings[check];
}

static struct preflight_file file_of(const struct preflight_flow *flow)
{
    return (struct preflight_file){.name = flow->probe.name, .text = flow->probe.text};
}

/* ---- ourselves ---- */

static int begin_machine(void *owner, struct err *err)
{
    struct preflight_flow *flow = owner;
    struct err why = ERR_INIT;
    int failed = store_check_writable(flow->request.store, &why);

    (void)err;
    preflight_judge_clock(finding(flow, PREFLIGHT_CLOCK), (int64_t)time(NULL));
    preflight_judge_disk(finding(flow, PREFLIGHT_DISK), failed == 0 ? NULL : &why);
    return SEQ_READY;
}

/* ---- the domain ---- */

static void on_lookup_done(void *owner, const struct err *err)
{
    struct preflight_flow *flow = owner;
    unsigned tries = flow->request.resolve_tries + 1;
    char addresses[PREFLIGHT_TEXT_SIZE];

    lookup_list(&flow->lookup, addresses, sizeof addresses);
    if (err != NULL)
        flow->lookup.count = 0;
    preflight_judge_dns(finding(flow, PREFLIGHT_DNS), err, addresses,
                        tries >= flow->request.config->acme.resolve_max_tries);
    seq_resume(&flow->seq, NULL);
}

static int begin_resolve(void *owner, struct err *err)
{
    struct preflight_flow *flow = owner;

    (void)err;
    flow->lookup.count = 0;
    if (flow->request.config->acme.resolve_max_tries == 0) {
        preflight_skip(finding(flow, PREFLIGHT_DNS), "acme.resolve_max_tries is 0");
        return SEQ_READY;
    }
    lookup_start(&flow->lookup, flow->request.loop, flow->request.config->domain,
                 on_lookup_done, flow);
    return SEQ_WAIT;
}

static int finish_resolve(void *owner, struct err *err)
{
    struct preflight_flow *flow = owner;
    bool waits = finding(flow, PREFLIGHT_DNS)->verdict == PREFLIGHT_FAILED;

    (void)err;
    return waits && flow->request.resolve_tries > 0 ? seq_go_to(&flow->seq, "judge")
                                                    : SEQ_NEXT;
}

static void abort_resolve(void *owner)
{
    struct preflight_flow *flow = owner;

    lookup_cancel(&flow->lookup);
}

/* ---- nginx ---- */

static void judge_port_80(struct preflight_flow *flow, const struct err *why)
{
    const struct preflight_file file = file_of(flow);
    char location[PREFLIGHT_TEXT_SIZE] = "";
    const struct preflight_answer answer = {
        .why = why,
        .status = flow->local.call.status,
        .body = buf_str(&flow->local.call.body),
        .location = location,
    };

    if (why == NULL &&
        http_header(&flow->local.call, "Location", location, sizeof location) == NULL)
        location[0] = '\0';
    preflight_judge_port_80(finding(flow, PREFLIGHT_PORT_80), &answer, &file,
                            flow->request.config->nginx.webroot);
}

static void on_nginx_done(void *owner, const struct err *err)
{
    struct preflight_flow *flow = owner;

    if (err != NULL)
        judge_port_80(flow, err);
    flow->nginx_runs = err == NULL;
    seq_resume(&flow->seq, NULL);
}

static int begin_nginx(void *owner, struct err *err)
{
    struct preflight_flow *flow = owner;

    (void)err;
    nginx_wait_start(&flow->nginx, flow->request.loop, flow->request.config,
                     on_nginx_done, flow);
    return SEQ_WAIT;
}

static int finish_nginx(void *owner, struct err *err)
{
    struct preflight_flow *flow = owner;

    (void)err;
    return flow->nginx_runs ? SEQ_NEXT : seq_go_to(&flow->seq, "ask around");
}

static void abort_nginx(void *owner)
{
    struct preflight_flow *flow = owner;

    nginx_wait_cancel(&flow->nginx);
}

static int begin_write(void *owner, struct err *err)
{
    struct preflight_flow *flow = owner;
    struct err why = ERR_INIT;

    (void)err;
    if (challenge_probe_write(&flow->probe, flow->request.config, &why) < 0)
        preflight_judge_webroot(finding(flow, PREFLIGHT_PORT_80), &why);
    return SEQ_READY;
}

static bool has_file(const struct preflight_flow *flow)
{
    return flow->probe.path[0] != '\0';
}

static int finish_write(void *owner, struct err *err)
{
    struct preflight_flow *flow = owner;

    (void)err;
    return has_file(flow) ? SEQ_NEXT : seq_go_to(&flow->seq, "ask around");
}

static void on_local_done(void *owner, const struct err *err)
{
    struct preflight_flow *flow = owner;

    judge_port_80(flow, err);
    http_call_done(&flow->local.call);
    seq_resume(&flow->seq, NULL);
}

static int begin_fetch(void *owner, struct err *err)
{
    struct preflight_flow *flow = owner;

    (void)err;
    challenge_fetch_start(&flow->local, flow->request.http, flow->request.config, NULL,
                          flow->probe.name, on_local_done, flow);
    return SEQ_WAIT;
}

static void abort_fetch(void *owner)
{
    struct preflight_flow *flow = owner;

    challenge_fetch_cancel(&flow->local);
}

/* ---- what waits for others, all at the same time ---- */

static void end_one(struct preflight_flow *flow)
{
    if (--flow->pending == 0)
        seq_resume(&flow->seq, NULL);
}

static void on_remote_done(void *owner, const struct err *err)
{
    struct preflight_fetch *remote = owner;
    struct preflight_flow *flow = remote->flow;
    struct http_call *call = &remote->fetch.call;
    const struct preflight_file file = file_of(flow);
    char location[PREFLIGHT_TEXT_SIZE] = "";
    const struct preflight_answer answer = {.why = err,
                                            .status = call->status,
                                            .body = buf_str(&call->body),
                                            .location = location};

    if (err == NULL && http_header(call, "Location", location, sizeof location) == NULL)
        location[0] = '\0';
    preflight_judge_address(finding(flow, PREFLIGHT_ADDRESS), remote->address, &answer,
                            &file);
    http_call_done(call);
    end_one(flow);
}

static void start_remotes(struct preflight_flow *flow)
{
    struct preflight_finding *found = finding(flow, PREFLIGHT_ADDRESS);

    *found = (struct preflight_finding){.verdict = PREFLIGHT_UNKNOWN};
    flow->remotes = 0;
    if (!has_file(flow) || flow->lookup.count == 0) {
        preflight_skip(found, has_file(flow) ? "the domain's addresses are not known"
                                             : "there is no file to be fetched");
        return;
    }
    while (flow->remotes < flow->lookup.count &&
           flow->remotes < PREFLIGHT_ADDRESSES_MAX) {
        struct preflight_fetch *remote = &flow->remote[flow->remotes];

        remote->flow = flow;
        remote->address = flow->lookup.addresses[flow->remotes++];
        flow->pending++;
        challenge_fetch_start(&remote->fetch, flow->request.http, flow->request.config,
                              remote->address, flow->probe.name, on_remote_done, remote);
    }
}

static void judge_certbot(struct preflight_flow *flow)
{
    const struct certbot_version *certbot = flow->request.certbot;

    preflight_judge_certbot(finding(flow, PREFLIGHT_CERTBOT),
                            certbot->why.kind == ERR_NONE ? NULL : &certbot->why,
                            flow->request.config->certbot.path, certbot->text);
}

static void on_certbot_done(void *owner, const struct err *err)
{
    struct preflight_flow *flow = owner;

    (void)err;
    flow->asks_certbot = false;
    judge_certbot(flow);
    end_one(flow);
}

/* Right after the start it is being asked already, and an order need not wait for that. */
static void start_certbot(struct preflight_flow *flow)
{
    struct certbot_version *certbot = flow->request.certbot;

    if (certbot_version_is_asked(certbot)) {
        preflight_skip(finding(flow, PREFLIGHT_CERTBOT), "it is being asked");
        return;
    }
    if (certbot_version_holds(certbot)) {
        judge_certbot(flow);
        return;
    }
    flow->asks_certbot = true;
    flow->pending++;
    certbot_version_start(certbot, flow->request.loop, flow->request.config,
                          on_certbot_done, flow);
}

static void on_caa_done(void *owner, const struct err *err)
{
    struct preflight_flow *flow = owner;

    if (err != NULL)
        flow->caa_err = *err;
    end_one(flow);
}

/* A CA that is not reached is no finding of its own: the order will tell. */
static void on_directory_done(void *owner, const struct err *err)
{
    struct preflight_flow *flow = owner;

    if (err == NULL)
        flow->issuer = flow->directory.caa_identity;
    end_one(flow);
}

static void start_caa(struct preflight_flow *flow)
{
    const struct caa_lookup_request request = {
        .loop = flow->request.loop,
        .domain = flow->request.config->domain,
    };
    const struct acme_directory_request directory = {
        .http = flow->request.http,
        .authority = flow->request.authority,
        .timeout_ms = CAA_LOOKUP_MS,
    };

    flow->asks_caa = flow->request.config->acme.check_caa;
    flow->issuer = authority_caa_identity(flow->request.authority);
    if (flow->issuer == NULL)
        flow->issuer = flow->request.account->caa_identity;
    flow->asks_directory = flow->asks_caa && flow->issuer[0] == '\0';
    if (flow->asks_caa) {
        flow->pending++;
        caa_lookup_start(&flow->caa, &request, on_caa_done, flow);
    }
    if (flow->asks_directory) {
        flow->pending++;
        acme_directory_start(&flow->directory, &directory, on_directory_done, flow);
    }
}

static void judge_caa(struct preflight_flow *flow)
{
    const struct preflight_caa caa = {
        .why = flow->caa_err.kind == ERR_NONE ? NULL : &flow->caa_err,
        .records = &flow->caa.records,
        .found_at = flow->caa.found_at,
        .request = {.issuers = &flow->issuer,
                    .issuer_count = flow->issuer[0] == '\0' ? 0 : 1,
                    .account_url = flow->request.account->url,
                    .method = "http-01"},
    };

    if (flow->asks_caa)
        preflight_judge_caa(finding(flow, PREFLIGHT_CAA), &caa);
    else
        preflight_skip(finding(flow, PREFLIGHT_CAA), "acme.check_caa is false");
}

static int begin_ask_around(void *owner, struct err *err)
{
    struct preflight_flow *flow = owner;

    (void)err;
    flow->pending = 0;
    start_remotes(flow);
    start_certbot(flow);
    start_caa(flow);
    return flow->pending == 0 ? SEQ_READY : SEQ_WAIT;
}

static int finish_ask_around(void *owner, struct err *err)
{
    (void)err;
    judge_caa(owner);
    return SEQ_NEXT;
}

static void abort_ask_around(void *owner)
{
    struct preflight_flow *flow = owner;

    for (size_t i = 0; i < flow->remotes; i++)
        challenge_fetch_cancel(&flow->remote[i].fetch);
    if (flow->asks_certbot)
        certbot_version_cancel(flow->request.certbot);
    if (flow->asks_caa)
        caa_lookup_cancel(&flow->caa);
    if (flow->asks_directory)
        acme_directory_cancel(&flow->directory);
}

/* ---- the end ---- */

static int begin_remove(void *owner, struct err *err)
{
    struct preflight_flow *flow = owner;

    (void)err;
    challenge_probe_remove(&flow->probe);
    return SEQ_READY;
}

static int begin_judge(void *owner, struct err *err)
{
    const struct preflight_flow *flow = owner;

    return preflight_result(&flow->found, err) < 0 ? -1 : SEQ_READY;
}

/* All that waits has a time limit of its own. */
const struct seq_step preflight_steps[] = {
    {"check machine", begin_machine, NULL, NULL, 0},
    {"resolve domain", begin_resolve, finish_resolve, abort_resolve, 0},
    {"wait for nginx", begin_nginx, finish_nginx, abort_nginx, 0},
    {"write file", begin_write, finish_write, NULL, 0},
    {"fetch file", begin_fetch, NULL, abort_fetch, 0},
    {"ask around", begin_ask_around, finish_ask_around, abort_ask_around, 0},
    {"remove file", begin_remove, NULL, NULL, 0},
    {"judge", begin_judge, NULL, NULL, 0},
    {0},
};

static void on_steps_done(void *owner, const struct err *err)
{
    struct preflight_flow *flow = owner;

    challenge_probe_remove(&flow->probe);
    flow->done(flow->owner, err);
}

void preflight_flow_start(struct preflight_flow *flow,
                          const struct preflight_request *request, done_fn done,
                          void *owner)
{
    *flow = (struct preflight_flow){
        .found = *request->before, .request = *request, .done = done, .owner = owner};
    seq_start(&flow->seq, request->loop, "pre-flight", preflight_steps, flow,
              on_steps_done, flow);
}

void preflight_flow_cancel(struct preflight_flow *flow)
{
    seq_cancel(&flow->seq);
}
