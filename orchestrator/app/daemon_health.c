/* Whether what is served is of use, in the daemon's own eyes. */
#include "app/daemon_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int check(const struct daemon *d, struct err *err)
{
    const struct status_probe *probe = &d->told.probe;

    if (d->served == NULL)
        return err_set(err, ERR_PEER, "HTTPS is not served: %s", d->last_reason);
    if (health_check_chain(d->served, &d->config->domains, (int64_t)time(NULL), err) < 0)
        return -1;
    if (probe->error[0] != '\0')
        return err_set(err, ERR_NET, "HTTPS does not answer: %s", probe->error);
    if (probe->at != 0 && strcmp(probe->sha256, chain_leaf(d->served)->sha256) != 0)
        return err_set(err, ERR_PEER,
                       "HTTPS presents leaf %s, which is not the one that was applied",
                       probe->sha256);
    return 0;
}

void daemon_judge_health(const struct daemon *d, struct health *ret)
{
    struct err why = ERR_INIT;

    *ret = (struct health){
        .healthy = check(d, &why) == 0,
        .attested = d->served != NULL && d->attested,
    };
    if (d->served != NULL)
        memcpy(ret->sha256, chain_leaf(d->served)->sha256, sizeof ret->sha256);
    if (!ret->healthy)
        snprintf(ret->reason, sizeof ret->reason, "%s", why.message);
    else if (!ret->attested)
        snprintf(ret->reason, sizeof ret->reason, "%s",
                 d->config->development ? "nothing is attested in development"
                                        : d->why_not.message);
}

int daemon_answer_health(struct daemon *d, const struct server_request *request,
                         struct server_answer *ret, struct err *err)
{
    struct health health;

    (void)request;
    daemon_judge_health(d, &health);
    ret->status = health.healthy ? 200 : 503;
    return health_to_json(&health, &ret->body, err);
}
