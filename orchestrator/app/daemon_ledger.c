/* Whether a CA may be asked, by the ledger of orders, and what is entered there. */
#include "app/daemon_internal.h"

#include "base/log.h"
#include "base/random.h"
#include "domain/pace.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static bool orders_anything(const struct daemon *d)
{
    return !d->config->development && !d->config->tls.external_key;
}

int daemon_init_ledger(struct daemon *d, struct err *err)
{
    const struct config_list *names = &d->config->domains;
    BUF_SCOPED text = {0};
    const char *why_lost;

    if (!orders_anything(d))
        return 0;
    if (ledger_names((const char *const *)names->items, names->count, &text, err) < 0)
        return -1;
    snprintf(d->names, sizeof d->names, "%s", buf_str(&text));
    why_lost = ledger_file_why_lost(&d->store);
    if (why_lost != NULL && !d->goes_on)
        log_warning(
            "%s is %s and not a volume: a container that is made anew forgets its "
            "certificate and what it has ordered, until the CA's limits stop it",
            d->store.folder, why_lost);
    return 0;
}

/* ---- whether it may be asked ---- */

/* Of what an order to that CA depends on: another one when something of it has changed (FNV-1a). */
static uint32_t context_of(const struct config *config, const struct authority *authority)
{
    const char *const parts[] = {
        authority->ca_bundle,  authority->profile,      authority->preferred_chain,
        authority->eab_key_id, authority->eab_key_file, config->acme.email,
        config->certbot.path,  CERT_MANAGER_VERSION,
    };
    uint32_t hash = 2166136261U;

    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        for (const char *c = parts[i] == NULL ? "" : parts[i]; *c != '\0'; c++)
            hash = (hash ^ (unsigned char)*c) * 16777619U;
        hash = (hash ^ 0xff) * 16777619U; /* no byte of UTF-8 */
    }
    return hash;
}

static struct ledger_question question_about(const struct daemon *d,
                                             const struct authority *authority)
{
    const struct config *config = d->config;
    const struct authority *rehearsal =
        authority == &config->acme.authorities.items[0] ? config_rehearsal(config) : NULL;
    struct ledger_question question = {
        .subject = {.directory = authority->directory,
                    .names = d->names,
                    /* Its key is the one of this path. */
                    .account = config->acme.account_version},
        .limits = ledger_limits_of(config, authority->directory),
        .context = context_of(config, authority),
    };

    if (rehearsal != NULL) {
        question.rehearsal = question.subject;
        question.rehearsal.directory = rehearsal->directory;
        question.rehearsal_limits = ledger_limits_of(config, rehearsal->directory);
    }
    question.urgent = d->served == NULL ||
                      plan_is_nearly_over(d->plan_facts.not_before,
                                          d->plan_facts.not_after, (int64_t)time(NULL));
    return question;
}

bool daemon_permits(const struct daemon *d, size_t authority,
                    struct ledger_permits ret[LEDGER_BUCKETS])
{
    const struct ledger_question question =
        question_about(d, &d->config->acme.authorities.items[authority]);

    if (!orders_anything(d) || d->plan_facts.order_from == INT64_MAX)
        return false;
    ledger_permits(&d->ledger.ledger, &question.subject, &question.limits,
                   (int64_t)time(NULL), ret);
    return true;
}

static bool is_unsettled(const struct ledger_answer *answer)
{
    return answer->action == LEDGER_SETTLE || answer->action == LEDGER_SETTLE_REHEARSAL;
}

/* What would fail elsewhere just as well. */
static bool is_everywhere(enum ledger_outcome outcome)
{
    return outcome == LEDGER_CHALLENGE_FAILED || outcome == LEDGER_DOUBTFUL;
}

/* Until it may be asked: by the ledger, and by our own clock. */
static uint64_t until_due_ms(const struct daemon *d, const struct ledger_answer *answer,
                             size_t i, int64_t now, uint64_t uptime_ms)
{
    uint64_t resting_ms = d->fallback.items[i].retry_at_ms > uptime_ms
                              ? d->fallback.items[i].retry_at_ms - uptime_ms
                              : 0;
    uint64_t held_ms = answer->from > now ? (uint64_t)(answer->from - now) * 1000 : 0;

    return held_ms > resting_ms ? held_ms : resting_ms;
}

/*
 * The CA with an order that is not accounted for, else the first one that may be asked now, else the
 * one that may be soonest.
 */
static size_t choose(const struct daemon *d, const struct ledger_answer *answers,
                     int64_t now, uint64_t uptime_ms)
{
    uint64_t least_ms = UINT64_MAX;
    size_t best = 0;

    for (size_t i = 0; i < d->fallback.count; i++) {
        if (is_unsettled(&answers[i]))
            return i;
    }
    for (size_t i = 0; i < d->fallback.count && least_ms > 0; i++) {
        uint64_t left_ms = until_due_ms(d, &answers[i], i, now, uptime_ms);

        if (left_ms < least_ms) {
            least_ms = left_ms;
            best = i;
        }
        if (left_ms > 0 && is_everywhere(answers[i].last))
            break;
    }
    return best;
}

