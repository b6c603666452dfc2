#include "domain/event_log.h"

#include "base/text.h"
#include "domain/json_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * A value in memory is many times its length in JSON, so they are limited as well; a real log
 * has some thousands. Texts of JSON in texts of JSON: three in the answer of Info as a string.
 */
enum { VALUES_MAX = 250000, DEPTH_MAX = 6 };

struct event_log {
    json_t *entries; /* an array of objects */
    unsigned char shown_register[EVENT_DIGEST_BYTES];
    bool shows_register;
};

/* ---- parsing ---- */

/* More than there are, when strings hold such characters. */
static size_t count_values(const char *text, size_t len)
{
    size_t count = 0;

    for (size_t i = 0; i < len; i++)
        count += text[i] == '{' || text[i] == '[' || text[i] == ',';
    return count;
}

static json_t *parse_json(const char *text, size_t len, struct err *err)
{
    json_error_t where;
    json_t *root;

    if (len > EVENT_LOG_MAX_BYTES) {
        err_set(err, ERR_PEER, "event log: larger than the %d bytes allowed",
                EVENT_LOG_MAX_BYTES);
        return NULL;
    }
    if (count_values(text, len) > VALUES_MAX) {
        err_set(err, ERR_PEER, "event log: more than the %d JSON values allowed",
                VALUES_MAX);
        return NULL;
    }
    /*
     * Zero bytes in a foreign event must not hide ours. Of two members of one name every
     * reader takes another one.
     */
    root = json_load_whole(
        text, len, JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &where);
    if (root != NULL)
        return root;
    if (json_error_code(&where) == json_error_duplicate_key)
        err_set(err, ERR_PEER, "event log: a member twice in one object (line %d)",
                where.line);
    else
        err_set(err, ERR_PEER, "event log: not JSON (line %d, column %d)", where.line,
                where.column);
    return NULL;
}

static int check_entries(const json_t *entries, struct err *err)
{
    const json_t *entry;
    size_t i;

    json_array_foreach(entries, i, entry)
    {
        if (!json_is_object(entry))
            return err_set(err, ERR_PEER, "event log: entry %zu is not a JSON object",
                           i + 1);
    }
    return 0;
}

static void take_register(struct event_log *log, const json_t *shown)
{
    log->shows_register =
        event_unhex_exactly(shown, log->shown_register, sizeof log->shown_register);
}

/* Down to the array of entries, which is kept. */
static int find_entries(struct event_log *log, json_t *value, int depth, struct err *err)
{
    json_t *member;
    json_t *inner;
    int failed;

    if (depth > DEPTH_MAX)
        return err_set(err, ERR_PEER, "event log: hidden below %d levels", DEPTH_MAX);
    if (json_is_array(value)) {
        log->entries = json_incref(value);
        return check_entries(value, err);
    }
    if (json_is_string(value)) {
        inner = parse_json(json_string_value(value), json_string_length(value), err);
        if (inner == NULL)
            return -1;
        failed = find_entries(log, inner, depth + 1, err);
        json_decref(inner);
        return failed;
    }
    member = json_object_get(value, "tcb_info");
    if (member == NULL) {
        take_register(log, json_object_get(value, "rtmr3"));
        member = json_object_get(value, "event_log");
    }
    if (member == NULL)
        return err_set(err, ERR_PEER,
                       "event log: expected an array, or an object that has it as "
                       "\"event_log\" (tcb_info, GetQuote) or in \"tcb_info\" (Info)");
    return find_entries(log, member, depth + 1, err);
}

int event_log_parse(const char *text, size_t len, struct event_log **ret, struct err *err)
{
    struct event_log *log = calloc(1, sizeof *log);
    json_t *root;
    int failed;

    if (log == NULL)
        return err_sys(err, ENOMEM, "cannot read an event log");
    root = parse_json(text, len, err);
    failed = root == NULL ? -1 : find_entries(log, root, 0, err);
    json_decref(root);
    if (failed < 0)
        event_log_free(log);
    else
        *ret = log;
    return failed;
}

