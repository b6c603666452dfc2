#include "domain/measurement.h"

#include "base/text.h"

#include <jansson.h>
#include <string.h>

enum {
    RUNTIME_REGISTER = 3, /* RTMR3: the only one that applications extend */
    SHA256_HEX_BYTES = 64,
};

void measurement_payload(char ret[MEASUREMENT_PAYLOAD_SIZE], const char leaf_sha256[65])
{
    text_hex(ret, leaf_sha256, SHA256_HEX_BYTES);
}

/* By length: other applications' names may hold zero bytes. */
static bool is_certificate_event(const json_t *entry)
{
    const json_t *name = json_object_get(entry, "event");
    const json_t *imr = json_object_get(entry, "imr");

    return json_is_integer(imr) && json_integer_value(imr) == RUNTIME_REGISTER &&
           json_is_string(name) &&
           json_string_length(name) == strlen(MEASUREMENT_EVENT) &&
           memcmp(json_string_value(name), MEASUREMENT_EVENT,
                  strlen(MEASUREMENT_EVENT)) == 0;
}

/* The last one decides, also for verifiers, however many there are. */
static int find_last(const json_t *log, const json_t **ret, struct err *err)
{
    const json_t *entry;
    size_t i;

    *ret = NULL;
    json_array_foreach(log, i, entry)
    {
        if (!json_is_object(entry))
            return err_set(err, ERR_PEER, "event log: entry %zu is not a JSON object",
                           i + 1);
        if (is_certificate_event(entry))
            *ret = entry;
    }
    return 0;
}

static int read_payload(const json_t *entry, char ret[SHA256_HEX_BYTES + 1],
                        struct err *err)
{
    const json_t *payload = json_object_get(entry, "event_payload");

    if (json_string_length(payload) != MEASUREMENT_PAYLOAD_SIZE - 1 ||
        text_unhex((unsigned char *)ret, SHA256_HEX_BYTES, json_string_value(payload)) <
            0)
        return err_set(err, ERR_PEER,
                       "event log: the payload of the last \"%s\" is not %d bytes in hex",
                       MEASUREMENT_EVENT, SHA256_HEX_BYTES);
    ret[SHA256_HEX_BYTES] = '\0';
    if (strspn(ret, "0123456789abcdef") != SHA256_HEX_BYTES)
        return err_set(err, ERR_PEER,
                       "event log: the payload of the last \"%s\" is not a SHA-256 in "
                       "lower-case hex",
                       MEASUREMENT_EVENT);
    return 0;
}

static int search(const json_t *root, char ret_sha256[65], bool *ret_found,
                  struct err *err)
{
    const json_t *log = json_object_get(root, "event_log");
    char sha256[SHA256_HEX_BYTES + 1];
    const json_t *last;

    if (!json_is_array(log))
        return err_set(err, ERR_PEER, "tcb_info has no array \"event_log\"");
    if (find_last(log, &last, err) < 0)
        return -1;
    if (last != NULL) {
        if (read_payload(last, sha256, err) < 0)
            return -1;
        memcpy(ret_sha256, sha256, sizeof sha256);
    }
    *ret_found = last != NULL;
    return 0;
}

int measurement_last_event(const char *tcb_info, char ret_sha256[65], bool *ret_found,
                           struct err *err)
{
    json_error_t where;
    /* Zero bytes in a foreign event must not hide ours. */
    json_t *root = json_loads(tcb_info, JSON_ALLOW_NUL, &where);
    int failed;

    if (root == NULL)
        return err_set(err, ERR_PEER, "tcb_info is not JSON (line %d, column %d)",
                       where.line, where.column);
    failed = search(root, ret_sha256, ret_found, err);
    json_decref(root);
    return failed;
}
