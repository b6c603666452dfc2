#include "domain/rtmr_intent.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#define BOOT "5f2c4e56-0d5b-4f5e-9a52-0a2f5f0f3b11"

static struct rtmr_intent sample(void)
{
    struct rtmr_intent intent = {
        .boot_id = BOOT,
        .version = EVENT_VERSION_2,
        .name = "New TLS \"\xe2\x82\xac\n",
        .payload = "\0\xff",
        .payload_len = 2,
        .log_size = INT64_C(5000000000),
    };

    memset(intent.before, 0xab, sizeof intent.before);
    return intent;
}

static char *written(const struct rtmr_intent *intent)
{
    struct err err = ERR_INIT;
    BUF_SCOPED text = {0};

    if (rtmr_intent_write(intent, &text, &err) < 0)
        fail_msg("%s", err.message);
    return strdup(buf_str(&text));
}

static void assert_read_again(const struct rtmr_intent *intent)
{
    char *text = written(intent);
    struct rtmr_intent again;
    struct err err = ERR_INIT;
    char *text_again;

    if (rtmr_intent_read(&again, text, strlen(text), &err) < 0)
        fail_msg("%s", err.message);
    text_again = written(&again);
    assert_string_equal(text, text_again);
    assert_string_equal(again.name, intent->name);
    assert_int_equal(again.payload_len, intent->payload_len);
    assert_memory_equal(again.payload, intent->payload, intent->payload_len);
    assert_int_equal(again.log_size, intent->log_size);
    free(text);
    free(text_again);
}

static void what_is_written_is_read_again(void **state)
{
    struct rtmr_intent intent = sample();

    (void)state;
    assert_read_again(&intent);
    /* The longest: each of these characters is six of JSON. */
    memset(intent.name, 0x1f, RTMR_NAME_MAX_BYTES);
    memset(intent.payload, 0xff, sizeof intent.payload);
    intent.payload_len = sizeof intent.payload;
    assert_read_again(&intent);
}

/* The register is 0xab…, the event version 1 of "system-ready": computed by hashlib. */
static void the_register_after_follows_from_before_and_event(void **state)
{
    struct rtmr_intent intent = sample();
    unsigned char after[EVENT_DIGEST_BYTES];
    char hex[EVENT_DIGEST_HEX_SIZE];
    struct err err = ERR_INIT;

    (void)state;
    intent.version = EVENT_VERSION_1;
    snprintf(intent.name, sizeof intent.name, "system-ready");
    intent.payload_len = 0;
    assert_int_equal(rtmr_intent_after(&intent, after, &err), 0);
    text_hex(hex, after, sizeof after);
    assert_string_equal(hex,
                        "92d3d722968748293d296874ad80415979b2f03bf03c7655f70fec78a6669568"
                        "52b7a7bf4a0615e040827817da579e15");
}

static void assert_damaged(const char *text, size_t len)
{
    struct rtmr_intent intent;
    struct err err = ERR_INIT;

    if (rtmr_intent_read(&intent, text, len, &err) == 0)
        fail_msg("taken: %.*s", (int)len, text);
    assert_int_equal(err.kind, ERR_PEER);
    assert_non_null(strstr(err.message, "damaged"));
}

/* With one member changed; consumes the value, NULL leaves it out. */
static void assert_damaged_by(const char *member, json_t *value)
{
    const struct rtmr_intent intent = sample();
    char *text = written(&intent);
    json_t *object = json_loads(text, 0, NULL);

    free(text);
    if (value == NULL)
        json_object_del(object, member);
    else
        json_object_set_new(object, member, value);
    text = json_dumps(object, 0);
    json_decref(object);
    assert_damaged(text, strlen(text));
    free(text);
}

static void a_damaged_intent_is_told(void **state)
{
    static const char *const members[] = {"format",  "boot_id", "version", "event",
                                          "payload", "before",  "log_size"};
    const struct rtmr_intent intent = sample();
    char *text = written(&intent);
    char long_text[2 * RTMR_PAYLOAD_MAX_BYTES + 3];

    (void)state;
    for (size_t len = 0; len < strlen(text); len++)
        assert_damaged(text, len);
    free(text);
    assert_damaged("[]", 2);
    assert_damaged("{}\0", 3);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        assert_damaged_by(members[i], NULL);
        assert_damaged_by(members[i], json_null());
        assert_damaged_by(members[i], json_array());
    }
    assert_damaged_by("format", json_integer(2));
    assert_damaged_by("version", json_integer(0));
    assert_damaged_by("version", json_integer(3));
    assert_damaged_by("version", json_integer(INT64_C(1) << 32 | 1));
    assert_damaged_by("log_size", json_integer(-1));
    assert_damaged_by("payload", json_string("abc"));
    assert_damaged_by("payload", json_string("zz"));
    assert_damaged_by("before", json_string("abab"));
    assert_damaged_by("boot_id", json_string(BOOT "0"));
    memset(long_text, 'a', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    assert_damaged_by("payload", json_string(long_text));
    assert_damaged_by("event", json_string(long_text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(the_register_after_follows_from_before_and_event),
        cmocka_unit_test(a_damaged_intent_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
