#include "domain/event_verdict.h"

#include "base/text.h"
#include "domain/measurement.h"

#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define UPPER_B "0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"

/* ---- logs, with digests that are computed here, from the definition ---- */

enum { LINE_MAX_BYTES = 1024 };

static void sha384(const void *bytes, size_t len, unsigned char ret[EVENT_DIGEST_BYTES])
{
    assert_int_equal(EVP_Digest(bytes, len, ret, NULL, EVP_sha384(), NULL), 1);
}

/* Name and payload are plain ASCII. */
static size_t preimage(char ret[LINE_MAX_BYTES], int version, const char *name,
                       const char *payload)
{
    char hex[LINE_MAX_BYTES];

    if (version == 1)
        return (size_t)snprintf(ret, LINE_MAX_BYTES, "\x01%c%c\x08:%s:%s", 0, 0, name,
                                payload);
    text_hex(hex, payload, strlen(payload));
    return (size_t)snprintf(ret, LINE_MAX_BYTES,
                            "{\"name\":\"%s\",\"payload\":\"%.500s\",\"type\":134217729}",
                            name, hex);
}

static json_t *event(int version, const char *name, const char *payload)
{
    unsigned char digest[EVENT_DIGEST_BYTES];
    char bytes[LINE_MAX_BYTES];
    char payload_hex[2 * LINE_MAX_BYTES];
    char digest_hex[EVENT_DIGEST_HEX_SIZE];

    sha384(bytes, preimage(bytes, version, name, payload), digest);
    text_hex(digest_hex, digest, sizeof digest);
    text_hex(payload_hex, payload, strlen(payload));
    return json_pack("{s:i, s:i, s:s, s:s, s:s}", "imr", 3, "event_type", 134217729,
                     "digest", digest_hex, "event", name, "event_payload", payload_hex);
}

static json_t *system_ready(void)
{
    return event(1, "system-ready", "");
}

static json_t *certificate(const char *leaf)
{
    return event(1, MEASUREMENT_EVENT, leaf);
}

/* Consumes the value. */
static json_t *with(json_t *entry, const char *member, json_t *value)
{
    assert_int_equal(json_object_set_new(entry, member, value), 0);
    return entry;
}

static json_t *without(json_t *entry, const char *member)
{
    assert_int_equal(json_object_del(entry, member), 0);
    return entry;
}

static json_t *log_of(json_t *first, ...) __attribute__((sentinel));

/* Consumes the entries; NULL ends them. */
static json_t *log_of(json_t *first, ...)
{
    json_t *log = json_array();
    va_list more;

    va_start(more, first);
    for (json_t *at = first; at != NULL; at = va_arg(more, json_t *))
        json_array_append_new(log, at);
    va_end(more);
    return log;
}

static void replay(const json_t *log, size_t count, unsigned char ret[EVENT_DIGEST_BYTES])
{
    unsigned char both[2 * EVENT_DIGEST_BYTES] = {0};

    for (size_t i = 0; i < count; i++) {
        const json_t *entry = json_array_get(log, i);
        const char *digest = json_string_value(json_object_get(entry, "digest"));

        if (json_integer_value(json_object_get(entry, "imr")) != 3)
            continue;
        assert_int_equal(
            text_unhex(both + EVENT_DIGEST_BYTES, EVENT_DIGEST_BYTES, digest), 0);
        sha384(both, sizeof both, both);
    }
    memcpy(ret, both, EVENT_DIGEST_BYTES);
}

/* ---- verdicts ---- */

/* Consumes the log. */
static void ask(struct event_verdict *ret, json_t *root, const unsigned char *rtmr3,
                const char *leaf)
{
    const struct event_question question = {.rtmr3 = rtmr3, .leaf_sha256 = leaf};
    char *text = json_dumps(root, 0);
    struct event_log *log = NULL;
    struct err err = ERR_INIT;

    json_decref(root);
    assert_non_null(text);
    if (event_log_parse(text, strlen(text), &log, &err) < 0 ||
        event_verdict(ret, log, &question, &err) < 0)
        fail_msg("%s", err.message);
    event_log_free(log);
    free(text);
}

