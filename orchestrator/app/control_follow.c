#include "app/control_follow.h"

#include "app/control_client.h"
#include "app/terminal.h"

#include <stdio.h>
#include <string.h>

/* A daemon that takes other settings begins anew, and one that was killed is started again. */
enum { PATIENCE_S = 10 };

static bool is_over(const json_t *request)
{
    const char *state = control_text(request, "state");

    return strcmp(state, "waiting") != 0 && strcmp(state, "running") != 0;
}

static void print(enum terminal_style style, const char *text)
{
    terminal_print(stdout, style, "%s", text);
    putchar('\n');
    fflush(stdout);
}

/* The step at work says more than what it is for. */
static void tell(const json_t *request, const json_t *status, char told[ERR_MESSAGE_MAX])
{
    const json_t *activity = json_object_get(status, "activity");
    char text[ERR_MESSAGE_MAX];

    if (json_is_object(activity))
        snprintf(text, sizeof text, "%s: %s", control_text(activity, "flow"),
                 control_text(activity, "step"));
    else
        snprintf(text, sizeof text, "%s", control_text(request, "text"));
    if (text[0] == '\0' || strcmp(text, told) == 0)
        return;
    memcpy(told, text, sizeof text);
    print(TERMINAL_FAINT, text);
}

static int conclude(const json_t *request, struct err *err)
{
    const char *text = control_text(request, "text");

    if (strcmp(control_text(request, "state"), "done") != 0)
        return err_set(err, ERR_PEER, "%s", text);
    print(TERMINAL_GOOD, text);
    return 0;
}

/* 1 while it is open. */
static int look(const char *kind, json_int_t id, const json_t *status,
                char told[ERR_MESSAGE_MAX], struct err *err)
{
    const json_t *request = json_object_get(json_object_get(status, "requests"), kind);

    if (json_integer_value(json_object_get(request, "id")) != id)
        return err_set(err, ERR_PEER,
                       "the daemon was started again meanwhile, or asked by others, and "
                       "says no more of it: see cert-manager status");
    if (is_over(request))
        return conclude(request, err);
    tell(request, status, told);
    return 1;
}

int control_follow(const struct config *config, const char *kind, const json_t *accepted,
                   struct err *err)
{
    const struct control_question question = {.method = "GET", .path = "/v1/status"};
    json_int_t id = json_integer_value(json_object_get(accepted, "id"));
    char told[ERR_MESSAGE_MAX] = "";
    int64_t heard_at = control_now();
    json_t *status;
    int result = 1;

    if (is_over(accepted))
        return conclude(accepted, err);
    tell(accepted, NULL, told);
    while (result == 1) {
        struct err failure = ERR_INIT;

        control_rest();
        if (control_ask_json(config, &question, &status, &failure) == 0) {
            heard_at = control_now();
            result = look(kind, id, status, told, err);
            json_decref(status);
        } else if (control_now() - heard_at > PATIENCE_S) {
            *err = failure;
            result = -1;
        }
    }
    return result;
}
