#include "domain/event_digest.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define LEAF "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/*
 * The first event is dstack's own. The digests of the others were computed by other software
 * (hashlib and json of Python, whose escapes are those of RFC 8785).
 */
#define READY_V1                                                                         \
    "1a76b2a80a0be71eae59f80945d876351a7a3fb8e9fd1ff1cede5734aa84ea11"                   \
    "fd72b4edfbb6f04e5a85edd114c751bd"
#define READY_V2                                                                         \
    "8c748e7cf5aa7ef37f036bd15cb78308279511a408bcd2aab352802cccd79cf0"                   \
    "7d7d5e4d174c5b311f2d98f35f53ccd6"
#define LEAF_V1                                                                          \
    "98a9a40fb5670cdd10bc011ff64414480c7530926c88480df63ddec0f5cd66c6"                   \
    "28f6d11c1659aeaeb1c3718da52498b7"
#define LEAF_V2                                                                          \
    "4c1a4760aaed7aea0f03c5541ced5f5a1287f91476e629104d0dd9f2afbbe97a"                   \
    "f567b7d612904b247b4d6dbd0e716f7d"

/* The length without the terminating zero of a literal that may hold others. */
#define TEXT(literal) literal, sizeof(literal) - 1

static struct event_content content(const char *name, size_t name_len,
                                    const char *payload, size_t payload_len)
{
    return (struct event_content){.name = name,
                                  .name_len = name_len,
                                  .payload = payload,
                                  .payload_len = payload_len};
}

static void assert_digest(struct event_content event, int version, const char *wanted)
{
    unsigned char digest[EVENT_DIGEST_BYTES];
    char hex[EVENT_DIGEST_HEX_SIZE];
    struct err err = ERR_INIT;

    if (event_digest(digest, version, &event, &err) < 0)
        fail_msg("%s", err.message);
    text_hex(hex, digest, sizeof digest);
    assert_string_equal(hex, wanted);
}

