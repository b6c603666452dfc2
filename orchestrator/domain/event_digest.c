#include "domain/event_digest.h"

#include "base/text.h"
#include "domain/json_text.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* What stands around name and payload in either version, and more. */
enum { FRAME_MAX_BYTES = 64, LONGEST_ESCAPE = 6 };

static int append_v1(struct buf *ret, const struct event_content *content,
                     struct err *err)
{
    static const unsigned char head[] = {
        EVENT_TYPE_RUNTIME & 0xff,
        EVENT_TYPE_RUNTIME >> 8 & 0xff,
        EVENT_TYPE_RUNTIME >> 16 & 0xff,
        EVENT_TYPE_RUNTIME >> 24 & 0xff,
        ':',
    };

    if (buf_append(ret, head, sizeof head, err) < 0 ||
        buf_append(ret, content->name, content->name_len, err) < 0 ||
        buf_append_str(ret, ":", err) < 0)
        return -1;
    return buf_append(ret, content->payload, content->payload_len, err);
}

/* ---- version 2 ---- */

/*
 * Of RFC 8785's form everything is jansson's compact and sorted one, strings too (§3.2.2.2:
 * only what has to be escaped is, the two-character escapes come first, all else is UTF-8),
 * except that \u00NN of a control character is in lower case there, in upper case here. So
 * \u001F becomes \u001f; a backslash of the name's own is two, and what follows it is text.
 */
static void lower_escapes(char *json, size_t len)
{
    size_t i = 0;

    while (i < len) {
        if (json[i] != '\\') {
            i++;
            continue;
        }
        assert(i + 1 < len);
        if (json[i + 1] == 'u') {
            for (size_t digit = i + 2; digit < i + LONGEST_ESCAPE; digit++)
                json[digit] = (char)tolower((unsigned char)json[digit]);
        }
        i += 2;
    }
}

/* NULL when there is no memory for it. */
static json_t *hex_string(const void *bytes, size_t len)
{
    char *hex = malloc(2 * len + 1);
    json_t *string;

    if (hex == NULL)
        return NULL;
    text_hex(hex, bytes, len);
    string = json_string(hex);
    free(hex);
    return string;
}

static int append_v2(struct buf *ret, const struct event_content *content,
                     struct err *err)
{
    json_t *name = json_stringn(content->name, content->name_len);
    json_t *payload = hex_string(content->payload, content->payload_len);
    json_t *object;
    int failed;

    if (name == NULL) {
        json_decref(payload);
        return err_set(err, ERR_PEER, "the name of an event is not UTF-8");
    }
    object = json_pack("{s:o, s:o, s:i}", "name", name, "payload", payload, "type",
                       EVENT_TYPE_RUNTIME);
    if (object == NULL)
        return err_sys(err, ENOMEM, "cannot hold an event");
    failed = json_append(object, JSON_COMPACT | JSON_SORT_KEYS, ret, err);
    json_decref(object);
    if (failed == 0)
        lower_escapes((char *)ret->data, ret->len);
    return failed;
}

int event_preimage(struct buf *ret, int version, const struct event_content *content,
                   struct err *err)
{
    int failed;

    assert(version == EVENT_VERSION_1 || version == EVENT_VERSION_2);
    buf_init(ret, FRAME_MAX_BYTES + LONGEST_ESCAPE * content->name_len +
                      2 * content->payload_len);
    failed = version == EVENT_VERSION_1 ? append_v1(ret, content, err)
                                        : append_v2(ret, content, err);
    if (failed < 0)
        buf_done(ret);
    return failed;
}

/* ---- digests ---- */

int event_hash(unsigned char ret[EVENT_DIGEST_BYTES], const void *bytes, size_t len,
               struct err *err)
{
    if (EVP_Digest(bytes, len, ret, NULL, EVP_sha384(), NULL) != 1)
        return err_openssl(err, "cannot compute a SHA-384");
    return 0;
}

int event_digest(unsigned char ret[EVENT_DIGEST_BYTES], int version,
                 const struct event_content *content, struct err *err)
{
    BUF_SCOPED preimage = {0};

    if (event_preimage(&preimage, version, content, err) < 0)
        return -1;
    return event_hash(ret, preimage.data, preimage.len, err);
}

int event_extend(unsigned char rtmr[EVENT_DIGEST_BYTES],
                 const unsigned char digest[EVENT_DIGEST_BYTES], struct err *err)
{
    unsigned char both[2 * EVENT_DIGEST_BYTES];

    memcpy(both, rtmr, EVENT_DIGEST_BYTES);
    memcpy(both + EVENT_DIGEST_BYTES, digest, EVENT_DIGEST_BYTES);
    return event_hash(rtmr, both, sizeof both, err);
}