static void assert_holds(json_t *log, const char *leaf)
{
    struct event_verdict verdict;

    ask(&verdict, log, NULL, leaf);
    if (verdict.fault_count > 0)
        fail_msg("%s", verdict.faults[0].text);
}

static void assert_fault(const struct event_fault *fault, const char *kind,
                         size_t position, const char *says)
{
    assert_string_equal(event_fault_name(fault->kind), kind);
    assert_int_equal(fault->position, position);
    if (strstr(fault->text, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", fault->text, says);
    assert_null(strchr(fault->text, '\n'));
}

/* That fault and no other. */
static void assert_faulty(json_t *log, const char *leaf, const char *kind,
                          size_t position, const char *says)
{
    struct event_verdict verdict;

    ask(&verdict, log, NULL, leaf);
    if (verdict.fault_count == 0)
        fail_msg("holds, without \"%s\"", kind);
    assert_fault(&verdict.faults[0], kind, position, says);
    if (verdict.fault_count > 1)
        fail_msg("one more: %s", verdict.faults[1].text);
}

static void a_sound_log_holds_and_is_counted(void **state)
{
    struct event_verdict verdict;
    json_t *log =
        log_of(json_pack("{s:i, s:i, s:s}", "imr", 0, "event_type", 4, "digest", "00"),
               system_ready(), event(2, "app-id", "x"), certificate(A),
               with(event(1, "foreign", "y"), "event_type", json_integer(1)),
               certificate(B), NULL);
    unsigned char rtmr[EVENT_DIGEST_BYTES];

    (void)state;
    replay(log, 6, rtmr);
    ask(&verdict, log, rtmr, B);
    if (verdict.fault_count > 0)
        fail_msg("%s", verdict.faults[0].text);
    assert_int_equal(verdict.entries, 6);
    assert_int_equal(verdict.register_entries, 5);
    assert_int_equal(verdict.version_entries[1], 3);
    assert_int_equal(verdict.version_entries[2], 1);
    assert_int_equal(verdict.other_entries, 1);
    assert_true(verdict.replayed);
    assert_memory_equal(verdict.rtmr3, rtmr, sizeof rtmr);
    assert_int_equal(verdict.source, REGISTER_GIVEN);
    assert_int_equal(verdict.certificate_events, 2);
    assert_int_equal(verdict.certificate_position, 6);
    assert_string_equal(verdict.certificate_leaf, B);
}

static void the_vectors_of_dstack_hold(void **state)
{
    static const char *const digests[] = {
        "1a76b2a80a0be71eae59f80945d876351a7a3fb8e9fd1ff1cede5734aa84ea11"
        "fd72b4edfbb6f04e5a85edd114c751bd",
        "8c748e7cf5aa7ef37f036bd15cb78308279511a408bcd2aab352802cccd79cf0"
        "7d7d5e4d174c5b311f2d98f35f53ccd6",
    };

    (void)state;
    for (size_t i = 0; i < 2; i++)
        assert_holds(log_of(with(system_ready(), "digest", json_string(digests[i])),
                            certificate(B), NULL),
                     B);
}

static void duplicates_and_older_certificate_events_are_tolerated(void **state)
{
    (void)state;
    assert_holds(log_of(certificate(B), certificate(A), certificate(B), certificate(B),
                        event(1, "later", ""), NULL),
                 B);
    /* An older one that no verifier could read, too. */
    assert_holds(log_of(event(1, MEASUREMENT_EVENT, "nonsense"), certificate(B), NULL),
                 B);
}

static void upper_case_digests_hold(void **state)
{
    json_t *entry = certificate(B);
    char *digest = strdup(json_string_value(json_object_get(entry, "digest")));

    (void)state;
    for (char *at = digest; *at != '\0'; at++) {
        if (*at >= 'a')
            *at = (char)(*at - 'a' + 'A');
    }
    assert_holds(log_of(with(entry, "digest", json_string(digest)), NULL), B);
    free(digest);
}

/* ---- digests ---- */

static void a_changed_entry_is_named(void **state)
{
    (void)state;
    assert_faulty(log_of(system_ready(),
                         with(event(1, "app-id", "x"), "event", json_string("app-ie")),
                         certificate(B), NULL),
                  B, "digest-wrong", 2, "entry 2 (app-ie): its digest ");
    assert_faulty(
        log_of(with(event(2, "app-id", "x"), "event_payload", json_string("79")),
               certificate(B), NULL),
        B, "digest-wrong", 1, "neither version 1");
    assert_faulty(log_of(with(event(1, "app-id", "x"), "event_payload", json_string("")),
                         certificate(B), NULL),
                  B, "digest-wrong", 1, "the payload is empty, was it left out");
}

static void names_cannot_forge_lines(void **state)
{
    json_t *entry = with(event(1, "x", "x"), "event",
                         json_stringn("a\nverdict: holds\0\x1b[2J\xe2\x82\xac", 24));

    (void)state;
    assert_faulty(log_of(entry, certificate(B), NULL), B, "digest-wrong", 1,
                  "entry 1 (a\\x0averdict: holds\\x00\\x1b[2J\xe2\x82\xac): ");
}

static void payloads_that_cannot_be_hashed_are_named(void **state)
{
    (void)state;
    assert_faulty(log_of(without(system_ready(), "event_payload"), certificate(B), NULL),
                  B, "payload-missing", 1, "has no payload");
    assert_faulty(
        log_of(with(system_ready(), "event_payload", json_null()), certificate(B), NULL),
        B, "payload-missing", 1, "has no payload");
    assert_faulty(log_of(with(system_ready(), "event_payload", json_string("616")),
                         certificate(B), NULL),
                  B, "payload-malformed", 1, "not hex, or was cut");
    assert_faulty(log_of(with(system_ready(), "event_payload", json_string("0xab")),
                         certificate(B), NULL),
                  B, "payload-malformed", 1, "not hex");
    assert_faulty(log_of(with(system_ready(), "event_payload", json_integer(5)),
                         certificate(B), NULL),
                  B, "payload-malformed", 1, "not hex");
}

static void malformed_entries_are_named(void **state)
{
    (void)state;
    assert_faulty(
        log_of(with(system_ready(), "digest", json_string("1a76")), certificate(B), NULL),
        B, "digest-malformed", 1, "not 48 bytes in hex");
    assert_faulty(
        log_of(with(system_ready(), "digest", json_true()), certificate(B), NULL), B,
        "digest-malformed", 1, "not 48 bytes");
    assert_faulty(log_of(without(system_ready(), "event"), certificate(B), NULL), B,
                  "entry-malformed", 1, "entry 1: it has no name");
    assert_faulty(log_of(without(system_ready(), "event_type"), certificate(B), NULL), B,
                  "entry-malformed", 1, "it has no type");
    assert_faulty(log_of(without(system_ready(), "imr"), certificate(B), NULL), B,
                  "entry-malformed", 1, "names no register");
    assert_faulty(
        log_of(with(system_ready(), "imr", json_string("3")), certificate(B), NULL), B,
        "entry-malformed", 1, "names no register");
}

static json_t *with_version(json_t *entry, int said, int made, const char *name,
                            const char *payload)
{
    char bytes[LINE_MAX_BYTES];
    char hex[2 * LINE_MAX_BYTES];

    text_hex(hex, bytes, preimage(bytes, made, name, payload));
    return with(with(entry, "version", json_integer(said)), "preimage", json_string(hex));
}

static void version_and_preimage_are_checked_where_they_are_given(void **state)
{
    (void)state;
    assert_holds(log_of(with_version(event(2, "a", "x"), 2, 2, "a", "x"),
                        with_version(event(1, "a", "x"), 1, 1, "a", "x"),
                        with(event(1, "a", "x"), "preimage", json_null()), certificate(B),
                        NULL),
                 B);
    assert_faulty(
        log_of(with_version(event(2, "a", "x"), 1, 2, "a", "x"), certificate(B), NULL), B,
        "version-wrong", 1, "says version 1, but its digest is of version 2");
    assert_faulty(
        log_of(with_version(event(1, "a", "x"), 3, 1, "a", "x"), certificate(B), NULL), B,
        "version-wrong", 1, "says version 3");
    assert_faulty(log_of(with(event(1, "a", "x"), "version", json_string("1")),
                         certificate(B), NULL),
                  B, "version-wrong", 1, "not a number");
    assert_faulty(
        log_of(with_version(event(2, "a", "x"), 2, 1, "a", "x"), certificate(B), NULL), B,
        "preimage-wrong", 1, "not what its name, payload and version make");
    assert_faulty(
        log_of(with_version(event(2, "a", "x"), 2, 2, "a", "y"), certificate(B), NULL), B,
        "preimage-wrong", 1, "not what its name");
    assert_faulty(log_of(with(event(1, "a", "x"), "preimage", json_string("zz")),
                         certificate(B), NULL),
                  B, "preimage-wrong", 1, "not hex");
}

static void left_out_digests_name_the_source_to_use(void **state)
{
    struct event_verdict verdict;

    (void)state;
    ask(&verdict,
        log_of(with(system_ready(), "digest", json_string("")),
               with(certificate(B), "digest", json_null()), NULL),
        NULL, A);
    assert_int_equal(verdict.fault_count, 2);
    assert_fault(&verdict.faults[0], "digests-left-out", 0, "the agent's Info");
    assert_fault(&verdict.faults[1], "leaf-differs", 2, "not the certificate's " A);
    assert_false(verdict.replayed);
    assert_int_equal(verdict.source, REGISTER_UNKNOWN);
    /* Of one entry only it is something else. */
    assert_faulty(
        log_of(with(system_ready(), "digest", json_string("")), certificate(B), NULL), B,
        "digest-missing", 1, "has no digest");
}

/* ---- the register ---- */

static void a_register_that_differs_is_explained(void **state)
{
    json_t *log = log_of(system_ready(), certificate(A), certificate(B), NULL);
    struct event_verdict verdict;
    unsigned char rtmr[EVENT_DIGEST_BYTES];

    (void)state;
    replay(log, 2, rtmr);
    ask(&verdict, json_incref(log), rtmr, B);
    assert_int_equal(verdict.fault_count, 1);
    assert_fault(&verdict.faults[0], "register-differs", 0,
                 "as it was before entry 3: it is older than the log");
    memset(rtmr, 0, sizeof rtmr);
    ask(&verdict, json_incref(log), rtmr, B);
    assert_fault(&verdict.faults[0], "register-differs", 0, "before entry 1");
    rtmr[0] = 1;
    ask(&verdict, json_incref(log), rtmr, B);
    assert_int_equal(verdict.fault_count, 1);
    assert_fault(&verdict.faults[0], "register-differs", 0,
                 "the register given is 0100000000");
    /* Two entries that changed places. */
    replay(log, 3, rtmr);
    ask(&verdict, log_of(certificate(A), system_ready(), certificate(B), NULL), rtmr, B);
    assert_int_equal(verdict.fault_count, 1);
    assert_fault(&verdict.faults[0], "register-differs", 0, "in another order");
    json_decref(log);
}

static void the_register_that_the_agent_shows_counts_unless_one_is_given(void **state)
{
    json_t *log = log_of(system_ready(), certificate(B), NULL);
    unsigned char right[EVENT_DIGEST_BYTES];
    unsigned char wrong[EVENT_DIGEST_BYTES] = {5};
    char hex[EVENT_DIGEST_HEX_SIZE];
    struct event_verdict verdict;

    (void)state;
    replay(log, 2, right);
    text_hex(hex, right, sizeof right);
    ask(&verdict, json_pack("{s:s, s:O}", "rtmr3", hex, "event_log", log), NULL, B);
    assert_int_equal(verdict.fault_count, 0);
    assert_int_equal(verdict.source, REGISTER_SHOWN);
    ask(&verdict, json_pack("{s:s, s:O}", "rtmr3", hex, "event_log", log), wrong, B);
    assert_int_equal(verdict.fault_count, 1);
    assert_int_equal(verdict.source, REGISTER_GIVEN);
    text_hex(hex, wrong, sizeof wrong);
    ask(&verdict, json_pack("{s:s, s:O}", "rtmr3", hex, "event_log", log), NULL, B);
    assert_fault(&verdict.faults[0], "register-differs", 0, "that the agent shows is 05");
    ask(&verdict, json_pack("{s:s, s:O}", "rtmr3", hex, "event_log", log), right, B);
    assert_int_equal(verdict.fault_count, 0);
    ask(&verdict, log, NULL, B);
    assert_int_equal(verdict.source, REGISTER_UNKNOWN);
}

static void a_log_without_the_register_attests_nothing(void **state)
{
    struct event_verdict verdict;

    (void)state;
    ask(&verdict, log_of(with(certificate(B), "imr", json_integer(2)), NULL), NULL, B);
    assert_int_equal(verdict.fault_count, 2);
    assert_fault(&verdict.faults[0], "register-empty", 0, "imr 3");
    assert_fault(&verdict.faults[1], "event-missing", 0, "no certificate is attested");
    ask(&verdict, json_array(), NULL, NULL);
    assert_int_equal(verdict.fault_count, 2);
}

/* ---- the certificate event ---- */

static void a_log_without_certificate_event_does_not_hold(void **state)
{
    (void)state;
    assert_faulty(log_of(system_ready(), NULL), NULL, "event-missing", 0,
                  "no event \"New TLS Certificate\"");
    assert_faulty(log_of(event(1, "new TLS certificate", B), NULL), B, "event-missing", 0,
                  "no event");
}

static void a_last_event_that_names_another_leaf_is_fatal(void **state)
{
    (void)state;
    assert_faulty(log_of(certificate(A), NULL), B, "leaf-differs", 1,
                  "names leaf " A ", not the certificate's " B);
    assert_faulty(log_of(certificate(B), certificate(B), certificate(A), NULL), B,
                  "leaf-differs", 3, "; only entry 2 does, and the last one counts");
}

static json_t *with_payload(const void *payload, size_t len)
{
    char name[] = MEASUREMENT_EVENT;
    const struct event_content content = {
        .name = name, .name_len = strlen(name), .payload = payload, .payload_len = len};
    unsigned char digest[EVENT_DIGEST_BYTES];
    char digest_hex[EVENT_DIGEST_HEX_SIZE];
    char hex[2 * LINE_MAX_BYTES];
    struct err err = ERR_INIT;

    assert_int_equal(event_digest(digest, EVENT_VERSION_1, &content, &err), 0);
    text_hex(digest_hex, digest, sizeof digest);
    text_hex(hex, payload, len);
    return with(with(certificate(B), "event_payload", json_string(hex)), "digest",
                json_string(digest_hex));
}

static void payloads_that_name_no_leaf_are_explained(void **state)
{
    unsigned char raw[32];
    struct event_verdict verdict;

    (void)state;
    assert_int_equal(text_unhex(raw, sizeof raw, B), 0);
    assert_faulty(log_of(with_payload(raw, sizeof raw), NULL), B, "event-malformed", 1,
                  "32 raw bytes");
    assert_faulty(log_of(with_payload(UPPER_B, 64), NULL), B, "event-malformed", 1,
                  "upper-case hex");
    assert_faulty(log_of(with_payload(B, 63), NULL), B, "event-malformed", 1,
                  "not 64 bytes in hex");
    assert_faulty(log_of(with_payload(B "\n", 65), NULL), B, "event-malformed", 1,
                  "not 64 bytes");
    assert_faulty(log_of(with_payload("g" A, 64), NULL), B, "event-malformed", 1,
                  "not a SHA-256");
    assert_faulty(log_of(with_payload("", 0), NULL), B, "event-malformed", 1,
                  "not 64 bytes");
    /* What it means is shown all the same, and compared. */
    ask(&verdict, log_of(with_payload(raw, sizeof raw), NULL), NULL, A);
    assert_string_equal(verdict.certificate_leaf, B);
    assert_int_equal(verdict.fault_count, 2);
    assert_fault(&verdict.faults[1], "leaf-differs", 1, B);
    /* Good ones before it do not help. */
    assert_faulty(log_of(certificate(B), with_payload(raw, 31), NULL), B,
                  "event-malformed", 2, "not 64 bytes");
    ask(&verdict, log_of(without(certificate(B), "event_payload"), NULL), NULL, B);
    assert_int_equal(verdict.fault_count, 2);
    assert_fault(&verdict.faults[0], "payload-missing", 1, "has no payload");
    assert_fault(&verdict.faults[1], "event-malformed", 1, "has no payload");
}

/* Its digest may be anything: nothing says that it is the hash of this payload. */
static void a_certificate_event_of_another_type_binds_nothing(void **state)
{
    (void)state;
    assert_faulty(log_of(with(certificate(B), "event_type", json_integer(1)), NULL), B,
                  "event-unbound", 1, "not a runtime event (event_type 134217729)");
}

static void without_a_certificate_the_log_alone_is_judged(void **state)
{
    (void)state;
    assert_holds(log_of(system_ready(), certificate(A), NULL), NULL);
    assert_faulty(log_of(with_payload(B, 60), NULL), NULL, "event-malformed", 1,
                  "not 64 bytes");
}

static void faults_beyond_those_kept_are_counted(void **state)
{
    struct event_verdict verdict;
    json_t *log = json_array();

    (void)state;
    for (int i = 0; i < 1000; i++)
        json_array_append_new(log, with(system_ready(), "event", json_string("x")));
    json_array_append_new(log, certificate(B));
    ask(&verdict, log, NULL, B);
    assert_int_equal(verdict.fault_count, 1000);
    for (size_t i = 0; i < EVENT_FAULTS_KEPT; i++)
        assert_int_equal(verdict.faults[i].position, i + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_log_holds_and_is_counted),
        cmocka_unit_test(the_vectors_of_dstack_hold),
        cmocka_unit_test(duplicates_and_older_certificate_events_are_tolerated),
        cmocka_unit_test(upper_case_digests_hold),
        cmocka_unit_test(a_changed_entry_is_named),
        cmocka_unit_test(names_cannot_forge_lines),
        cmocka_unit_test(payloads_that_cannot_be_hashed_are_named),
        cmocka_unit_test(malformed_entries_are_named),
        cmocka_unit_test(version_and_preimage_are_checked_where_they_are_given),
        cmocka_unit_test(left_out_digests_name_the_source_to_use),
        cmocka_unit_test(a_register_that_differs_is_explained),
        cmocka_unit_test(the_register_that_the_agent_shows_counts_unless_one_is_given),
        cmocka_unit_test(a_log_without_the_register_attests_nothing),
        cmocka_unit_test(a_log_without_certificate_event_does_not_hold),
        cmocka_unit_test(a_last_event_that_names_another_leaf_is_fatal),
        cmocka_unit_test(payloads_that_name_no_leaf_are_explained),
        cmocka_unit_test(a_certificate_event_of_another_type_binds_nothing),
        cmocka_unit_test(without_a_certificate_the_log_alone_is_judged),
        cmocka_unit_test(faults_beyond_those_kept_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
