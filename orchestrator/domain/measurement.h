/*
 * measurement: the certificate event in the TEE's event log. Pure.
 *
 * A verifier compares the leaf of its TLS session with the payload of the last event of this
 * name. The payload is the 64 ASCII characters of the hex SHA-256 of the leaf's DER; on the
 * wire to the guest agent it is hex once more.
 */
#ifndef CM_DOMAIN_MEASUREMENT_H
#define CM_DOMAIN_MEASUREMENT_H

#include "base/err.h"
#include "domain/event_log.h"

#include <stdbool.h>
#include <stddef.h>

#define MEASUREMENT_EVENT "New TLS Certificate"
#define MEASUREMENT_PAYLOAD_SIZE 129

void measurement_payload(char ret[MEASUREMENT_PAYLOAD_SIZE], const char leaf_sha256[65]);

/*
 * The leaf that a certificate event names. NULL, or what is wrong with its payload, worded to
 * stand behind "the event"; `ret` is then what was meant where that can be seen, else "".
 */
const char *measurement_leaf(const struct event *event, char ret[65]);

/*
 * The leaf that the last certificate event of a log names to verifiers. False when there is no such
 * event, and when measurement_leaf finds something wrong with the last one, which another program
 * must have made: verifiers take no earlier one for it.
 */
bool measurement_last_leaf(const struct event_log *log, char ret_sha256[65]);

/*
 * The same of the agent's `tcb_info`, in any form that event_log_parse takes. ERR_PEER when there
 * is no readable log.
 */
int measurement_last_event(const char *tcb_info, char ret_sha256[65], bool *ret_found,
                           struct err *err);

#endif
