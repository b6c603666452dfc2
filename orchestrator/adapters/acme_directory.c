#include "adapters/acme_directory.h"

#include "domain/hostname.h"
#include "domain/json_text.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { ANSWER_MAX_BYTES = 64 * 1024 };

bool acme_take_header(const struct http_call *answer, const char *name, char *ret,
                      size_t size)
{
    /* A longer one is cut to exactly size - 1 bytes. */
    if (http_header(answer, name, ret, size) == NULL || strlen(ret) >= size - 1)
        ret[0] = '\0';
    return ret[0] != '\0';
}

bool acme_problem_is(const struct http_call *answer, const char *type)
{
    json_t *root = json_load_whole(buf_str(&answer->body), answer->body.len, 0, NULL);
    const char *found = json_string_value(json_object_get(root, "type"));
    const char *name = found == NULL ? NULL : strrchr(found, ':');
    bool same = name != NULL && strcmp(name + 1, type) == 0;

    json_decref(root);
    return same;
}

int acme_refused(const struct http_call *answer, const char *what, struct err *err)
{
    json_t *root = json_load_whole(buf_str(&answer->body), answer->body.len, 0, NULL);
    const char *type = json_string_value(json_object_get(root, "type"));
    const char *detail = json_string_value(json_object_get(root, "detail"));
    const char *name = type == NULL ? NULL : strrchr(type, ':');

    err_set_code(err, ERR_PEER, answer->status, "%s: HTTP status %d (%.60s): %.400s",
                 what, answer->status,
                 name == NULL ? "no ACME problem document" : name + 1,
                 detail == NULL ? "no explanation" : detail);
    json_decref(root);
    return -1;
}

/* False, and `ret` is "", when there is none, or too long a one. */
static bool copy_url(const json_t *root, const char *member, char ret[ACME_URL_SIZE])
{
    const char *url = json_string_value(json_object_get(root, member));

    ret[0] = '\0';
    if (url == NULL || strlen(url) >= ACME_URL_SIZE)
        return false;
    snprintf(ret, ACME_URL_SIZE, "%s", url);
    return true;
}

static int refuse(const char *member, struct err *err)
{
    return err_set(err, ERR_PEER,
                   "the answer has no usable \"%s\": is this the URL of an "
                   "ACME directory?",
                   member);
}

/* Of several names the first has to do; RFC 8555 §9.7.6 wants host names. */
static void copy_identity(const json_t *root, char ret[ACME_IDENTITY_SIZE])
{
    const json_t *meta = json_object_get(root, "meta");
    const char *name =
        json_string_value(json_array_get(json_object_get(meta, "caaIdentities"), 0));
    struct err ignored = ERR_INIT;

    if (name != NULL && hostname_check(name, &ignored) == 0)
        snprintf(ret, ACME_IDENTITY_SIZE, "%s", name);
}

/* meta.profiles: a name and a description of each (draft-ietf-acme-profiles). */
static void read_profiles(struct acme_directory *directory, json_t *root)
{
    json_t *profiles = json_object_get(json_object_get(root, "meta"), "profiles");
    const char *wanted = directory->authority->profile;
    const char *name;
    json_t *description;
    size_t used = 0;

    directory->lacks_profile =
        wanted != NULL && json_object_get(profiles, wanted) == NULL;
    json_object_foreach(profiles, name, description)
    {
        int len = snprintf(directory->profiles + used, sizeof directory->profiles - used,
                           "%s%s", used == 0 ? "" : ", ", name);

        if (len < 0 || (size_t)len >= sizeof directory->profiles - used)
            break;
        used += (size_t)len;
    }
}

static int read_answer(struct acme_directory *directory, struct err *err)
{
    json_t *root;
    int failed = 0;

    if (directory->call.status != 200)
        return acme_refused(&directory->call, "directory", err);
    root = json_load_whole(buf_str(&directory->call.body), directory->call.body.len, 0,
                           NULL);
    if (root == NULL)
        return err_set(err, ERR_PEER,
                       "the answer is not JSON: is this the URL of an ACME "
                       "directory?");
    (void)copy_url(root, "revokeCert", directory->revoke_cert);
    (void)copy_url(root, "renewalInfo", directory->renewal_info);
    directory->needs_binding = json_is_true(
        json_object_get(json_object_get(root, "meta"), "externalAccountRequired"));
    copy_identity(root, directory->caa_identity);
    read_profiles(directory, root);
    if (!copy_url(root, "newNonce", directory->new_nonce))
        failed = refuse("newNonce", err);
    else if (!copy_url(root, "newAccount", directory->new_account))
        failed = refuse("newAccount", err);
    json_decref(root);
    return failed;
}

static void on_answer(void *owner, const struct err *failure)
{
    struct acme_directory *directory = owner;
    struct err err = ERR_INIT;

    if (failure != NULL)
        err = *failure;
    else
        (void)read_answer(directory, &err);
    http_call_done(&directory->call);
    directory->done(directory->owner, err.kind == ERR_NONE ? NULL : &err);
}

void acme_directory_start(struct acme_directory *directory,
                          const struct acme_directory_request *request, done_fn done,
                          void *owner)
{
    const struct http_request call = {
        .method = "GET",
        .url = request->authority->directory,
        .ca_bundle = request->authority->ca_bundle,
        .proxy = request->authority->proxy,
        .no_proxy = request->authority->no_proxy,
        .max_body = ANSWER_MAX_BYTES,
        .timeout_ms = request->timeout_ms,
    };

    *directory = (struct acme_directory){
        .authority = request->authority, .done = done, .owner = owner};
    http_start(&directory->call, request->http, &call, on_answer, directory);
}

void acme_directory_cancel(struct acme_directory *directory)
{
    http_cancel(&directory->call);
}
