/*
 * hook_event: what programs of the operator are told of, and what they learn of it: the variables of
 * their environment. Pure.
 */
#ifndef CM_DOMAIN_HOOK_EVENT_H
#define CM_DOMAIN_HOOK_EVENT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hook_event {
    HOOK_ISSUED,        /* a certificate was obtained */
    HOOK_APPLIED,       /* another one is served */
    HOOK_FAILED,        /* something failed that is tried again */
    HOOK_LEVEL_CHANGED, /* nginx has another configuration */
    HOOK_EVENTS
};

/* "issued"; the setting is called "hooks.on_issued". */
const char *hook_event_name(enum hook_event event);

struct config;
struct chain_leaf;

/* What has happened. NULL and 0: of no meaning for the event. All of it borrowed. */
struct hook_news {
    enum hook_event event;
    const struct config *config;
    const struct chain_leaf *leaf; /* obtained, or served */
    bool attested;                 /* of one that is served */
    const struct err *failure;
    unsigned attempt; /* which one has failed */
    int64_t next;     /* Unix seconds of the next one */
    const char *hint; /* what a person can do about it; NULL or "" */
    const char *level;
    const char *former_level;
    const char *reason; /* why it is not the full one */
};

/* "NAME=value" texts, in the form of environ. */
enum { HOOK_VARIABLES_MAX = 24 };
struct hook_environment {
    char *items[HOOK_VARIABLES_MAX + 1];
    size_t count;
};

/*
 * Nothing of our own environment is in it, and no secret. Control characters of texts are escaped.
 * ERR_SYS without memory. Released with hook_environment_done in either case.
 */
int hook_environment(const struct hook_news *news, struct hook_environment *ret,
                     struct err *err);
void hook_environment_done(struct hook_environment *environment);

#endif
