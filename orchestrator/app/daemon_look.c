/*
 * Whether what holds is still what was applied: others may have nginx read what they put on the volume,
 * make certificate events of their own, or start the agent anew. Nobody tells, so the daemon looks.
 */
#include "app/daemon_internal.h"

#include "base/log.h"
#include "base/random.h"
#include "domain/pace.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>

enum {
    LOOK_PERIOD_MS = 60 * 1000,
    LOOK_EARLY_MS = 1000,
    LOOK_AGAIN_MS = 2 * 1000,
    LOOKS_CLOSE = 5,                    /* each after twice the time: 2, 4, 8, 16, 32 s */
    VERSION_PERIOD_MS = 60 * 60 * 1000, /* agents are updated */
    VERSION_RETRY_MS = 10 * 60 * 1000,
    /* Events cannot be taken back: with a program that makes its own again and again there is no race. */
    OUTDONE_MAX_MS = 60 * 60 * 1000,
    OUTDONE_FORGET_MS = 3 * 60 * 60 * 1000,
};

static void judge_presented(struct daemon *d, const struct look_flow *look)
{
    if (look->presented[0] == '\0' ||
        strcmp(look->presented, chain_leaf(d->served)->sha256) == 0)
        return;
    log_warning("%s presents leaf %s, which was not applied; nginx is reloaded",
                look->probe.where, look->presented);
    d->applied = false;
    d->plan_facts.disturbed = true;
}

/*
 * When to answer another program's event: at once, and later each time that it is outdone. There are
 * agents that take events and keep none: their log is the one of before.
 */
static uint64_t answer_at_ms(struct daemon *d, const char *last)
{
    uint64_t now_ms = daemon_uptime_ms(d);
    uint64_t wait_ms = 0;

    if (now_ms - d->outdone_at_ms > OUTDONE_FORGET_MS)
        d->outdone = 0;
    if (d->outdone > 0 && strcmp(last, d->outdone_by) == 0)
        wait_ms = OUTDONE_MAX_MS;
    else if (d->outdone > 0)
        wait_ms =
            pace_doubling(LOOK_PERIOD_MS, OUTDONE_MAX_MS, d->outdone, random_number());
    d->outdone++;
    d->outdone_at_ms = now_ms;
    snprintf(d->outdone_by, sizeof d->outdone_by, "%s", last);
    return now_ms + wait_ms;
}

/* An event of ours may come about when it was given up, and then the next try has only to serve. */
static bool names_candidate(struct daemon *d, const char *last)
{
    if (d->candidate == NULL || strcmp(last, chain_leaf(d->candidate)->sha256) != 0 ||
        strcmp(last, d->outdone_by) == 0)
        return false;
    snprintf(d->outdone_by, sizeof d->outdone_by, "%s", last); /* once */
    return true;
}

static void judge_event(struct daemon *d, const struct look_flow *look)
{
    if (!look->shown || !d->attested ||
        strcmp(look->last, chain_leaf(d->served)->sha256) == 0)
        return;
    if (names_candidate(d, look->last)) {
        d->plan_facts.retry_at_ms[PLAN_APPLYING] = 0;
        return;
    }
    if (look->last[0] == '\0')
        err_set(&d->why_not, ERR_PEER,
                "the agent's event log has none, or its last one names no leaf");
    else
        err_set(&d->why_not, ERR_PEER,
                "the last one names leaf %s; another program has made it, or the agent "
                "has not kept ours",
                look->last);
    memcpy(d->last_event, look->last, sizeof d->last_event);
    d->plan_facts.retry_at_ms[PLAN_MEASURING] = answer_at_ms(d, look->last);
    daemon_lose_attestation(d);
}

static void tell(struct daemon *d, const struct look_flow *look)
{
    daemon_note_probe(d, look->presented,
                      look->presented[0] == '\0' ? &look->port_err : NULL);
    if (look->shown)
        daemon_note_event(d, look->last, MEASURE_FROM_LOG);
    if (look->app_name[0] != '\0')
        memcpy(d->told.app_name, look->app_name, sizeof d->told.app_name);
    if (!look->asked_version)
        return;
    memcpy(d->told.agent_version, look->version, sizeof d->told.agent_version);
    d->told.version_at_ms =
        daemon_uptime_ms(d) + (look->told_version ? VERSION_PERIOD_MS : VERSION_RETRY_MS);
}

/*
 * Behind an event of ours soon again: an agent may take one and not keep it, or make one late that was
 * given up, and may not show its log just then.
 */
static uint64_t next_look_ms(struct daemon *d)
{
    if (d->looks_close == LOOKS_CLOSE)
        return LOOK_PERIOD_MS;
    return (uint64_t)LOOK_AGAIN_MS << d->looks_close++;
}

void daemon_look_closely(struct daemon *d)
{
    d->look_at_ms = 0;
    d->looks_close = 0;
}

static void on_look_done(void *owner, const struct err *err)
{
    struct daemon *d = owner;

    d->look_at_ms = daemon_uptime_ms(d) + next_look_ms(d);
    malloc_trim(0); /* the agent's log was read whole, and each event makes it longer */
    if (err == NULL) {
        tell(d, &d->flow.look);
        judge_presented(d, &d->flow.look);
        judge_event(d, &d->flow.look);
    }
    daemon_flow_ended(d);
}

/* One that is all but due is not worth another awakening. */
bool daemon_is_look_due(struct daemon *d)
{
    return d->served != NULL && daemon_uptime_ms(d) + LOOK_EARLY_MS >= d->look_at_ms;
}

uint64_t daemon_until_look(struct daemon *d, uint64_t planned_ms)
{
    uint64_t now_ms = daemon_uptime_ms(d);
    uint64_t wait_ms = d->look_at_ms > now_ms ? d->look_at_ms - now_ms : 0;

    return d->served != NULL && wait_ms < planned_ms ? wait_ms : planned_ms;
}

void daemon_start_look(struct daemon *d)
{
    d->activity = LOOKING;
    look_flow_start(&d->flow.look, &d->loop, d->config, &d->measure,
                    !d->config->development &&
                        daemon_uptime_ms(d) >= d->told.version_at_ms,
                    on_look_done, d);
}
