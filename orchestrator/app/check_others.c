#include "adapters/account_memory.h"
#include "adapters/acme_directory.h"
#include "adapters/caa_lookup.h"
#include "adapters/certbot_version.h"
#include "app/check.h"
#include "base/fs.h"
#include "base/text.h"
#include "domain/event_log.h"
#include "domain/jose.h"
#include "domain/measurement.h"
#include "domain/preflight.h"
#include "flows/keys_flow.h"
#include "runtime/lookup.h"
#include "runtime/timer.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CA_MS = 10 * 1000,
    LOOKUP_MS = 5 * 1000,
    EAB_KEY_MAX_BYTES = 4096,
    CERTBOT_WITH_PROFILES = 4,
};

/* What is asked of others; all of it at the same time. */
struct others {
    struct check *check;
    struct inquiry inquiry;

    struct keys_flow keys;
    struct inquiry_end keys_end;
    struct dstack_call info;
    struct inquiry_end info_end;

    struct certbot_version certbot;
    struct inquiry_end certbot_end;

    struct acme_directory directories[AUTHORITIES_MAX];
    struct inquiry_end directory_ends[AUTHORITIES_MAX];

    struct lookup lookup;
    struct inquiry_end lookup_end;
    struct timer patience; /* with the resolver, which has none of its own */
    struct inquiry_end patience_end;

    struct caa_lookup caa;
    struct inquiry_end caa_end;
};

static void add_finding(struct check *check, const char *name,
                        const struct preflight_finding *finding)
{
    static const enum verdict verdicts[] = {
        [PREFLIGHT_UNKNOWN] = VERDICT_SKIPPED,
        [PREFLIGHT_OK] = VERDICT_OK,
        [PREFLIGHT_ADVICE] = VERDICT_WARNING,
        [PREFLIGHT_FAILED] = VERDICT_FAILED,
    };

    verdicts_add(check->verdicts, verdicts[finding->verdict], name, "%s", finding->text);
    if (finding->hint[0] != '\0')
        verdicts_advise(check->verdicts, "%s", finding->hint);
}

/* ---- the guest agent ---- */

static bool has_agent(const struct check *check)
{
    return !check->offline && !check->config->development;
}

static void start_agent(struct others *o)
{
    const struct config *config = o->check->config;

    keys_flow_start(&o->keys, &o->inquiry.loop, config, &o->inquiry.agent, inquiry_note,
                    &o->keys_end);
    dstack_info(&o->info, &o->inquiry.agent, inquiry_note, &o->info_end);
}

/* Whether it can be asked for more. */
static bool judge_keys(struct others *o)
{
    struct verdicts *verdicts = o->check->verdicts;
    struct err err = ERR_INIT;

    if (inquiry_wait(&o->inquiry, &o->keys_end, &err) == 0)
        err = o->keys.account_err;
    if (err.kind == ERR_NONE) {
        verdicts_add(verdicts, VERDICT_OK, "guest agent", "derives the keys");
        return true;
    }
    verdicts_add(verdicts, VERDICT_FAILED, "guest agent", "%s", err.message);
    if (o->keys_end.err.kind != ERR_NONE)
        verdicts_advise(verdicts, "HTTPS waits until it gives the keys");
    return err.kind != ERR_NET && err.kind != ERR_TIMEOUT;
}

/* Events and quotes are what an attested leaf takes. */
static void judge_event_log(struct others *o)
{
    struct verdicts *verdicts = o->check->verdicts;
    struct event_log *log = NULL;
    struct err err = ERR_INIT;

    if (inquiry_wait(&o->inquiry, &o->info_end, &err) == 0 &&
        event_log_parse(o->info.tcb_info, strlen(o->info.tcb_info), &log, &err) == 0) {
        verdicts_add(verdicts, VERDICT_OK, "event log",
                     "the agent shows it, with %zu entries", event_log_length(log));
        if (!measurement_last_leaf(log, o->check->measured))
            o->check->measured[0] = '\0';
        event_log_free(log);
        return;
    }
    verdicts_add(verdicts,
                 o->check->config->measurement_required ? VERDICT_FAILED
                                                        : VERDICT_WARNING,
                 "event log", "%s", err.message);
}

/* It knows nobody: whoever can connect has the keys, and makes events. */
static void judge_access(struct others *o)
{
    const char *path = dstack_endpoint(&o->inquiry.agent);
    struct verdicts *verdicts = o->check->verdicts;
    struct stat status;

    if (stat(path, &status) < 0 || !S_ISSOCK(status.st_mode) ||
        !check_others_can_write(&status))
        return;
    verdicts_add(verdicts, VERDICT_WARNING, "guest agent",
                 "others than root can use %s (user %u, group %u, mode %04o): whatever "
                 "takes over a worker of nginx, certbot or a hook can have the keys, and "
                 "make events",
                 path, (unsigned)status.st_uid, (unsigned)status.st_gid,
                 (unsigned)(status.st_mode & 07777));
    verdicts_advise(verdicts,
                    "where the socket comes from: chown root:root and chmod 600");
}

