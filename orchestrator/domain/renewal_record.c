#include "domain/renewal_record.h"

#include "base/text.h"
#include "domain/json_text.h"

#include <stdio.h>
#include <string.h>

enum { VERSION = 1 };

/* The last second of the year 9999. */
static const int64_t time_max = INT64_C(253402300799);

/* ---- questions to the CA ---- */

void renewal_record_note_answer(struct renewal_record *record,
                                const struct renewal_info *info, int64_t retry_after_s,
                                int64_t now, uint32_t random)
{
    static const struct renewal_info nothing = {.explanation = ""};
    const struct renewal_asked asked = {.retry_after_s = retry_after_s};

    record->info = info == NULL ? nothing : *info;
    record->failures = 0;
    record->asked_at = now;
    record->ask_at = now + renewal_ask_after_s(&asked, random);
}

void renewal_record_note_failure(struct renewal_record *record, bool lasting,
                                 int64_t retry_after_s, int64_t now, uint32_t random)
{
    struct renewal_asked asked = {.lasting = lasting, .retry_after_s = retry_after_s};

    if (record->failures < INT32_MAX)
        record->failures++;
    asked.failures = record->failures;
    record->ask_at = now + renewal_ask_after_s(&asked, random);
}

/* ---- writing ---- */

static json_t *window_of(const struct renewal_window *window)
{
    return renewal_window_is_sound(window)
               ? json_pack("{s:I, s:I}", "start", (json_int_t)window->start, "end",
                           (json_int_t)window->end)
               : json_null();
}

int renewal_record_write(const struct renewal_record *record, struct buf *ret,
                         struct err *err)
{
    json_t *root = json_pack(
        "{s:i, s:s, s:s, s:I, s:b, s:o, s:s, s:I, s:I, s:I}", "version", VERSION, "leaf",
        record->leaf, "directory", record->directory, "spread",
        (json_int_t)record->spread, "shared", record->shared, "window",
        window_of(&record->info.window), "explanation", record->info.explanation,
        "asked_at", (json_int_t)record->asked_at, "ask_at", (json_int_t)record->ask_at,
        "failures", (json_int_t)record->failures);

    return json_to_text(root, 1, "the renewal cannot be written as JSON", ret, err);
}

/* ---- reading ---- */

static int read_integer(const json_t *root, const char *name, int64_t low, int64_t high,
                        int64_t *ret, struct err *err)
{
    const json_t *value = json_object_get(root, name);

    *ret = json_integer_value(value);
    return json_is_integer(value) && *ret >= low && *ret <= high
               ? 0
               : err_set(err, ERR_CONFIG, "\"%s\" is not such a number", name);
}

static int read_window(const json_t *root, struct renewal_window *ret, struct err *err)
{
    const json_t *window = json_object_get(root, "window");

    if (json_is_null(window))
        return 0;
    if (read_integer(window, "start", INT64_MIN, INT64_MAX, &ret->start, err) < 0 ||
        read_integer(window, "end", INT64_MIN, INT64_MAX, &ret->end, err) < 0)
        return -1;
    return renewal_window_is_sound(ret)
               ? 0
               : err_set(err, ERR_CONFIG, "\"window\" does not end after its start");
}

static int read_text(const json_t *root, const char *name, char *ret, size_t size,
                     struct err *err)
{
    const char *text = json_string_value(json_object_get(root, name));

    if (text == NULL || strlen(text) >= size)
        return err_set(err, ERR_CONFIG, "\"%s\" is not a text of less than %zu bytes",
                       name, size);
    memcpy(ret, text, strlen(text) + 1);
    return 0;
}

static int read_leaf(const json_t *root, struct renewal_record *ret, struct err *err)
{
    unsigned char digest[32];

    if (read_text(root, "leaf", ret->leaf, sizeof ret->leaf, err) < 0)
        return -1;
    return text_unhex(digest, sizeof digest, ret->leaf) < 0
               ? err_set(err, ERR_CONFIG, "\"leaf\" is not the SHA-256 of a leaf")
               : 0;
}

static int read_record(const json_t *root, struct renewal_record *ret, struct err *err)
{
    int64_t spread;
    int64_t failures;

    if (read_leaf(root, ret, err) < 0 ||
        read_text(root, "directory", ret->directory, sizeof ret->directory, err) < 0 ||
        read_window(root, &ret->info.window, err) < 0 ||
        read_text(root, "explanation", ret->info.explanation,
                  sizeof ret->info.explanation, err) < 0 ||
        read_integer(root, "spread", 0, UINT32_MAX, &spread, err) < 0 ||
        read_integer(root, "asked_at", 0, time_max, &ret->asked_at, err) < 0 ||
        read_integer(root, "ask_at", 0, time_max, &ret->ask_at, err) < 0 ||
        read_integer(root, "failures", 0, INT32_MAX, &failures, err) < 0)
        return -1;
    ret->spread = (uint32_t)spread;
    ret->failures = (unsigned)failures;
    ret->shared = json_is_true(json_object_get(root, "shared"));
    return 0;
}

int renewal_record_read(const char *json, struct renewal_record *ret, struct err *err)
{
    json_t *root = json_from_text(json, strlen(json), JSON_REJECT_DUPLICATES, err);
    int failed;

    *ret = (struct renewal_record){.leaf = ""};
    if (root == NULL)
        return -1;
    if (json_integer_value(json_object_get(root, "version")) != VERSION)
        failed = err_set(err, ERR_CONFIG, "not of version %d", VERSION);
    else
        failed = read_record(root, ret, err);
    json_decref(root);
    if (failed != 0)
        *ret = (struct renewal_record){.leaf = ""};
    return failed;
}
