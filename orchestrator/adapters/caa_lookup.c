#include "adapters/caa_lookup.h"

#include "base/text.h"

#include <stdio.h>
#include <string.h>

enum { ALIASES_MAX = 8 };

static int begin_ask(void *owner, struct err *err)
{
    struct caa_lookup *lookup = owner;
    uint64_t now = uv_now(lookup->request.loop);
    struct dns_query_request request = {
        .name = lookup->asked,
        .type = CAA_TYPE,
        .servers = lookup->request.servers,
    };

    if (now >= lookup->deadline_ms)
        return err_set(err, ERR_TIMEOUT, "the DNS servers did not answer within %d ms",
                       CAA_LOOKUP_MS);
    request.timeout_ms = (unsigned)(lookup->deadline_ms - now);
    dns_query_start(&lookup->query, lookup->request.loop, &request, seq_resume,
                    &lookup->seq);
    return SEQ_WAIT;
}

static int ask_for(struct caa_lookup *lookup, const char *name)
{
    snprintf(lookup->asked, sizeof lookup->asked, "%s", name);
    return seq_go_to(&lookup->seq, "ask");
}

static int finish_ask(void *owner, struct err *err)
{
    struct caa_lookup *lookup = owner;
    char alias[CAA_NAME_SIZE];
    int failed = caa_read_message(lookup->query.answer.data, lookup->query.answer.len,
                                  lookup->asked, &lookup->records, alias, err);

    dns_query_done(&lookup->query);
    if (failed != 0)
        return -1;
    if (lookup->records.count > 0) {
        snprintf(lookup->found_at, sizeof lookup->found_at, "%s", lookup->level);
        return SEQ_END;
    }
    if (alias[0] != '\0' && ++lookup->aliases > ALIASES_MAX)
        return err_set(err, ERR_PEER, "%s has more than %d aliases in a row",
                       lookup->level, ALIASES_MAX);
    if (alias[0] != '\0')
        return ask_for(lookup, alias);
    lookup->aliases = 0;
    lookup->level = caa_parent(lookup->level);
    return lookup->level == NULL ? SEQ_END : ask_for(lookup, lookup->level);
}

static void abort_ask(void *owner)
{
    struct caa_lookup *lookup = owner;

    dns_query_cancel(&lookup->query);
}

/* Each question gets what is left of the time for all. */
static const struct seq_step steps[] = {
    {"ask", begin_ask, finish_ask, abort_ask, 0},
    {0},
};

static void on_steps_done(void *owner, const struct err *err)
{
    struct caa_lookup *lookup = owner;

    lookup->done(lookup->owner, err);
}

void caa_lookup_start(struct caa_lookup *lookup, const struct caa_lookup_request *request,
                      done_fn done, void *owner)
{
    *lookup = (struct caa_lookup){
        .request = *request,
        .deadline_ms = uv_now(request->loop) + CAA_LOOKUP_MS,
        .done = done,
        .owner = owner,
    };
    lookup->level = request->domain;
    if (text_starts_with(lookup->level, "*."))
        lookup->level += 2;
    snprintf(lookup->asked, sizeof lookup->asked, "%s", lookup->level);
    seq_start(&lookup->seq, request->loop, "CAA", steps, lookup, on_steps_done, lookup);
}

void caa_lookup_cancel(struct caa_lookup *lookup)
{
    seq_cancel(&lookup->seq);
}