static void judge_agent(struct others *o)
{
    if (!has_agent(o->check)) {
        verdicts_add(o->check->verdicts, VERDICT_SKIPPED, "guest agent", "%s",
                     o->check->offline ? "not asked: --offline"
                                       : "not needed in development");
        return;
    }
    judge_access(o);
    if (judge_keys(o))
        judge_event_log(o);
    else /* for the same reason; said once */
        (void)inquiry_wait(&o->inquiry, &o->info_end, &(struct err)ERR_INIT);
}

/* ---- certbot ---- */

static bool orders(const struct check *check)
{
    return !check->config->development && !check->config->tls.external_key;
}

/* "certbot 2.1.0": 2; 0 for what is something else. */
static unsigned long major_version(const char *text)
{
    static const char before[] = "certbot ";

    return text_starts_with(text, before) ? strtoul(text + strlen(before), NULL, 10) : 0;
}

static const char *wanted_profile(const struct config *config)
{
    for (size_t i = 0; i < config->acme.authorities.count; i++) {
        if (config->acme.authorities.items[i].profile != NULL)
            return config->acme.authorities.items[i].profile;
    }
    return NULL;
}

static void judge_certbot(struct others *o)
{
    const struct config *config = o->check->config;
    const char *profile = wanted_profile(config);
    struct preflight_finding finding;
    struct err err = ERR_INIT;
    unsigned long major;

    (void)inquiry_wait(&o->inquiry, &o->certbot_end, &err);
    preflight_judge_certbot(&finding, err.kind == ERR_NONE ? NULL : &err,
                            config->certbot.path, o->certbot.text);
    add_finding(o->check, "certbot", &finding);
    major = major_version(o->certbot.text);
    if (profile != NULL && major > 0 && major < CERTBOT_WITH_PROFILES) {
        verdicts_add(o->check->verdicts, VERDICT_FAILED, "certbot",
                     "%s has no profiles, and \"%s\" is configured", o->certbot.text,
                     profile);
        verdicts_advise(o->check->verdicts,
                        "install certbot 4.0 or newer, or remove acme.profile");
    }
    if (geteuid() == 0 && getpwnam(config->certbot.user) == NULL) {
        verdicts_add(o->check->verdicts, VERDICT_WARNING, "certbot",
                     "there is no user \"%s\" (certbot.user): it runs as root",
                     config->certbot.user);
        verdicts_advise(o->check->verdicts,
                        "make that user, or name one that may do nothing else");
    }
}

/* ---- CAs ---- */

static void start_directories(struct others *o)
{
    const struct authorities *authorities = &o->check->config->acme.authorities;

    for (size_t i = 0; i < authorities->count; i++) {
        const struct acme_directory_request request = {
            .http = o->inquiry.http,
            .authority = &authorities->items[i],
            .timeout_ms = CA_MS,
        };

        acme_directory_start(&o->directories[i], &request, inquiry_note,
                             &o->directory_ends[i]);
    }
}

static void judge_binding(struct check *check, const struct authority *authority,
                          bool needed)
{
    SECRET_SCOPED text = NULL;
    SECRET_SCOPED key = NULL;
    struct err err = ERR_INIT;

    if (authority->eab_key_id == NULL && needed) {
        verdicts_add(check->verdicts, VERDICT_FAILED, "CA",
                     "%s needs an external account binding", authority->directory);
        verdicts_advise(check->verdicts,
                        "set eab_key_id and eab_key_file to what it gave");
    } else if (authority->eab_key_id != NULL &&
               (fs_read_secret(authority->eab_key_file, EAB_KEY_MAX_BYTES, &text, &err) <
                    0 ||
                jose_read_hmac_key(text, &key, &err) < 0)) {
        verdicts_add(check->verdicts, VERDICT_FAILED, "CA", "%s: eab_key_file: %s",
                     authority->directory, err.message);
    }
}

static void judge_directory(struct check *check, const struct acme_directory *directory,
                            const struct authority *authority)
{
    bool has_profiles = directory->profiles[0] != '\0';

    verdicts_add(
        check->verdicts, VERDICT_OK, "CA", "%s is reached%s", authority->directory,
        directory->renewal_info[0] == '\0' ? "; it gives no renewal information" : "");
    if (directory->lacks_profile) {
        verdicts_add(check->verdicts, VERDICT_WARNING, "CA",
                     "%s offers no profile \"%s\"%s%s%s", authority->directory,
                     authority->profile, has_profiles ? " (but " : "",
                     directory->profiles, has_profiles ? ")" : "");
        verdicts_advise(check->verdicts, "its default is taken");
    }
}

