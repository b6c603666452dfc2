#include "adapters/certbot_internal.h"

#include "base/log.h"
#include "base/text.h"
#include "domain/chain.h"

#include <string.h>

/* Of our purpose, and there is no other one that was of use. */
static bool is_of_use(const struct certbot *c)
{
    return c->left == CERTBOT_LEFT_RUN && c->record.ours && c->chain_pem.len == 0;
}

/* Whichever of the configured CAs it was asking, what it obtained is as good; or that of one alone. */
static enum certbot_left look(struct certbot *c, struct certbot_record *ret,
                              struct err *err)
{
    const struct authorities *authorities = &c->request.config->acme.authorities;
    const struct authority *wanted = c->request.authority;
    struct certbot_request request = c->request;
    enum certbot_left left = CERTBOT_LEFT_NOTHING;

    for (size_t i = 0; i < (wanted == NULL ? authorities->count : 1); i++) {
        struct certbot_purpose purpose;

        request.authority = wanted == NULL ? &authorities->items[i] : wanted;
        purpose = certbot_purpose_of(&request);
        left = certbot_look(c->found, &purpose, ret, err);
        if (left == CERTBOT_LEFT_RUN && ret->ours && c->chain_pem.len == 0)
            c->authority = request.authority;
        if (left != CERTBOT_LEFT_RUN || ret->ours)
            break;
    }
    return left;
}

static int begin_look(void *flow, struct err *err)
{
    struct certbot *c = flow;

    if (certbot_place(c->request.config, c->place, c->found, err) < 0)
        return -1;
    c->left = look(c, &c->record, err);
    return c->left == CERTBOT_LEFT_UNKNOWN ? -1 : SEQ_READY;
}

static int finish_look(void *flow, struct err *err)
{
    struct certbot *c = flow;

    (void)err;
    switch (c->left) {
    case CERTBOT_LEFT_NOTHING:
        return seq_go_to(&c->seq, "look elsewhere");
    case CERTBOT_LEFT_JUNK:
        return seq_go_to(&c->seq, "remove it");
    case CERTBOT_LEFT_RUN:
    case CERTBOT_LEFT_UNKNOWN:
        break;
    }
    return SEQ_NEXT;
}

/* That it had to be ended decides nothing yet: it may have been through. */
static void on_orphan_done(void *owner, const struct err *err)
{
    struct certbot *c = owner;
    bool ended_by_us = err != NULL && err->kind == ERR_TIMEOUT;

    if (ended_by_us)
        c->ended_by_us = *err;
    seq_resume(&c->seq, ended_by_us ? NULL : err);
}

static int begin_wait(void *flow, struct err *err)
{
    struct certbot *c = flow;
    const struct process_name name = {.pid = c->record.pid, .started = c->record.started};
    const struct orphan_limits limits = {
        .timeout_ms = is_of_use(c) ? c->request.config->certbot.timeout_ms : 0,
        .term_grace_ms = CERTBOT_TERM_GRACE_MS,
    };
    char date[TEXT_TIME_SIZE];

    (void)err;
    log_info("certbot, begun by an earlier run of this program on %s%s, %s",
             text_time(date, c->record.begun), is_of_use(c) ? "" : " and of no use now",
             process_name_lives(&name) ? "is still at work" : "has ended");
    c->ended_by_us = (struct err)ERR_INIT;
    orphan_start(&c->orphan, c->request.loop, &name, &limits, on_orphan_done, c);
    return SEQ_WAIT;
}

static int finish_wait(void *flow, struct err *err)
{
    struct certbot *c = flow;

    (void)err;
    return is_of_use(c) ? SEQ_NEXT : seq_go_to(&c->seq, "remove it");
}

static void abort_wait(void *flow)
{
    struct certbot *c = flow;

    orphan_cancel(&c->orphan);
}

/* One that was killed, too, or never got to begin, has said nothing: that is no failure. */
static int begin_judge(void *flow, struct err *err)
{
    struct certbot *c = flow;
    struct err reason = ERR_INIT;
    int failed;

    memcpy(c->folder, c->found, sizeof c->folder);
    c->taken_over = c->record.begun;
    failed = c->ended_by_us.kind == ERR_NONE ? certbot_judge(c, -1, 0, &reason)
                                             : certbot_judge_ended(c, &reason);
    if (failed == 0)
        return SEQ_READY;
    if (!c->ran || c->outcome.verdict != CERTBOT_KILLED) {
        *err = reason;
        return -1;
    }
    log_info("it was ended before it had a certificate, and left no reason");
    c->ran = false;
    c->taken_over = 0;
    c->folder[0] = '\0';
    return SEQ_READY;
}

