/* What the ledger of orders has of the issue flow, and says to it. */
#include "flows/issue_internal.h"

#include "base/log.h"
#include "base/random.h"

#include <time.h>

struct ledger_subject issue_flow_subject(const struct issue_flow *flow)
{
    struct ledger_subject subject = flow->request.question->subject;

    subject.directory = flow->request.authority->directory;
    return subject;
}

/* Orders whose end nobody will ever know. The first one costs no time. */
static void give_up_lost_orders(struct issue_flow *flow)
{
    struct ledger *ledger = &flow->request.ledger->ledger;
    const struct ledger_subject subject = issue_flow_subject(flow);
    uint64_t wait_ms = pace_lost_order(ledger_row(ledger, &subject, LEDGER_DOUBTFUL) + 1,
                                       &flow->request.pace, random_number());

    if (ledger_give_up_pending(ledger, &subject, (int64_t)(wait_ms + 999) / 1000) > 0)
        log_warning(
            "it is not known what became of an order at %s: it counts as all "
            "that it may have been",
            subject.directory);
}

/* Also whether the ledger can be written, before more is done for an order. */
int issue_begin_ask_ledger(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;
    struct ledger_file *file = flow->request.ledger;
    int64_t now = (int64_t)time(NULL);
    struct ledger_answer answer;

    give_up_lost_orders(flow);
    if (ledger_file_save(file, now, err) < 0)
        return -1;
    answer = ledger_ask(&file->ledger, flow->request.question, now);
    flow->held =
        answer.action != (flow->request.rehearsal ? LEDGER_REHEARSE : LEDGER_ORDER);
    return SEQ_READY;
}

int issue_finish_ask_ledger(void *owner, struct err *err)
{
    const struct issue_flow *flow = owner;

    (void)err;
    return flow->held || flow->request.takes_over_only ? SEQ_END : SEQ_NEXT;
}

int issue_begin_enter_order(void *owner, struct err *err)
{
    struct issue_flow *flow = owner;
    const struct ledger_subject subject = issue_flow_subject(flow);

    if (ledger_file_begin(flow->request.ledger, &subject, (int64_t)time(NULL),
                          &flow->order_at, err) == 0)
        return SEQ_READY;
    flow->asked_ca = false; /* for nothing that it counts */
    return -1;
}

void issue_withdraw_order(struct issue_flow *flow)
{
    const struct ledger_subject subject = issue_flow_subject(flow);

    ledger_withdraw(&flow->request.ledger->ledger, &subject, flow->order_at);
    flow->order_at = 0;
}

void issue_enter_issued(struct issue_flow *flow)
{
    static const struct ledger_entry issued = {.outcome = LEDGER_ISSUED};
    const struct ledger_subject subject = issue_flow_subject(flow);
    struct ledger_file *file = flow->request.ledger;
    int64_t now = (int64_t)time(NULL);
    struct err err = ERR_INIT;

    if (ledger_end(&file->ledger, &subject, flow->order_at, &issued, now, &err) < 0 ||
        ledger_file_save(file, now, &err) < 0)
        log_warning("%s", err.message);
}
