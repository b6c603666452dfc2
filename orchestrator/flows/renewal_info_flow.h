/*
 * renewal info flow: asks the CA when it would have the served leaf renewed, and keeps the answer.
 *
 *     ask CA → keep record
 *
 * A CA that does not answer does not fail the flow: what was known before counts on, and the record
 * says when it is asked again. The flow fails only when the record cannot be kept; it holds in this
 * life all the same.
 */
#ifndef CM_FLOWS_RENEWAL_INFO_FLOW_H
#define CM_FLOWS_RENEWAL_INFO_FLOW_H

#include "adapters/renewal_file.h"
#include "adapters/renewal_info.h"
#include "adapters/store.h"
#include "runtime/seq.h"

/* Borrowed until done. */
struct renewal_info_flow_request {
    struct renewal_info_request info;
    const struct store *store;
    const struct renewal_record *record; /* of the same leaf, as it is */
};

struct renewal_info_flow {
    /* Results, valid in done whether it failed or not. */
    struct renewal_record record; /* as it is now */
    struct err ask_err;           /* why there is no answer, ERR_NONE when there is one */
    bool offered;                 /* the CA gives such information */

    /* Private. */
    struct renewal_info_flow_request request;
    struct renewal_info_call call;
    struct seq seq;
};

extern const struct seq_step renewal_info_steps[];

void renewal_info_flow_start(struct renewal_info_flow *flow,
                             const struct renewal_info_flow_request *request,
                             done_fn done, void *owner);
void renewal_info_flow_cancel(struct renewal_info_flow *flow);

#endif
