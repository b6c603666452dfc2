/* issue_internal: what issue_flow.c (the steps) and issue_ledger.c (what the ledger has of them) share. */
#ifndef CM_FLOWS_ISSUE_INTERNAL_H
#define CM_FLOWS_ISSUE_INTERNAL_H

#include "flows/issue_flow.h"

/* Steps: whether there may be an order, and that there is one. */
int issue_begin_ask_ledger(void *owner, struct err *err);
int issue_finish_ask_ledger(void *owner, struct err *err);
int issue_begin_enter_order(void *owner, struct err *err);

/* Nothing was ordered: the CA did not know the account. */
void issue_withdraw_order(struct issue_flow *flow);

/* The order has brought something, whatever becomes of that. */
void issue_enter_issued(struct issue_flow *flow);

#endif
