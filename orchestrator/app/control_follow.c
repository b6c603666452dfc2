#include "app/control_follow.h"

#include "app/control_client.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    POLL_MS = 300,
    /* A daemon that takes other settings begins anew, and one that was killed is started again. */
    PATIENCE_S = 10,
};

static time_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static void rest(void)
{
    const struct timespec pause = {.tv_nsec = POLL_MS * 1000L * 1000};

    nanosleep(&pause, NULL);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text == NULL ? "" : text;
}

static bool is_over(const json_t *request)
{
    const char *state = text_of(request, "state");

    return strcmp(state, "waiting") != 0 && strcmp(state, "running") != 0;
}

/* The step at work says more than what it is for. */
static void tell(const struct control_follow *follow, const json_t *request,
                 const json_t *status, char told[ERR_MESSAGE_MAX])
{
    const json_t *activity = json_object_get(status, "activity");
    char text[ERR_MESSAGE_MAX];

    if (json_is_object(activity))
        snprintf(text, sizeof text, "%s: %s", text_of(activity, "flow"),
                 text_of(activity, "step"));
    else
        snprintf(text, sizeof text, "%s", text_of(request, "text"));
    if (follow->progress == NULL || text[0] == '\0' || strcmp(text, told) == 0)
        return;
    memcpy(told, text, sizeof text);
    follow->progress(text);
}

static int conclude(const json_t *request, char ret_text[ERR_MESSAGE_MAX],
                    struct err *err)
{
    if (strcmp(text_of(request, "state"), "done") != 0)
        return err_set(err, ERR_PEER, "%s", text_of(request, "text"));
    snprintf(ret_text, ERR_MESSAGE_MAX, "%s", text_of(request, "text"));
    return 0;
}

/* 1 while it is open. */
static int look(const struct control_follow *follow, json_int_t id, const json_t *status,
                char told[ERR_MESSAGE_MAX], char ret_text[ERR_MESSAGE_MAX],
                struct err *err)
{
    const json_t *request =
        json_object_get(json_object_get(status, "requests"), follow->kind);

    if (json_integer_value(json_object_get(request, "id")) != id)
        return err_set(err, ERR_PEER,
                       "the daemon was started again meanwhile, or asked by others, and "
                       "says no more of it: see cert-manager status");
    if (is_over(request))
        return conclude(request, ret_text, err);
    tell(follow, request, status, told);
    return 1;
}

int control_follow(const struct control_follow *follow, const json_t *accepted,
                   char ret_text[ERR_MESSAGE_MAX], struct err *err)
{
    const struct control_question question = {.method = "GET", .path = "/v1/status"};
    json_int_t id = json_integer_value(json_object_get(accepted, "id"));
    char told[ERR_MESSAGE_MAX] = "";
    time_t heard_at = now();
    json_t *status;
    int result = 1;

    if (is_over(accepted))
        return conclude(accepted, ret_text, err);
    tell(follow, accepted, NULL, told);
    while (result == 1) {
        struct err failure = ERR_INIT;

        rest();
        if (control_ask_json(follow->config, &question, &status, &failure) == 0) {
            heard_at = now();
            result = look(follow, id, status, told, ret_text, err);
            json_decref(status);
        } else if (now() - heard_at > PATIENCE_S) {
            *err = failure;
            result = -1;
        }
    }
    return result;
}
