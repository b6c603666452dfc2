/* The ledger as JSON. */
#include "base/secret.h"
#include "domain/json_text.h"
#include "domain/ledger_internal.h"

#include <string.h>

enum { VERSION = 1 };

/* ---- writing ---- */

static json_t *subjects_of(const struct ledger *ledger)
{
    json_t *list = json_array();

    for (size_t i = 0; i < ledger->subject_count; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "directory",
                                              ledger->subjects[i].directory, "names",
                                              ledger->subjects[i].names, "account",
                                              ledger->subjects[i].account));
    return list;
}

static void set_unless_zero(json_t *object, const char *name, int64_t value)
{
    if (value != 0)
        json_object_set_new(object, name, json_integer(value));
}

static json_t *entries_of(const struct ledger *ledger)
{
    json_t *list = json_array();

    for (size_t i = 0; i < ledger->count; i++) {
        const struct ledger_entry *entry = &ledger->entries[i];
        json_t *object =
            json_pack("{s:i, s:I, s:s}", "subject", (int)entry->subject, "at",
                      (json_int_t)entry->at, "outcome",
                      ledger_outcome_name((enum ledger_outcome)entry->outcome));

        set_unless_zero(object, "wait", entry->wait_s);
        set_unless_zero(object, "seen", entry->seen);
        set_unless_zero(object, "context", entry->context);
        json_array_append_new(list, object);
    }
    return list;
}

int ledger_write(const struct ledger *ledger, struct buf *ret, struct err *err)
{
    unsigned long refusals = wipe_refusals();
    json_t *root = json_pack("{s:i, s:o, s:o}", "version", VERSION, "subjects",
                             subjects_of(ledger), "entries", entries_of(ledger));
    bool is_whole;

    set_unless_zero(root, "unknown_before", ledger->unknown_before);
    is_whole =
        json_array_size(json_object_get(root, "subjects")) == ledger->subject_count &&
        json_array_size(json_object_get(root, "entries")) == ledger->count &&
        wipe_refusals() == refusals; /* an entry without its wait would not wait */
    if (!is_whole) {
        json_decref(root);
        root = NULL;
    }
    return json_to_text(root, 1, "the ledger cannot be written as JSON", ret, err);
}

/* ---- reading ---- */

/* A number within bounds; `optional`: 0 when it is missing. */
static bool read_number(const json_t *object, const char *name, bool optional,
                        json_int_t max, json_int_t *ret)
{
    const json_t *member = json_object_get(object, name);

    *ret = json_integer_value(member);
    if (member == NULL)
        return optional;
    return json_is_integer(member) && *ret >= 0 && *ret <= max;
}

static int read_subject(const json_t *object, struct ledger *ledger, struct err *err)
{
    const struct ledger_subject subject = {
        .directory = json_string_value(json_object_get(object, "directory")),
        .names = json_string_value(json_object_get(object, "names")),
        .account = json_string_value(json_object_get(object, "account")),
    };
    size_t index;
    size_t count = ledger->subject_count;

    if (subject.directory == NULL || subject.names == NULL || subject.account == NULL ||
        strlen(subject.names) > LEDGER_NAMES_SIZE)
        return err_set(err, ERR_CONFIG, "subject %zu is not one", count);
    if (ledger_add_subject(ledger, &subject, &index, err) < 0)
        return -1;
    return index == count ? 0
                          : err_set(err, ERR_CONFIG, "subject %zu is there twice", count);
}

static int read_entry(const json_t *object, struct ledger *ledger, struct err *err)
{
    enum { LONGEST_WAIT_S = 366 * 24 * 3600 };
    const json_int_t last_year = INT64_C(253402300799); /* of four digits */
    const char *outcome = json_string_value(json_object_get(object, "outcome"));
    json_int_t subject;
    json_int_t at;
    json_int_t wait_s;
    json_int_t seen;
    json_int_t context;
    struct ledger_entry entry;

    if (outcome == NULL || ledger_outcome_parse(outcome) == LEDGER_OUTCOMES ||
        !read_number(object, "subject", false, LEDGER_SUBJECTS_MAX, &subject) ||
        (size_t)subject >= ledger->subject_count ||
        !read_number(object, "at", false, last_year, &at) ||
        !read_number(object, "wait", true, LONGEST_WAIT_S, &wait_s) ||
        !read_number(object, "seen", true, last_year, &seen) ||
        !read_number(object, "context", true, UINT32_MAX, &context))
        return err_set(err, ERR_CONFIG, "entry %zu is not one", ledger->count);
    entry = (struct ledger_entry){
        .at = at,
        .seen = seen,
        .wait_s = wait_s,
        .context = (uint32_t)context,
        .subject = (unsigned short)subject,
        .outcome = (unsigned short)ledger_outcome_parse(outcome),
    };
    return ledger_append(ledger, &entry, err);
}

static int read_root(const json_t *root, struct ledger *ledger, struct err *err)
{
    const json_t *subjects = json_object_get(root, "subjects");
    const json_t *entries = json_object_get(root, "entries");
    json_int_t version;
    json_int_t unknown_before;
    json_t *item;
    size_t i;

    if (!read_number(root, "version", false, VERSION, &version) || version != VERSION)
        return err_set(err, ERR_CONFIG, "not of version %d", VERSION);
    if (!json_is_array(subjects) || !json_is_array(entries) ||
        !read_number(root, "unknown_before", true, INT64_MAX / 2, &unknown_before))
        return err_set(err, ERR_CONFIG, "not a ledger");
    ledger->unknown_before = unknown_before;
    json_array_foreach(subjects, i, item)
    {
        if (read_subject(item, ledger, err) < 0)
            return -1;
    }
    json_array_foreach(entries, i, item)
    {
        if (read_entry(item, ledger, err) < 0)
            return -1;
    }
    return 0;
}

int ledger_read(const struct buf *json, struct ledger *ret, struct err *err)
{
    json_t *root = json_from_text(buf_str(json), json->len, JSON_REJECT_DUPLICATES, err);
    int failed;

    *ret = (struct ledger){.count = 0};
    if (root == NULL)
        return -1;
    failed = read_root(root, ret, err);
    json_decref(root);
    if (failed != 0)
        ledger_done(ret);
    return failed;
}
