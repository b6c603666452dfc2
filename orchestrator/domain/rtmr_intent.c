#include "domain/rtmr_intent.h"

#include "base/text.h"
#include "domain/event_log.h"
#include "domain/json_text.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { FORMAT = 1 };

struct event_content rtmr_intent_content(const struct rtmr_intent *intent)
{
    return (struct event_content){
        .name = intent->name,
        .name_len = strlen(intent->name),
        .payload = intent->payload,
        .payload_len = intent->payload_len,
    };
}

int rtmr_intent_after(const struct rtmr_intent *intent,
                      unsigned char ret[EVENT_DIGEST_BYTES], struct err *err)
{
    const struct event_content content = rtmr_intent_content(intent);
    unsigned char digest[EVENT_DIGEST_BYTES];

    if (event_digest(digest, intent->version, &content, err) < 0)
        return -1;
    memcpy(ret, intent->before, EVENT_DIGEST_BYTES);
    return event_extend(ret, digest, err);
}

int rtmr_intent_write(const struct rtmr_intent *intent, struct buf *ret, struct err *err)
{
    char payload[2 * RTMR_PAYLOAD_MAX_BYTES + 1];
    char before[EVENT_DIGEST_HEX_SIZE];
    char text[RTMR_INTENT_MAX_BYTES];
    json_t *object;
    size_t len;

    buf_init(ret, RTMR_INTENT_MAX_BYTES);
    text_hex(payload, intent->payload, intent->payload_len);
    text_hex(before, intent->before, sizeof intent->before);
    object = json_pack("{s:i, s:s, s:i, s:s, s:s, s:s, s:I}", "format", FORMAT, "boot_id",
                       intent->boot_id, "version", intent->version, "event", intent->name,
                       "payload", payload, "before", before, "log_size",
                       (json_int_t)intent->log_size);
    if (object == NULL)
        return err_set(err, ERR_PEER, "the name of an event is not UTF-8");
    len = json_dumpb(object, text, sizeof text, JSON_INDENT(1));
    json_decref(object);
    if (len == 0 || len > sizeof text)
        return err_sys(err, ENOMEM, "cannot hold an event");
    return buf_append(ret, text, len, err);
}

static bool take_text(char *ret, size_t size, const json_t *member)
{
    size_t len = json_string_length(member);

    if (!json_is_string(member) || len >= size)
        return false;
    memcpy(ret, json_string_value(member), len + 1);
    return true;
}

static bool read_members(struct rtmr_intent *ret, const json_t *object)
{
    const json_t *payload = json_object_get(object, "payload");
    const json_t *log_size = json_object_get(object, "log_size");
    json_int_t version = json_integer_value(json_object_get(object, "version"));

    ret->version = version == EVENT_VERSION_2 ? EVENT_VERSION_2 : EVENT_VERSION_1;
    ret->log_size = json_integer_value(log_size);
    ret->payload_len = json_string_length(payload) / 2;
    return json_integer_value(json_object_get(object, "format")) == FORMAT &&
           version == ret->version && json_is_integer(log_size) && ret->log_size >= 0 &&
           take_text(ret->boot_id, sizeof ret->boot_id,
                     json_object_get(object, "boot_id")) &&
           take_text(ret->name, sizeof ret->name, json_object_get(object, "event")) &&
           ret->payload_len <= sizeof ret->payload &&
           event_unhex_exactly(payload, ret->payload, ret->payload_len) &&
           event_unhex_exactly(json_object_get(object, "before"), ret->before,
                               sizeof ret->before);
}

int rtmr_intent_read(struct rtmr_intent *ret, const char *text, size_t len,
                     struct err *err)
{
    /* Without JSON_ALLOW_NUL: a name is a C string here. */
    json_t *object = json_load_whole(text, len, JSON_REJECT_DUPLICATES, NULL);
    bool good;

    *ret = (struct rtmr_intent){0};
    good = json_is_object(object) && read_members(ret, object);
    json_decref(object);
    if (!good)
        return err_set(err, ERR_PEER, "damaged, not the intent of an extension of RTMR3");
    return 0;
}
