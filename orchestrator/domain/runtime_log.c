#include "domain/runtime_log.h"

#include "base/text.h"
#include "domain/json_text.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Each becomes some hundred bytes of memory. A real log has some tens. */
enum { LINES_MAX = 50000, LINE_MAX_BYTES = 1024 * 1024 };

#define BASE64_SIZE(len) (((len) + 2) / 3 * 4 + 1)

/* ---- base64 (RFC 4648 §4, with padding) ---- */

/* Caller: free. NULL without memory. */
static char *to_base64(const void *bytes, size_t len)
{
    char *text = malloc(BASE64_SIZE(len));

    if (text != NULL)
        EVP_EncodeBlock((unsigned char *)text, bytes, (int)len);
    return text;
}

/*
 * OpenSSL's decoder forgives blanks and more and counts padding as zero bytes; what encodes to
 * the same text again was right. Caller: free, also after -1.
 */
static int from_base64(const char *text, size_t len, unsigned char **ret, size_t *ret_len)
{
    size_t padding = 0;
    char *again;
    int same;

    *ret = malloc(len / 4 * 3 + 1);
    if (*ret == NULL || len % 4 != 0 ||
        EVP_DecodeBlock(*ret, (const unsigned char *)text, (int)len) < 0)
        return -1;
    while (padding < 2 && padding < len && text[len - 1 - padding] == '=')
        padding++;
    *ret_len = len / 4 * 3 - padding;
    again = to_base64(*ret, *ret_len);
    same = again != NULL && strlen(again) == len && memcmp(again, text, len) == 0;
    free(again);
    return same ? 0 : -1;
}

/* ---- a line ---- */

static json_t *line_object(int version, const struct event_content *content,
                           struct err *err)
{
    json_t *name = json_stringn(content->name, content->name_len);
    char *payload = to_base64(content->payload, content->payload_len);
    json_t *object = NULL;

    if (name == NULL)
        err_set(err, ERR_PEER, "the name of an event is not UTF-8");
    else if (payload == NULL)
        err_sys(err, ENOMEM, "cannot hold an event");
    else if (version == EVENT_VERSION_1)
        object = json_pack("{s:O, s:s}", "event", name, "payload", payload);
    else
        object = json_pack("{s:O, s:s, s:i}", "event", name, "payload", payload,
                           "version", version);
    if (object == NULL && name != NULL && payload != NULL)
        err_sys(err, ENOMEM, "cannot hold an event");
    json_decref(name);
    free(payload);
    return object;
}

int runtime_log_line(struct buf *ret, int version, const struct event_content *content,
                     struct err *err)
{
    json_t *object;
    int failed;

    buf_init(ret, LINE_MAX_BYTES);
    object = line_object(version, content, err);
    if (object == NULL)
        return -1;
    failed = json_append(object, JSON_COMPACT, ret, err);
    json_decref(object);
    if (failed == 0)
        failed = buf_append_str(ret, "\n", err);
    if (failed < 0)
        buf_done(ret);
    return failed;
}

/* ---- the file ---- */

static json_t *make_entry(json_t *name, int version, const void *payload,
                          size_t payload_len, struct err *err)
{
    const struct event_content content = {
        .name = json_string_value(name),
        .name_len = json_string_length(name),
        .payload = payload,
        .payload_len = payload_len,
    };
    unsigned char digest[EVENT_DIGEST_BYTES];
    char digest_hex[EVENT_DIGEST_HEX_SIZE];
    char *payload_hex;
    json_t *entry;

    if (event_digest(digest, version, &content, err) < 0)
        return NULL;
    text_hex(digest_hex, digest, sizeof digest);
    payload_hex = malloc(2 * payload_len + 1);
    if (payload_hex == NULL) {
        err_sys(err, ENOMEM, "cannot hold an event");
        return NULL;
    }
    text_hex(payload_hex, payload, payload_len);
    entry = json_pack("{s:i, s:i, s:s, s:O, s:s, s:i}", "imr", EVENT_LOG_REGISTER,
                      "event_type", EVENT_TYPE_RUNTIME, "digest", digest_hex, "event",
                      name, "event_payload", payload_hex, "version", version);
    free(payload_hex);
    if (entry == NULL)
        err_sys(err, ENOMEM, "cannot hold an event");
    return entry;
}

static json_t *read_object(const json_t *object, struct err *err)
{
    json_t *name = json_object_get(object, "event");
    const json_t *payload = json_object_get(object, "payload");
    const json_t *said = json_object_get(object, "version");
    json_int_t version = said == NULL ? EVENT_VERSION_1 : json_integer_value(said);
    unsigned char *bytes = NULL;
    json_t *entry = NULL;
    size_t len = 0;

    if (!json_is_string(name))
        err_set(err, ERR_PEER, "no name (member event)");
    else if (version != EVENT_VERSION_1 && version != EVENT_VERSION_2)
        err_set(err, ERR_PEER, "a version that is neither 1 nor 2");
    else if (!json_is_string(payload) ||
             from_base64(json_string_value(payload), json_string_length(payload), &bytes,
                         &len) < 0)
        err_set(err, ERR_PEER, "a payload that is not base64");
    else
        entry = make_entry(name, (int)version, bytes, len, err);
    free(bytes);
    return entry;
}

static int read_line(json_t *entries, const char *line, size_t len, struct err *err)
{
    json_t *object =
        json_load_whole(line, len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
    json_t *entry;

    if (!json_is_object(object)) {
        json_decref(object);
        return err_set(err, ERR_PEER, "not a JSON object");
    }
    entry = read_object(object, err);
    json_decref(object);
    if (entry == NULL)
        return -1;
    if (json_array_append_new(entries, entry) < 0)
        return err_sys(err, ENOMEM, "cannot hold an event");
    return 0;
}

static int read_lines(json_t *entries, const char *text, size_t len, struct err *err)
{
    const char *end = text + len;
    size_t number = 0;

    for (const char *at = text; at < end;) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));

        if (++number > LINES_MAX)
            return err_set(err, ERR_PEER, "more than the %d lines allowed", LINES_MAX);
        if (line_end == NULL)
            return err_set(err, ERR_PEER, "line %zu is not complete", number);
        if (read_line(entries, at, (size_t)(line_end - at), err) < 0)
            return err_wrap(err, "line %zu", number);
        at = line_end + 1;
    }
    return 0;
}

int runtime_log_parse(const char *text, size_t len, struct event_log **ret,
                      struct err *err)
{
    json_t *entries = json_array();

    if (entries == NULL)
        return err_sys(err, ENOMEM, "cannot hold an event log");
    if (read_lines(entries, text, len, err) < 0) {
        json_decref(entries);
        return -1;
    }
    return event_log_new(entries, ret, err);
}
