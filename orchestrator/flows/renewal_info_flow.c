#include "flows/renewal_info_flow.h"

#include "base/random.h"

#include <time.h>

static void on_asked(void *owner, const struct err *failure)
{
    struct renewal_info_flow *flow = owner;
    const struct renewal_info_call *call = &flow->call;
    int64_t now = (int64_t)time(NULL);
    bool canceled = failure != NULL && failure->kind == ERR_CANCELED;

    flow->offered = call->offered;
    if (failure == NULL) {
        renewal_record_note_answer(&flow->record, call->offered ? &call->info : NULL,
                                   call->retry_after_s, now, random_number());
    } else {
        flow->ask_err = *failure;
        renewal_record_note_failure(&flow->record, call->lasting, call->retry_after_s,
                                    now, random_number());
    }
    seq_resume(&flow->seq, canceled ? failure : NULL);
}

static int begin_ask(void *owner, struct err *err)
{
    struct renewal_info_flow *flow = owner;

    (void)err;
    renewal_info_start(&flow->call, &flow->request.info, on_asked, flow);
    return SEQ_WAIT;
}

static void abort_ask(void *owner)
{
    struct renewal_info_flow *flow = owner;

    renewal_info_cancel(&flow->call);
}

static int begin_keep(void *owner, struct err *err)
{
    struct renewal_info_flow *flow = owner;

    return renewal_file_save(flow->request.store, &flow->record, err) < 0 ? -1
                                                                          : SEQ_READY;
}

/* The calls have time limits of their own. */
const struct seq_step renewal_info_steps[] = {
    {"ask CA", begin_ask, NULL, abort_ask, 0},
    {"keep record", begin_keep, NULL, NULL, 0},
    {0},
};

void renewal_info_flow_start(struct renewal_info_flow *flow,
                             const struct renewal_info_flow_request *request,
                             done_fn done, void *owner)
{
    *flow = (struct renewal_info_flow){.request = *request, .record = *request->record};
    seq_start(&flow->seq, request->info.loop, "renewal info", renewal_info_steps, flow,
              done, owner);
}

void renewal_info_flow_cancel(struct renewal_info_flow *flow)
{
    seq_cancel(&flow->seq);
}