static int finish_judge(void *flow, struct err *err)
{
    struct certbot *c = flow;

    (void)err;
    return c->chain_pem.len > 0 ? seq_go_to(&c->seq, "look elsewhere") : SEQ_NEXT;
}

static int begin_remove(void *flow, struct err *err)
{
    struct certbot *c = flow;

    log_info("%s, left by an earlier run of this program, is removed", c->found);
    return fs_remove_tree(c->found, err);
}

static int finish_elsewhere(void *flow, struct err *err)
{
    struct certbot *c = flow;

    (void)err;
    return ++c->place < CERTBOT_PLACES ? seq_go_to(&c->seq, "look for an earlier run")
                                       : SEQ_END;
}

/* The wait has its own time limit: certbot.timeout. */
static const struct seq_step steps[] = {
    {"look for an earlier run", begin_look, finish_look, NULL, 0},
    {"wait for its end", begin_wait, finish_wait, abort_wait, 0},
    {"judge it", begin_judge, finish_judge, NULL, 0},
    {"remove it", begin_remove, NULL, NULL, 0},
    {"look elsewhere", NULL, finish_elsewhere, NULL, 0},
    {0},
};

static void on_steps_done(void *owner, const struct err *err)
{
    struct certbot *c = owner;

    if (err != NULL && err->kind == ERR_CANCELED && c->folder[0] == '\0') {
        /* Ended in the middle of it: nothing stays but what is of use. */
        memcpy(c->folder, c->found, sizeof c->folder);
        if (!is_of_use(c))
            certbot_discard(c);
    }
    certbot_finish(c, err);
}

bool certbot_has_left(const struct config *config)
{
    for (int place = 0; place < CERTBOT_PLACES; place++) {
        char folder[FS_PATH_MAX];
        struct err too_long = ERR_INIT;

        if (certbot_place(config, place, folder, &too_long) == 0 && fs_exists(folder))
            return true;
    }
    return false;
}

void certbot_take_over(struct certbot *certbot, const struct certbot_request *request,
                       done_fn done, void *owner)
{
    *certbot = (struct certbot){.request = *request, .done = done, .owner = owner};
    seq_start(&certbot->seq, request->loop, "certbot of an earlier run", steps, certbot,
              on_steps_done, certbot);
}

/* ---- at the start ---- */

static bool is_one_of(const struct buf *chain_pem, const char *const *leaves,
                      size_t count)
{
    struct err unusable = ERR_INIT;
    struct chain *chain = NULL;
    bool found = false;

    if (chain_parse(chain_pem->data, chain_pem->len, &chain, &unusable) < 0)
        return false;
    for (size_t i = 0; i < count; i++)
        found = found || strcmp(leaves[i], chain_leaf(chain)->sha256) == 0;
    chain_free(chain);
    return found;
}

static bool is_needed(const char *folder, const struct certbot_record *record,
                      const char *const *leaves, size_t leaf_count)
{
    const struct process_name name = {.pid = record->pid, .started = record->started};
    BUF_SCOPED chain_pem = {0};

    return process_name_lives(&name) ||
           !certbot_read_complete_chain(folder, &chain_pem) ||
           !is_one_of(&chain_pem, leaves, leaf_count);
}

bool certbot_clean_up(const struct config *config, const char *const *leaves,
                      size_t leaf_count)
{
    static const struct config_list nobody = {.count = 0};
    static const struct certbot_purpose none = {"", &nobody, ""};
    bool any_left = false;

    for (int place = 0; place < CERTBOT_PLACES; place++) {
        struct certbot_record record;
        char folder[FS_PATH_MAX];
        struct err err = ERR_INIT;
        enum certbot_left left;

        if (certbot_place(config, place, folder, &err) < 0)
            continue;
        left = certbot_look(folder, &none, &record, &err);
        if (left == CERTBOT_LEFT_NOTHING)
            continue;
        if (left == CERTBOT_LEFT_UNKNOWN) {
            log_warning("%s stays: %s", folder, err.message);
            any_left = true;
            continue;
        }
        if (left == CERTBOT_LEFT_RUN && is_needed(folder, &record, leaves, leaf_count)) {
            any_left = true;
            continue;
        }
        if (fs_remove_tree(folder, &err) < 0)
            log_warning("cannot remove what an earlier run left: %s", err.message);
        else
            log_info("%s, left by an earlier run of this program, is removed", folder);
    }
    return any_left;
}