static void choose_authority(struct daemon *d, int64_t now)
{
    const struct authorities *all = &d->config->acme.authorities;
    struct ledger_answer answers[AUTHORITIES_MAX] = {{.why = ""}};
    const struct ledger_answer *answer;

    for (size_t i = 0; i < all->count; i++) {
        struct ledger_question question = question_about(d, &all->items[i]);

        answers[i] = ledger_ask(&d->ledger.ledger, &question, now);
    }
    d->next.authority = choose(d, answers, now, daemon_uptime_ms(d));
    d->next.question = question_about(d, &all->items[d->next.authority]);
    answer = &answers[d->next.authority];
    d->next.rehearse =
        answer->action == LEDGER_REHEARSE || answer->action == LEDGER_SETTLE_REHEARSAL;
    d->plan_facts.unsettled = certbot_has_left(d->config) || is_unsettled(answer);
    d->plan_facts.order_from = answer->from;
    d->plan_facts.order_why = answer->why;
}

static bool open_ledger(struct daemon *d, int64_t now)
{
    struct err err = ERR_INIT;

    if (ledger_file_open(&d->ledger, &d->store, d->config, now, &err) == 0) {
        if (d->ledger_failed)
            log_info("the ledger of orders can be used again");
        d->ledger_failed = false;
        return true;
    }
    if (!d->ledger_failed)
        log_error("%s", err.message);
    d->ledger_failed = true;
    return false;
}

void daemon_ask_ledger(struct daemon *d)
{
    int64_t now = (int64_t)time(NULL);
    size_t from_future;

    if (!orders_anything(d))
        return;
    d->plan_facts.unsettled = false;
    if (!open_ledger(d, now)) {
        d->plan_facts.order_from = INT64_MAX;
        d->plan_facts.order_why =
            "nothing is ordered while the ledger of orders cannot be read";
        return;
    }
    from_future = ledger_mind_clock(&d->ledger.ledger, now);
    if (from_future > 0)
        log_warning(
            "%zu entries of the ledger of orders are from the future, and count "
            "as made now: is this machine's clock right?",
            from_future);
    choose_authority(d, now);
}

/* ---- what became of it ---- */

struct pace_limits daemon_pace_limits(const struct config *config,
                                      const struct authority *authority, bool rehearsal)
{
    return (struct pace_limits){
        .min_ms = config->acme.retry_min_ms,
        .max_ms = config->acme.retry_max_ms,
        /* A rehearsal is there to find out soon that something was mended. */
        .counts_challenges = authority_is_lets_encrypt(authority) && !rehearsal,
    };
}

static uint64_t wait_after(const struct daemon *d, enum ledger_outcome outcome,
                           unsigned in_a_row, const struct err *err)
{
    const struct issue_request *request = &d->flow.issue.request;
    const struct pace_limits limits =
        daemon_pace_limits(d->config, request->authority, request->rehearsal);
    const struct pace_failure failure = {
        .outcome = outcome,
        .in_a_row = in_a_row,
        .retry_at = d->flow.issue.certbot_ran ? d->flow.issue.outcome.retry_at : 0,
    };

    if (err == NULL)
        return 0;
    if (err->kind == ERR_CANCELED) /* it was us who ended it */
        return outcome == LEDGER_ISSUED
                   ? 0
                   : pace_lost_order(in_a_row, &limits, random_number());
    return pace_order(&failure, &limits, (int64_t)time(NULL), random_number());
}

static int enter(struct daemon *d, const struct ledger_entry *entry, struct err *err)
{
    const struct issue_flow *flow = &d->flow.issue;
    const struct ledger_subject subject = issue_flow_subject(flow);
    int64_t now = (int64_t)time(NULL);
    int64_t at = flow->order_at;

    if (at == 0 && ledger_begin(&d->ledger.ledger, &subject, now, &at, err) < 0)
        return -1;
    if (ledger_end(&d->ledger.ledger, &subject, at, entry, now, err) < 0)
        return -1;
    return ledger_file_save(&d->ledger, now, err);
}

struct ledger_ending daemon_enter_outcome(struct daemon *d, const struct err *err)
{
    const struct issue_flow *flow = &d->flow.issue;
    struct ledger_ending ending = {
        .outcome = ledger_outcome_of(flow->certbot_ran ? &flow->outcome : NULL,
                                     flow->order_at != 0, err)};
    const struct ledger_subject subject = issue_flow_subject(flow);
    struct ledger_entry entry = {.context = d->next.question.context};
    struct err unwritten = ERR_INIT;

    if (flow->chain != NULL) /* also one that came when we had been told to stop */
        ending.outcome = LEDGER_ISSUED;
    ending.in_a_row = ledger_row(&d->ledger.ledger, &subject, ending.outcome) + 1;
    ending.wait_ms = wait_after(d, ending.outcome, ending.in_a_row, err);
    entry.outcome = (unsigned short)ending.outcome;
    entry.wait_s = (int64_t)(ending.wait_ms + 999) / 1000;
    if (enter(d, &entry, &unwritten) < 0)
        log_warning("%s; until it can be, the order counts as all that it may have been",
                    unwritten.message);
    return ending;
}
