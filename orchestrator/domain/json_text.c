#include "domain/json_text.h"

#include "base/secret.h"

int json_to_text(json_t *root, size_t indent, const char *complaint, struct buf *ret,
                 struct err *err)
{
    char *text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(indent));
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
