#include "domain/journal.h"

#include "base/text.h"
#include "domain/json_text.h"

#include <string.h>

enum { VERSION = 1 };

/* ---- writing ---- */

/* `root` is consumed. */
static int append_json(json_t *root, struct buf *ret, struct err *err)
{
    return json_to_text(root, 1, "no memory left for the journal", ret, err);
}

int journal_intent_write(const struct journal_intent *intent, struct buf *ret,
                         struct err *err)
{
    return append_json(json_pack("{s:i, s:s, s:s, s:s}", "version", VERSION, "way",
                                 intent->way == JOURNAL_FORWARD ? "forward" : "back",
                                 "leaf", intent->leaf, "previous", intent->previous),
                       ret, err);
}

int journal_record_write(const struct journal_record *record, struct buf *ret,
                         struct err *err)
{
    return append_json(json_pack("{s:i, s:s, s:s, s:s}", "version", VERSION, "leaf",
                                 record->leaf, "event", record->event, "boot",
                                 record->boot),
                       ret, err);
}

/* ---- reading ---- */

static json_t *parse(const char *json, struct err *err)
{
    json_t *root = json_from_text(json, strlen(json), 0, err);

    if (root == NULL)
        return NULL;
    if (json_integer_value(json_object_get(root, "version")) != VERSION) {
        err_set(err, ERR_CONFIG, "not of version %d", VERSION);
        json_decref(root);
        return NULL;
    }
    return root;
}

/* The hex SHA-256 of a leaf or, where `optional`, an empty text. */
static int read_leaf(const json_t *root, const char *name, bool optional,
                     char ret[JOURNAL_LEAF_SIZE], struct err *err)
{
    const char *text = json_string_value(json_object_get(root, name));
    unsigned char digest[32];

    if (text == NULL || (text[0] == '\0' && !optional) ||
        (text[0] != '\0' && text_unhex(digest, sizeof digest, text) < 0))
        return err_set(err, ERR_CONFIG, "\"%s\" is not the SHA-256 of a leaf", name);
    memcpy(ret, text, strlen(text) + 1);
    return 0;
}

static int read_intent(const json_t *root, struct journal_intent *ret, struct err *err)
{
    const char *way = json_string_value(json_object_get(root, "way"));

    if (way == NULL || (strcmp(way, "forward") != 0 && strcmp(way, "back") != 0))
        return err_set(err, ERR_CONFIG, "\"way\" is neither forward nor back");
    ret->way = strcmp(way, "back") == 0 ? JOURNAL_BACK : JOURNAL_FORWARD;
    if (read_leaf(root, "leaf", false, ret->leaf, err) < 0)
        return -1;
    return read_leaf(root, "previous", ret->way == JOURNAL_FORWARD, ret->previous, err);
}

static int read_record(const json_t *root, struct journal_record *ret, struct err *err)
{
    const char *boot = json_string_value(json_object_get(root, "boot"));

    if (boot == NULL || strlen(boot) >= sizeof ret->boot)
        return err_set(err, ERR_CONFIG, "\"boot\" is not a boot id");
    memcpy(ret->boot, boot, strlen(boot) + 1);
    return read_leaf(root, "leaf", false, ret->leaf, err) < 0
               ? -1
               : read_leaf(root, "event", true, ret->event, err);
}

int journal_intent_read(const char *json, struct journal_intent *ret, struct err *err)
{
    json_t *root = parse(json, err);
    int failed = root == NULL ? -1 : 0;

    *ret = (struct journal_intent){.way = JOURNAL_FORWARD};
    if (failed == 0)
        failed = read_intent(root, ret, err);
    json_decref(root);
    if (failed != 0)
        *ret = (struct journal_intent){.way = JOURNAL_FORWARD};
    return failed;
}

int journal_record_read(const char *json, struct journal_record *ret, struct err *err)
{
    json_t *root = parse(json, err);
    int failed = root == NULL ? -1 : 0;

    *ret = (struct journal_record){.leaf = ""};
    if (failed == 0)
        failed = read_record(root, ret, err);
    json_decref(root);
    if (failed != 0)
        *ret = (struct journal_record){.leaf = ""};
    return failed;
}

const char *journal_wanted(const struct journal_intent *intent)
{
    return intent->way == JOURNAL_FORWARD ? intent->leaf : intent->previous;
}
