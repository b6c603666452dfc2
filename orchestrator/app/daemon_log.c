/* How much is logged can be changed while we run, until settings are read the next time. */
#include "app/daemon_internal.h"

#include "base/log.h"
#include "domain/json_text.h"

#include <stdio.h>

static int write_level(struct server_answer *ret, struct err *err)
{
    return json_to_text(json_pack("{s:s}", "level", log_level_setting(log_level())), 0,
                        "the answer cannot be written as JSON", &ret->body, err);
}

int daemon_answer_log_level(struct daemon *d, const struct server_request *request,
                            struct server_answer *ret, struct err *err)
{
    (void)d;
    (void)request;
    return write_level(ret, err);
}

/* Told at the level of the two that shows it, once. */
static void change_level(enum log_level level)
{
    bool shows_more = level < log_level();

    if (shows_more)
        log_set_level(level);
    log_info("the log's level is %s from here on, until settings are read again",
             log_level_name(level));
    log_set_level(level);
}

int daemon_set_log_level(struct daemon *d, const struct server_request *request,
                         struct server_answer *ret, struct err *err)
{
    json_t *root = json_load_whole(request->body, request->body_len, 0, NULL);
    const char *name = json_string_value(json_object_get(root, "level"));
    enum log_level level;
    int failed = 0;

    (void)d;
    if (name == NULL || log_level_parse(name, &level) < 0)
        failed =
            err_set(err, ERR_CONFIG,
                    "the body is to be {\"level\": \"debug\"}, or info, warning, error "
                    "or fatal");
    json_decref(root);
    if (failed < 0)
        return -1;
    change_level(level);
    return write_level(ret, err);
}