int event_log_new(json_t *entries, struct event_log **ret, struct err *err)
{
    struct event_log *log = calloc(1, sizeof *log);

    if (log == NULL || entries == NULL) {
        json_decref(entries);
        free(log);
        return err_sys(err, ENOMEM, "cannot hold an event log");
    }
    log->entries = entries;
    if (check_entries(entries, err) < 0) {
        event_log_free(log);
        return -1;
    }
    *ret = log;
    return 0;
}

void event_log_free(struct event_log *log)
{
    if (log == NULL)
        return;
    json_decref(log->entries);
    free(log);
}

/* ---- entries ---- */

static int64_t number(const json_t *entry, const char *name, int64_t absent)
{
    const json_t *member = json_object_get(entry, name);

    if (member == NULL || json_is_null(member))
        return absent;
    if (!json_is_integer(member) || json_integer_value(member) < 0)
        return -1;
    return json_integer_value(member);
}

static const json_t *text(const json_t *entry, const char *name)
{
    const json_t *member = json_object_get(entry, name);

    return json_is_null(member) ? NULL : member;
}

size_t event_log_length(const struct event_log *log)
{
    return json_array_size(log->entries);
}

void event_log_entry(const struct event_log *log, size_t index, struct event *ret)
{
    const json_t *entry = json_array_get(log->entries, index);

    *ret = (struct event){
        .position = index + 1,
        .imr = number(entry, "imr", -1),
        .type = number(entry, "event_type", -1),
        .version = number(entry, "version", 0),
        .name = text(entry, "event"),
        .digest = text(entry, "digest"),
        .payload = text(entry, "event_payload"),
        .preimage = text(entry, "preimage"),
    };
}

const unsigned char *event_log_shown_register(const struct event_log *log)
{
    return log->shows_register ? log->shown_register : NULL;
}

int event_log_replay(const struct event_log *log, unsigned char ret[EVENT_DIGEST_BYTES],
                     struct err *err)
{
    unsigned char digest[EVENT_DIGEST_BYTES];
    struct event event;

    memset(ret, 0, EVENT_DIGEST_BYTES);
    for (size_t i = 0; i < event_log_length(log); i++) {
        event_log_entry(log, i, &event);
        if (event.imr != EVENT_LOG_REGISTER)
            continue;
        if (!event_unhex_exactly(event.digest, digest, sizeof digest))
            return err_set(err, ERR_PEER,
                           "event log: the digest of entry %zu is not %d bytes in hex",
                           event.position, EVENT_DIGEST_BYTES);
        if (event_extend(ret, digest, err) < 0)
            return -1;
    }
    return 0;
}

/* By length: other applications' names may hold zero bytes. */
bool event_is_named(const struct event *event, const char *name)
{
    return json_is_string(event->name) &&
           json_string_length(event->name) == strlen(name) &&
           memcmp(json_string_value(event->name), name, strlen(name)) == 0;
}

bool event_log_last(const struct event_log *log, const char *name, struct event *ret)
{
    for (size_t i = event_log_length(log); i > 0; i--) {
        event_log_entry(log, i - 1, ret);
        if (ret->imr == EVENT_LOG_REGISTER && event_is_named(ret, name))
            return true;
    }
    return false;
}

bool event_unhex_exactly(const json_t *hex, void *ret, size_t len)
{
    return json_is_string(hex) && json_string_length(hex) == 2 * len &&
           text_unhex(ret, len, json_string_value(hex)) == 0;
}

int event_unhex(const json_t *hex, struct buf *ret, struct err *err)
{
    size_t len = json_string_length(hex) / 2;
    unsigned char *bytes = malloc(len + 1);
    int failed;

    buf_init(ret, len);
    if (bytes == NULL)
        return err_sys(err, ENOMEM, "cannot hold %zu bytes", len);
    if (!event_unhex_exactly(hex, bytes, len))
        failed = err_set(err, ERR_PEER, "not hex");
    else
        failed = buf_append(ret, bytes, len, err);
    free(bytes);
    return failed;
}
