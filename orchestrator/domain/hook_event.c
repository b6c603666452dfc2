#include "domain/hook_event.h"

#include "base/text.h"
#include "domain/chain.h"
#include "domain/config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_SIZE = 4 * ERR_MESSAGE_MAX, TOLD_DOMAINS_SIZE = 32 * 1024 };

const char *hook_event_name(enum hook_event event)
{
    static const char *const names[] = {
        [HOOK_ISSUED] = "issued",
        [HOOK_APPLIED] = "applied",
        [HOOK_FAILED] = "failed",
        [HOOK_LEVEL_CHANGED] = "level_changed",
    };

    return names[event];
}

/* ---- variables ---- */

struct writing {
    struct hook_environment *to;
    bool failed; /* no memory */
};

__attribute__((format(printf, 2, 3))) static void put(struct writing *writing,
                                                      const char *format, ...)
{
    struct hook_environment *to = writing->to;
    va_list args;
    int len;

    assert(to->count < HOOK_VARIABLES_MAX);
    va_start(args, format);
    len = vasprintf(&to->items[to->count], format, args);
    va_end(args);
    if (len < 0) {
        to->items[to->count] = NULL;
        writing->failed = true;
        return;
    }
    to->items[++to->count] = NULL;
}

/* A text that comes from far: one line of it. NULL: the variable is left out. */
static void put_text(struct writing *writing, const char *name, const char *text)
{
    char escaped[VALUE_SIZE];

    if (text == NULL)
        return;
    text_escape(escaped, sizeof escaped, text, strlen(text));
    put(writing, "CERT_MANAGER_%s=%s", name, escaped);
}

static void put_number(struct writing *writing, const char *name, int64_t number)
{
    put(writing, "CERT_MANAGER_%s=%" PRId64, name, number);
}

static void put_domains(struct writing *writing, const struct config_list *domains)
{
    char names[TOLD_DOMAINS_SIZE] = ""; /* a hundred of at most 253 bytes */
    size_t used = 0;

    for (size_t i = 0; i < domains->count; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                 i == 0 ? "" : " ", domains->items[i]);
    put(writing, "CERT_MANAGER_DOMAINS=%s", names);
}

static void put_leaf(struct writing *writing, const struct hook_news *news)
{
    const struct chain_leaf *leaf = news->leaf;

    put_text(writing, "LEAF_SHA256", leaf->sha256);
    put_text(writing, "LEAF_SERIAL", leaf->serial);
    put_text(writing, "LEAF_ISSUER", leaf->issuer_name);
    put_number(writing, "LEAF_NOT_BEFORE", leaf->not_before);
    put_number(writing, "LEAF_NOT_AFTER", leaf->not_after);
    if (news->event != HOOK_APPLIED)
        return;
    put_text(writing, "ATTESTED", news->attested ? "true" : "false");
    put(writing, "CERT_MANAGER_CHAIN_FILE=%s/cert.pem", news->config->tls.dir);
}

static void put_failure(struct writing *writing, const struct hook_news *news)
{
    const struct err *failure = news->failure;

    put_text(writing, "REASON", failure->message);
    put_text(writing, "KIND", err_kind_name(failure->kind));
    put_text(writing, "FLOW", failure->flow);
    put_text(writing, "STEP", failure->step);
    put_number(writing, "ATTEMPT", news->attempt);
    if (news->next != 0)
        put_number(writing, "NEXT", news->next);
    if (news->hint != NULL && news->hint[0] != '\0')
        put_text(writing, "HINT", news->hint);
}

int hook_environment(const struct hook_news *news, struct hook_environment *ret,
                     struct err *err)
{
    struct writing writing = {.to = ret};

    *ret = (struct hook_environment){.count = 0};
    put(&writing, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    put(&writing, "LANG=C.UTF-8");
    put_text(&writing, "EVENT", hook_event_name(news->event));
    put_text(&writing, "DOMAIN", news->config->domain);
    put_domains(&writing, &news->config->domains);
    if (news->leaf != NULL)
        put_leaf(&writing, news);
    if (news->failure != NULL)
        put_failure(&writing, news);
    put_text(&writing, "LEVEL", news->level);
    put_text(&writing, "FORMER_LEVEL", news->former_level);
    put_text(&writing, "REASON", news->reason);
    return writing.failed ? err_sys(err, ENOMEM, "cannot tell a hook") : 0;
}

void hook_environment_done(struct hook_environment *environment)
{
    for (size_t i = 0; i < environment->count; i++)
        free(environment->items[i]);
    *environment = (struct hook_environment){.count = 0};
}