static void judge_authorities(struct others *o)
{
    struct check *check = o->check;
    const struct authorities *authorities = &check->config->acme.authorities;

    for (size_t i = 0; i < authorities->count; i++) {
        const struct authority *authority = &authorities->items[i];
        bool needs_binding = false;
        struct err err = ERR_INIT;

        if (check->offline) {
            verdicts_add(check->verdicts, VERDICT_SKIPPED, "CA",
                         "%s: not asked: --offline", authority->directory);
        } else if (inquiry_wait(&o->inquiry, &o->directory_ends[i], &err) == 0) {
            judge_directory(check, &o->directories[i], authority);
            needs_binding = o->directories[i].needs_binding;
        } else {
            verdicts_add(check->verdicts, i == 0 ? VERDICT_FAILED : VERDICT_WARNING, "CA",
                         "%s", err.message);
            verdicts_advise(
                check->verdicts,
                err.kind == ERR_PEER
                    ? "is that the URL of an ACME directory?"
                    : "may connections leave this machine, or is there a proxy "
                      "(acme.proxy)? A CA of your own needs acme.ca_bundle");
        }
        judge_binding(check, authority, needs_binding);
    }
}

/* ---- DNS ---- */

static void on_patience_over(void *owner)
{
    inquiry_note(owner, NULL);
}

static void start_lookups(struct others *o)
{
    const struct config *config = o->check->config;
    const struct caa_lookup_request request = {
        .loop = &o->inquiry.loop,
        .domain = config->domain,
    };

    lookup_start(&o->lookup, &o->inquiry.loop, config->domain, inquiry_note,
                 &o->lookup_end);
    timer_init(&o->patience, &o->inquiry.loop, on_patience_over, &o->patience_end);
    timer_set(&o->patience, LOOKUP_MS);
    if (config->acme.check_caa)
        caa_lookup_start(&o->caa, &request, inquiry_note, &o->caa_end);
}

static void judge_dns(struct others *o)
{
    char addresses[PREFLIGHT_TEXT_SIZE];
    struct preflight_finding finding;
    struct err err = ERR_INIT;

    while (!o->lookup_end.over && !o->patience_end.over)
        uv_run(&o->inquiry.loop, UV_RUN_ONCE);
    if (!o->lookup_end.over) {
        o->check->hangs = true;
        err_set(&err, ERR_TIMEOUT, "%s: the resolver has not answered within %d s",
                o->check->config->domain, LOOKUP_MS / 1000);
    } else if (o->lookup_end.err.kind != ERR_NONE) {
        err = o->lookup_end.err;
    }
    lookup_list(&o->lookup, addresses, sizeof addresses);
    preflight_judge_dns(&finding, err.kind == ERR_NONE ? NULL : &err, addresses, true);
    add_finding(o->check, "dns", &finding);
}

/* For the main CA: the others are asked when that does not help. */
static void judge_caa(struct others *o)
{
    const struct config *config = o->check->config;
    const struct authority *authority = &config->acme.authorities.items[0];
    const struct account_owner owner = {
        .directory = authority->directory,
        .version = config->acme.account_version,
        .seal_key = o->keys.tls_key,
    };
    const char *issuer = authority_caa_identity(authority);
    struct account account = {.url = ""};
    struct preflight_finding finding;
    struct err err = ERR_INIT;
    struct store store;

    (void)inquiry_wait(&o->inquiry, &o->caa_end, &err);
    if (issuer == NULL)
        issuer = o->directories[0].caa_identity;
    if (o->keys.tls_key != NULL && store_init(&store, config, &(struct err)ERR_INIT) == 0)
        account_memory_load(&store, &owner, &account);
    preflight_judge_caa(&finding, &(struct preflight_caa){
                                      .why = err.kind == ERR_NONE ? NULL : &err,
                                      .records = &o->caa.records,
                                      .found_at = o->caa.found_at,
                                      .request = {.issuers = &issuer,
                                                  .issuer_count = issuer[0] != '\0',
                                                  .account_url = account.url,
                                                  .method = "http-01"},
                                  });
    add_finding(o->check, "caa", &finding);
}

/* ---- all of it ---- */

static void start_all(struct others *o)
{
    if (has_agent(o->check))
        start_agent(o);
    if (!orders(o->check))
        return;
    certbot_version_start(&o->certbot, &o->inquiry.loop, o->check->config, inquiry_note,
                          &o->certbot_end);
    if (o->check->offline)
        return;
    start_directories(o);
    start_lookups(o);
}

static void judge_all(struct others *o)
{
    judge_agent(o);
    check_pair(o->check, o->keys.tls_key);
    if (!orders(o->check))
        return;
    judge_certbot(o);
    judge_authorities(o);
    if (o->check->offline)
        return;
    judge_dns(o);
    if (o->check->config->acme.check_caa)
        judge_caa(o);
    timer_close(&o->patience, NULL);
}

void check_others(struct check *check)
{
    struct others *o = calloc(1, sizeof *o);
    struct err err = ERR_INIT;

    if (o == NULL || inquiry_open(&o->inquiry, check->config, &err) < 0) {
        verdicts_add(check->verdicts, VERDICT_FAILED, "guest agent", "%s",
                     o == NULL ? "out of memory" : err.message);
        free(o);
        return;
    }
    o->check = check;
    start_all(o);
    judge_all(o);
    keys_flow_done(&o->keys);
    dstack_call_done(&o->info);
    if (check->hangs) /* the resolver's thread still knows it */
        return;
    inquiry_close(&o->inquiry);
    free(o);
}
