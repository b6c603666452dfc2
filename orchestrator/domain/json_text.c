#include "domain/json_text.h"

#include "base/secret.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>

enum { ESCAPED_BYTES = 4 }; /* \xNN */

char *json_dump_whole(const json_t *root, size_t flags)
{
    unsigned long refusals = wipe_refusals();
    char *text = json_dumps(root, flags);

    if (wipe_refusals() == refusals)
        return text;
    wipe_free(text);
    return NULL;
}

int json_to_text(json_t *root, size_t indent, const char *complaint, struct buf *ret,
                 struct err *err)
{
    char *text = root == NULL ? NULL : json_dump_whole(root, JSON_INDENT(indent));
    int failed;

    json_decref(root);
    if (text == NULL)
        return err_set(err, ERR_SYS, "%s", complaint);
    failed = buf_append_str(ret, text, err);
    if (failed == 0)
        failed = buf_append_str(ret, "\n", err);
    wipe_free(text);
    return failed;
}

struct dump {
    struct buf *ret;
    struct err err; /* of the buffer, if it was that */
};

static int on_dump_piece(const char *text, size_t len, void *data)
{
    struct dump *dump = data;

    return buf_append(dump->ret, text, len, &dump->err);
}

int json_append(const json_t *root, size_t flags, struct buf *ret, struct err *err)
{
    struct dump dump = {.ret = ret, .err = ERR_INIT};

    /* It does not mind each piece that was not taken. */
    if (json_dump_callback(root, on_dump_piece, &dump, flags) == 0 &&
        dump.err.kind == ERR_NONE)
        return 0;
    if (dump.err.kind == ERR_NONE)
        return err_sys(err, ENOMEM, "cannot write JSON");
    *err = dump.err;
    return -1;
}

json_t *json_load_whole(const char *text, size_t len, size_t flags,
                        json_error_t *ret_where)
{
    unsigned long refusals = wipe_refusals();
    json_t *root = json_loadb(text, len, flags, ret_where);

    if (wipe_refusals() == refusals)
        return root;
    json_decref(root);
    return NULL;
}

json_t *json_from_text(const char *text, size_t len, size_t flags, struct err *err)
{
    unsigned long refusals = wipe_refusals();
    json_error_t where;
    json_t *root = json_load_whole(text, len, flags, &where);

    if (root == NULL && wipe_refusals() != refusals)
        err_sys(err, ENOMEM, "cannot read JSON");
    else if (root == NULL)
        err_set(err, ERR_CONFIG, "not JSON: line %d: %s", where.line, where.text);
    return root;
}

json_t *json_of_text(const char *text)
{
    size_t len = strlen(text);
    size_t size = ESCAPED_BYTES * len + 1;
    char *safe = wipe_malloc(size);
    json_t *ret = NULL;

    if (safe != NULL) {
        text_escape(safe, size, text, len);
        ret = json_string(safe);
    }
    wipe_free(safe);
    return ret;
}
