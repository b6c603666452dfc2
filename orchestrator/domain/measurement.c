#include "domain/measurement.h"

#include "base/text.h"

#include <string.h>

enum { SHA256_BYTES = 32, SHA256_HEX_BYTES = 64 };

void measurement_payload(char ret[MEASUREMENT_PAYLOAD_SIZE], const char leaf_sha256[65])
{
    text_hex(ret, leaf_sha256, SHA256_HEX_BYTES);
}

const char *measurement_leaf(const struct event *event, char ret[65])
{
    unsigned char sha256[SHA256_BYTES];

    ret[0] = '\0';
    if (event->payload == NULL)
        return "has no payload";
    if (event_unhex_exactly(event->payload, sha256, SHA256_BYTES)) {
        text_hex(ret, sha256, SHA256_BYTES);
        return "has a payload of 32 raw bytes, where verifiers expect the 64 characters "
               "of their hex";
    }
    if (!event_unhex_exactly(event->payload, ret, SHA256_HEX_BYTES)) {
        ret[0] = '\0';
        return "has a payload that is not 64 bytes in hex";
    }
    ret[SHA256_HEX_BYTES] = '\0';
    if (text_unhex(sha256, SHA256_BYTES, ret) < 0) {
        ret[0] = '\0';
        return "has a payload that is not a SHA-256 in lower-case hex";
    }
    if (strspn(ret, "0123456789abcdef") == SHA256_HEX_BYTES)
        return NULL;
    text_hex(ret, sha256, SHA256_BYTES);
    return "has a SHA-256 in upper-case hex as its payload, where verifiers expect "
           "lower-case hex";
}

bool measurement_last_leaf(const struct event_log *log, char ret_sha256[65])
{
    struct event last;
    char sha256[65];

    if (!event_log_last(log, MEASUREMENT_EVENT, &last) ||
        measurement_leaf(&last, sha256) != NULL)
        return false;
    memcpy(ret_sha256, sha256, sizeof sha256);
    return true;
}

int measurement_last_event(const char *tcb_info, char ret_sha256[65], bool *ret_found,
                           struct err *err)
{
    struct event_log *log = NULL;

    if (event_log_parse(tcb_info, strlen(tcb_info), &log, err) < 0)
        return -1;
    *ret_found = measurement_last_leaf(log, ret_sha256);
    event_log_free(log);
    return 0;
}
