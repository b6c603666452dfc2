/* The input is what somebody sends to the control socket; a whole body may be a certificate to deploy. */
#include "runtime/server_request.h"

#include "domain/deployment.h"
#include "support/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { BODY_MAX_BYTES = 256 * 1024 };

static void require_printable_ascii(const char *text)
{
    for (; *text != '\0'; text++)
        FUZZ_REQUIRE(*text > ' ' && *text <= '~');
}

static enum server_parse parse(struct server_request *ret, const char *bytes, size_t len)
{
    int status = -1;
    enum server_parse parsed =
        server_request_parse(ret, bytes, len, BODY_MAX_BYTES, &status);

    FUZZ_REQUIRE((parsed == SERVER_PARSE_BAD) == (status != 0));
    FUZZ_REQUIRE(status == 0 || server_status_text(status)[0] != '\0');
    return parsed;
}

/* A client that sends byte by byte gets the same answer as one that sends all at once. */
static void require_same_in_pieces(const char *bytes, size_t len, size_t whole)
{
    struct server_request request;

    for (size_t part = 0; part < whole; part += part < 64 ? 1 : part / 8) {
        char *piece = fuzz_text((const unsigned char *)bytes, part);

        FUZZ_REQUIRE(parse(&request, piece, part) != SERVER_PARSE_BAD);
        free(piece);
    }
    FUZZ_REQUIRE(whole <= len);
}

static void deploy(const struct server_request *request)
{
    struct deployment deployment;
    struct deployment again;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = BODY_MAX_BYTES};

    if (deployment_from_json(&deployment, request->body, request->body_len, &err) < 0) {
        FUZZ_REQUIRE(deployment.chain == NULL && deployment.key == NULL);
        fuzz_require_refusal(&err);
        return;
    }
    FUZZ_REQUIRE(deployment.timeout_s <= DEPLOYMENT_TIMEOUT_MAX_S);
    FUZZ_REQUIRE(deployment_to_json(&deployment, &text, &err) == 0);
    FUZZ_REQUIRE(deployment_from_json(&again, buf_str(&text), text.len, &err) == 0);
    FUZZ_REQUIRE(strcmp(chain_leaf(deployment.chain)->sha256,
                        chain_leaf(again.chain)->sha256) == 0);
    FUZZ_REQUIRE((deployment.key == NULL) == (again.key == NULL));
    deployment_done(&deployment);
    deployment_done(&again);
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    char *text = fuzz_text(bytes, len);
    struct server_request request;
    enum server_parse parsed = parse(&request, text, len);

    if (parsed != SERVER_PARSE_BAD) {
        require_printable_ascii(request.method);
        require_printable_ascii(request.path);
        require_printable_ascii(request.query);
    }
    if (parsed == SERVER_PARSE_WHOLE) {
        FUZZ_REQUIRE(request.path[0] == '/');
        FUZZ_REQUIRE(request.body >= text &&
                     request.body + request.body_len <= text + len);
        require_same_in_pieces(text, len,
                               (size_t)(request.body - text) + request.body_len);
        deploy(&request);
        fuzz_note_accepted();
    }
    free(text);
}