static void assert_preimage(struct event_content event, int version, const char *wanted,
                            size_t len)
{
    struct err err = ERR_INIT;
    BUF_SCOPED preimage = {0};

    if (event_preimage(&preimage, version, &event, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(preimage.len, len);
    assert_memory_equal(preimage.data, wanted, len);
}

static void digests_are_those_of_dstack(void **state)
{
    const struct event_content ready = content(TEXT("system-ready"), TEXT(""));
    const struct event_content leaf = content(TEXT("New TLS Certificate"), TEXT(LEAF));

    (void)state;
    assert_digest(ready, EVENT_VERSION_1, READY_V1);
    assert_digest(ready, EVENT_VERSION_2, READY_V2);
    assert_digest(leaf, EVENT_VERSION_1, LEAF_V1);
    assert_digest(leaf, EVENT_VERSION_2, LEAF_V2);
}

static void version_1_hashes_type_name_and_payload_as_they_are(void **state)
{
    (void)state;
    assert_preimage(content(TEXT("a\0b"), TEXT("\0\xff\n")), EVENT_VERSION_1,
                    TEXT("\x01\x00\x00\x08:a\0b:\0\xff\n"));
    assert_preimage(content(TEXT(""), NULL, 0), EVENT_VERSION_1,
                    TEXT("\x01\x00\x00\x08::"));
}

/* RFC 8785 §3.2.2.2: the short escapes, then \u00NN in lower case, and nothing else. */
static void version_2_escapes_as_rfc_8785_says(void **state)
{
    static const char controls[] =
        "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
        "\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f";

    (void)state;
    assert_preimage(content(TEXT(controls), TEXT("")), EVENT_VERSION_2,
                    TEXT("{\"name\":\""
                         "\\u0000\\u0001\\u0002\\u0003\\u0004\\u0005\\u0006\\u0007"
                         "\\b\\t\\n\\u000b\\f\\r\\u000e\\u000f"
                         "\\u0010\\u0011\\u0012\\u0013\\u0014\\u0015\\u0016\\u0017"
                         "\\u0018\\u0019\\u001a\\u001b\\u001c\\u001d\\u001e\\u001f"
                         "\",\"payload\":\"\",\"type\":134217729}"));
    assert_digest(content(TEXT(controls), TEXT("")), EVENT_VERSION_2,
                  "f19e2c38a013efb48256a56636fdc57f61198ea26249809828190a02d4bf5205"
                  "741c3f80009d152e0ad0f709077e0ad4");
}

/* In the name these are text: a backslash, and what looks like an escape behind it. */
static void version_2_leaves_the_text_of_an_escape_as_it_is(void **state)
{
    const struct event_content event = content(TEXT("/\"\\ \\u001F \\\\u000B"), TEXT(""));

    (void)state;
    assert_preimage(
        event, EVENT_VERSION_2,
        TEXT("{\"name\":\"/\\\"\\\\ \\\\u001F \\\\\\\\u000B\",\"payload\":\"\","
             "\"type\":134217729}"));
    assert_digest(event, EVENT_VERSION_2,
                  "2f86d965d6cc16086a660d285a6ffea473823dd7491294d703862e40c4250c8d"
                  "c11a16ead9f7e6d88935db53edeee704");
    /* One of its own, at the end, and one behind the other. */
    assert_preimage(content(TEXT("\x1f\\\x1f\\"), TEXT("")), EVENT_VERSION_2,
                    TEXT("{\"name\":\"\\u001f\\\\\\u001f\\\\\",\"payload\":\"\","
                         "\"type\":134217729}"));
}

/* é € 😀, a C1 control, a line separator, U+FFFF and DEL. */
static void version_2_has_all_other_characters_as_utf_8(void **state)
{
    static const char name[] =
        "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 "
        "\xc2\x80\xe2\x80\xa8\xef\xbf\xbf\x7f";

    (void)state;
    assert_digest(content(TEXT(name), TEXT("\x00\xff")), EVENT_VERSION_1,
                  "763e3f940bccfc2e1e2f900069270809a127b3f77c98b3c67b915d4df76420c1"
                  "3de661b95565aeec1c0736e9f4cb0dbf");
    assert_digest(content(TEXT(name), TEXT("\x00\xff")), EVENT_VERSION_2,
                  "b1fb0a2025157d05e42483ed7e673752ecdbea06012587f0b305455bfc1d9cf2"
                  "13c9c03518baa39bd59898a359872ab1");
}

/* Why there is a second version. */
static void only_version_2_tells_name_and_payload_apart(void **state)
{
    static const char same[] =
        "6b8fcb3d3a8ad50f724eec95e5969cadeefd64a11aae98907d6a2f6f80980e50"
        "afd52f63fd3fdb000f17764b99d1c7f0";

    (void)state;
    assert_digest(content(TEXT("a:b"), TEXT("c")), EVENT_VERSION_1, same);
    assert_digest(content(TEXT("a"), TEXT("b:c")), EVENT_VERSION_1, same);
    assert_digest(content(TEXT("a:b"), TEXT("c")), EVENT_VERSION_2,
                  "22aba8d0d5c59c1537bf666fd2dac812831dab7e6ac2479dd5ec30c9db91ff79"
                  "b6678cc069c2e8e7bf20e50359a3d5a5");
    assert_digest(content(TEXT("a"), TEXT("b:c")), EVENT_VERSION_2,
                  "1d9502ed9ae51754fb814ea57e8027c6ed35503c18aff617629e9119f4dafad1"
                  "fcb6570cd84e83944cbe3f491465f044");
}

static void a_name_that_is_not_utf_8_has_no_version_2(void **state)
{
    const struct event_content event = content(TEXT("\xff"), TEXT(""));
    unsigned char digest[EVENT_DIGEST_BYTES];
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(event_digest(digest, EVENT_VERSION_1, &event, &err), 0);
    assert_int_equal(event_digest(digest, EVENT_VERSION_2, &event, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    assert_non_null(strstr(err.message, "UTF-8"));
}

static void the_register_is_a_chain_of_hashes(void **state)
{
    static const struct {
        const char *digests[2];
        const char *wanted;
    } cases[] = {
        {{READY_V1, LEAF_V1},
         "feb51b9eefea20f36b010382b004a3dfacf5adca1341d5a9859a3b3ebe0e9156"
         "5b1ee7977326e385e75a0e21a731f0c7"},
        {{READY_V2, LEAF_V2},
         "be5f0cf36a37437721562b9c15e1f15a7dac87b564a8cd782af2015fa2debfa6"
         "356526e7ded273d542ea96c877e4c51b"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned char rtmr[EVENT_DIGEST_BYTES] = {0};
        char hex[EVENT_DIGEST_HEX_SIZE];
        struct err err = ERR_INIT;

        for (int k = 0; k < 2; k++) {
            unsigned char digest[EVENT_DIGEST_BYTES];

            assert_int_equal(text_unhex(digest, sizeof digest, cases[i].digests[k]), 0);
            assert_int_equal(event_extend(rtmr, digest, &err), 0);
        }
        text_hex(hex, rtmr, sizeof rtmr);
        assert_string_equal(hex, cases[i].wanted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_dstack),
        cmocka_unit_test(version_1_hashes_type_name_and_payload_as_they_are),
        cmocka_unit_test(version_2_escapes_as_rfc_8785_says),
        cmocka_unit_test(version_2_leaves_the_text_of_an_escape_as_it_is),
        cmocka_unit_test(version_2_has_all_other_characters_as_utf_8),
        cmocka_unit_test(only_version_2_tells_name_and_payload_apart),
        cmocka_unit_test(a_name_that_is_not_utf_8_has_no_version_2),
        cmocka_unit_test(the_register_is_a_chain_of_hashes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
