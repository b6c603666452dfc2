#include "domain/certbot_record.h"

#include "base/secret.h"
#include "domain/json_text.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>

static json_t *names_of(const struct certbot_purpose *purpose)
{
    json_t *names = json_array();

    for (size_t i = 0; i < purpose->names->count; i++)
        json_array_append_new(names, json_string(purpose->names->items[i]));
    return names;
}

int certbot_record_write(const struct certbot_record *record,
                         const struct certbot_purpose *purpose, struct buf *ret,
                         struct err *err)
{
    unsigned long refusals = wipe_refusals();
    json_t *object = json_pack(
        "{s:I, s:I, s:I, s:s, s:o, s:s}", "pid", (json_int_t)record->pid, "started",
        (json_int_t)record->started, "begun", (json_int_t)record->begun, "directory",
        purpose->directory, "names", names_of(purpose), "key", purpose->key);
    char text[CERTBOT_RECORD_MAX_BYTES];
    size_t len = json_dumpb(object, text, sizeof text, JSON_INDENT(1));

    json_decref(object);
    if (wipe_refusals() != refusals)
        return err_sys(err, ENOMEM, "cannot write the record of a run of certbot");
    if (len == 0 || len > sizeof text)
        return err_set(err, ERR_CONFIG, "the record of a run of certbot is too long");
    return buf_append(ret, text, len, err);
}

/* A number from `min` to `max`. */
static int read_number(const json_t *object, const char *name, json_int_t min,
                       json_int_t max, json_int_t *ret, struct err *err)
{
    const json_t *member = json_object_get(object, name);

    *ret = json_integer_value(member);
    if (!json_is_integer(member) || *ret < min || *ret > max)
        return err_set(err, ERR_CONFIG, "the record has no usable member \"%s\"", name);
    return 0;
}

static int read_text(const json_t *object, const char *name, const char *wanted,
                     bool *ret_same, struct err *err)
{
    const char *text = json_string_value(json_object_get(object, name));

    if (text == NULL)
        return err_set(err, ERR_CONFIG, "the record has no usable member \"%s\"", name);
    *ret_same = *ret_same && strcmp(text, wanted) == 0;
    return 0;
}

static int read_names(const json_t *object, const struct certbot_purpose *purpose,
                      bool *ret_same, struct err *err)
{
    const json_t *found = json_object_get(object, "names");
    json_t *wanted;

    if (!json_is_array(found))
        return err_set(err, ERR_CONFIG, "the record has no usable member \"names\"");
    wanted = names_of(purpose);
    *ret_same = *ret_same && json_equal(found, wanted) == 1;
    json_decref(wanted);
    return 0;
}

static int read_members(const json_t *object, const struct certbot_purpose *purpose,
                        struct certbot_record *ret, struct err *err)
{
    bool ours = true;
    json_int_t pid;
    json_int_t started;
    json_int_t begun;

    /* 1 is never a child of ours, and 0 and -1 are more than one process. */
    if (read_number(object, "pid", 2, INT_MAX, &pid, err) < 0 ||
        read_number(object, "started", 1, LLONG_MAX, &started, err) < 0 ||
        read_number(object, "begun", 0, LLONG_MAX, &begun, err) < 0 ||
        read_text(object, "directory", purpose->directory, &ours, err) < 0 ||
        read_names(object, purpose, &ours, err) < 0 ||
        read_text(object, "key", purpose->key, &ours, err) < 0)
        return -1;
    *ret = (struct certbot_record){.pid = (pid_t)pid,
                                   .started = (uint64_t)started,
                                   .begun = (int64_t)begun,
                                   .ours = ours};
    return 0;
}

int certbot_record_read(const struct buf *json, const struct certbot_purpose *purpose,
                        struct certbot_record *ret, struct err *err)
{
    json_t *object =
        json_from_text(buf_str(json), json->len, JSON_REJECT_DUPLICATES, err);
    unsigned long refusals = wipe_refusals();
    int failed;

    *ret = (struct certbot_record){.pid = 0};
    failed = object == NULL ? -1 : read_members(object, purpose, ret, err);
    json_decref(object);
    /* One that could not be compared is not somebody else's. */
    if (failed == 0 && wipe_refusals() != refusals)
        failed = err_sys(err, ENOMEM, "cannot compare the record of a run of certbot");
    return failed;
}
