/* The input is what answers at the guest agent's socket, to each of its methods: see support/answers.h. */
#include "adapters/dstack.h"

#include "domain/keys.h"
#include "domain/measurement.h"
#include "support/answers.h"
#include "support/fuzz.h"

#include <stdlib.h>
#include <string.h>

/* Of an answer that is no refusal nothing may be told: it can be a key. */
#define KEY_PART "c0ffee00c0ffee00"

static void ask_key(struct dstack_call *call, const struct dstack *agent,
                    struct ended *ended)
{
    dstack_get_key(call, agent, "cert/app.example.org/v1", ended_done, ended);
}

static void emit_event(struct dstack_call *call, const struct dstack *agent,
                       struct ended *ended)
{
    dstack_emit_event(call, agent, "New TLS Certificate", "3061", ended_done, ended);
}

static void ask_quote(struct dstack_call *call, const struct dstack *agent,
                      struct ended *ended)
{
    dstack_get_quote(call, agent, "00", ended_done, ended);
}

static void ask_info(struct dstack_call *call, const struct dstack *agent,
                     struct ended *ended)
{
    dstack_info(call, agent, ended_done, ended);
}

static void ask_version(struct dstack_call *call, const struct dstack *agent,
                        struct ended *ended)
{
    dstack_version(call, agent, ended_done, ended);
}

static void (*const methods[])(struct dstack_call *call, const struct dstack *agent,
                               struct ended *ended) = {ask_key, emit_event, ask_quote,
                                                       ask_info, ask_version};

static void use_key(const struct secret *material)
{
    struct err err = ERR_INIT;
    EVP_PKEY *key = NULL;

    FUZZ_REQUIRE(material->len == DSTACK_KEY_BYTES);
    if (keys_derive(material, &key, &err) < 0)
        fuzz_require_refusal(&err);
    EVP_PKEY_free(key);
}

static void use_info(const char *tcb_info)
{
    struct err err = ERR_INIT;
    char leaf[65] = "";
    bool found = false;

    if (measurement_last_event(tcb_info, leaf, &found, &err) < 0)
        fuzz_require_refusal(&err);
    else
        FUZZ_REQUIRE(strlen(leaf) == (found ? 64 : 0));
}

static void run(size_t method, const unsigned char *bytes, size_t len)
{
    char *text = fuzz_text(bytes, len);
    bool is_success = strtoul(text, NULL, 10) % 1000 == 200;
    struct http http;
    const struct dstack agent = {
        .http = &http, .configured = "/run/agent.sock", .timeout_ms = 1};
    struct ended ended = {.is_over = false};
    struct dstack_call call;

    answers_init(&http, text);
    methods[method](&call, &agent, &ended);
    FUZZ_REQUIRE(!ended.is_over && answers_give(&http) && ended.is_over &&
                 http.calls == 1);
    if (ended.err.kind == ERR_NONE) {
        if (method != 1)
            fuzz_note_accepted();
        if (call.key != NULL)
            use_key(call.key);
        if (call.tcb_info != NULL)
            use_info(call.tcb_info);
    } else {
        FUZZ_REQUIRE(call.key == NULL && call.tcb_info == NULL && call.quote == NULL);
        fuzz_require_refusal(&ended.err);
        FUZZ_REQUIRE(!is_success || strstr(ended.err.message, KEY_PART) == NULL);
    }
    fuzz_require_printable(call.version);
    fuzz_require_printable(call.app_name);
    dstack_call_done(&call);
    free(text);
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        run(i, bytes, len);
}
