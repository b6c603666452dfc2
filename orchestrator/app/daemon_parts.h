/*
 * daemon_parts: what the daemon keeps for one of its files alone, or nearly so: each part is named after
 * the file app/daemon_<part>.c, which says more of it.
 */
#ifndef CM_APP_DAEMON_PARTS_H
#define CM_APP_DAEMON_PARTS_H

#include "adapters/challenge.h"
#include "adapters/dstack.h"
#include "adapters/hook.h"
#include "adapters/nginx.h"
#include "app/command.h"
#include "base/buf.h"
#include "domain/config.h"
#include "domain/journal.h"
#include "domain/plan.h"
#include "domain/status.h"
#include "runtime/server.h"
#include "runtime/timer.h"
#include "runtime/watch.h"

#include <stdbool.h>
#include <stdint.h>

/* Answers to challenges that the order at work has presented. */
enum { CHALLENGES_SEEN_MAX = 16 };

struct challenge_seen {
    char name[CHALLENGE_NAME_SIZE];
    bool fetched;
    bool gone;
};

struct challenges {
    struct watch watch;
    struct challenge_seen seen[CHALLENGES_SEEN_MAX];
    size_t seen_count;
    unsigned presented; /* by this order; those that are seen are the first of them */
    struct status_challenges counts; /* since the start */
    bool fetching;
    struct challenge_fetch fetch;
    char name[CHALLENGE_NAME_SIZE]; /* of the one that is fetched */
    struct buf text;                /* which it ought to have */
};

/* What is asked for over the control socket and takes its time: the last of each kind. */
enum request_kind { REQUEST_RENEW, REQUEST_DEPLOY, REQUEST_RELOAD, REQUEST_KINDS };
enum request_state {
    REQUEST_NONE,
    REQUEST_WAITING, /* for what is at work */
    REQUEST_RUNNING,
    REQUEST_DONE,
    REQUEST_FAILED,
};

struct control_request {
    unsigned id; /* from 1, of its kind */
    enum request_state state;
    char text[ERR_MESSAGE_MAX]; /* what came of it, or is waited for */
};

/* What is told besides what is acted upon. */
struct told {
    int64_t started_at;
    struct status_activity activity;
    struct status_next next;
    struct status_probe probe;
    struct status_event event;
    struct status_success success;
    struct status_failure failure;
    enum plan_activity failed; /* what the failure is of */
    char agent_version[DSTACK_WORD_SIZE];
    char app_name[DSTACK_WORD_SIZE];
    uint64_t version_at_ms; /* when the agent is asked for its version again */
};

/* Other settings: read, judged, and then lived by, in a life of their own. */
struct reload {
    const struct command_line *said; /* where settings are read from */
    bool wanted;                     /* `next` waits */
    struct config next;
    bool judged;         /* nginx takes them */
    bool judging;        /* nginx is being asked */
    bool replaced;       /* by others since */
    bool comes_late;     /* it was asked for when this life had its end before it */
    bool lives_on;       /* this life ends, and another one begins with `next` */
    bool unsettled;      /* of this life's own settings: nginx does not have them yet */
    struct timer resume; /* one life after the other, but not without end */
    uint64_t not_before_ms;
    struct nginx_facts facts; /* and what else nginx is asked about */
    struct upstreams upstreams;
    char evidence[FS_PATH_MAX];
    struct buf site;
    struct buf include;
    struct nginx_test test;
};

/* Where metrics can be asked for, and nothing else. */
enum scrape_place { SCRAPE_NGINX, SCRAPE_LISTENER, SCRAPE_PLACES };

struct scrape {
    struct server servers[SCRAPE_PLACES];
    bool open[SCRAPE_PLACES];
    bool failed[SCRAPE_PLACES]; /* it was logged that it could not be opened */
    struct timer retry;
};

/*
 * Programs of the operator, told one after the other. What was told last is kept in <run_dir>, so that
 * a restart of the daemon alone tells nothing again.
 */
enum { HOOKS_WAITING_MAX = 16, HOOK_SUBJECT_SIZE = JOURNAL_LEAF_SIZE + 16 };

struct hook_telling {
    enum hook_event event;
    char subject[HOOK_SUBJECT_SIZE]; /* of which it is told: leaf or level */
    struct hook_environment environment;
};

struct hooks {
    struct hook_telling queue[HOOKS_WAITING_MAX]; /* the first is at work when one is */
    size_t count;
    bool running;
    struct hook hook;
    char said[HOOK_EVENTS][HOOK_SUBJECT_SIZE]; /* last, or it is in the queue */
    char told[HOOK_EVENTS][HOOK_SUBJECT_SIZE]; /* last, and the program has ended */
    struct {
        enum err_kind kind;
        const char *step;
        unsigned attempt;
        uint64_t at_ms;
    } failures[PLAN_ACTIVITIES + 1]; /* told last; one more for the site */
};

/* health.status_file: what it says. */
struct health_file {
    struct timer timer;
    uint64_t begun_ms; /* of this life */
    uint64_t written_ms;
    bool written; /* by this life */
    bool healthy;
    bool failing; /* it was logged that it cannot be written */
};

#endif
