#include "domain/measurement.h"

#include "support/pki.h"
#include "support/vectors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static int setup(void **state)
{
    *state = vectors_load();
    return 0;
}

static int teardown(void **state)
{
    json_decref(*state);
    return 0;
}

static json_t *event(int imr, const char *name, const char *leaf)
{
    char payload[MEASUREMENT_PAYLOAD_SIZE];

    measurement_payload(payload, leaf);
    return json_pack("{s:i, s:i, s:s, s:s, s:s}", "imr", imr, "event_type", 134217729,
                     "digest", "00", "event", name, "event_payload", payload);
}

/* Consumes the entries; NULL ends them. */
static char *log_of(json_t *first, ...)
{
    json_t *log = json_array();
    json_t *root;
    va_list more;
    char *text;

    va_start(more, first);
    for (json_t *at = first; at != NULL; at = va_arg(more, json_t *))
        json_array_append_new(log, at);
    va_end(more);
    root = json_pack("{s:s, s:o}", "rtmr3", "00", "event_log", log);
    text = json_dumps(root, 0);
    json_decref(root);
    return text;
}

/* Consumes the text; `wanted` NULL: no event. */
static void assert_last(char *tcb_info, const char *wanted)
{
    struct err err = ERR_INIT;
    char found_leaf[65] = "untouched";
    bool found = wanted == NULL;

    if (measurement_last_event(tcb_info, found_leaf, &found, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(found, wanted != NULL);
    assert_string_equal(found_leaf, wanted != NULL ? wanted : "untouched");
    free(tcb_info);
}

static void assert_refused(const char *tcb_info, const char *says)
{
    struct err err = ERR_INIT;
    char leaf[65] = "untouched";
    bool found = true;

    assert_int_equal(measurement_last_event(tcb_info, leaf, &found, &err), -1);
    assert_int_equal(err.kind, ERR_PEER);
    if (strstr(err.message, says) == NULL)
        fail_msg("says \"%s\", not \"%s\"", err.message, says);
    assert_string_equal(leaf, "untouched");
    assert_true(found);
}

static void the_payload_is_that_of_the_python_service(void **state)
{
    const json_t *vector = json_object_get(*state, "event");
    char payload[MEASUREMENT_PAYLOAD_SIZE];

    measurement_payload(payload, vectors_text(vector, "sha256"));
    assert_string_equal(payload, vectors_text(vector, "payload"));
    assert_string_equal(MEASUREMENT_EVENT, vectors_text(vector, "name"));
}

static void the_last_event_counts(void **state)
{
    (void)state;
    assert_last(log_of(event(3, MEASUREMENT_EVENT, A), NULL), A);
    assert_last(
        log_of(event(3, MEASUREMENT_EVENT, A), event(3, MEASUREMENT_EVENT, B), NULL), B);
    assert_last(log_of(event(3, MEASUREMENT_EVENT, B), event(3, MEASUREMENT_EVENT, A),
                       event(3, "system-ready", B), NULL),
                A);
}

static void only_the_runtime_register_and_the_exact_name_count(void **state)
{
    (void)state;
    assert_last(log_of(NULL), NULL);
    assert_last(log_of(event(2, MEASUREMENT_EVENT, A), event(0, MEASUREMENT_EVENT, A),
                       event(3, "new TLS certificate", A),
                       event(3, MEASUREMENT_EVENT " ", A), event(3, "", A), NULL),
                NULL);
    assert_last(log_of(event(3, MEASUREMENT_EVENT, B), event(1, MEASUREMENT_EVENT, A),
                       event(3, "New TLS", A), NULL),
                B);
}

static void foreign_entries_of_any_form_are_passed_over(void **state)
{
    (void)state;
    assert_last(log_of(json_object(), json_pack("{s:s}", "event", MEASUREMENT_EVENT),
                       json_pack("{s:s, s:s}", "imr", "3", "event", MEASUREMENT_EVENT),
                       json_pack("{s:i, s:i}", "imr", 3, "event", 5),
                       json_pack("{s:f, s:s}", "imr", 3.0, "event", MEASUREMENT_EVENT),
                       event(3, MEASUREMENT_EVENT, A), NULL),
                A);
}

static void zero_bytes_in_a_foreign_name_hide_nothing(void **state)
{
    char text[1024];
    char payload[MEASUREMENT_PAYLOAD_SIZE];

    (void)state;
    measurement_payload(payload, B);
    snprintf(text, sizeof text,
             "{\"event_log\":[{\"imr\":3,\"event\":\"" MEASUREMENT_EVENT
             "\",\"event_payload\":\"%s\"},{\"imr\":3,\"event\":\"" MEASUREMENT_EVENT
             "\\u0000x\",\"event_payload\":\"\"}]}",
             payload);
    assert_last(strdup(text), B);
}

static void upper_case_hex_on_the_wire_is_understood(void **state)
{
    char *text = log_of(event(3, MEASUREMENT_EVENT, B), NULL);
    char *payload = strstr(text, "3031");

    (void)state;
    for (int i = 0; i < 128; i++) {
        if (payload[i] >= 'a' && payload[i] <= 'f')
            payload[i] = (char)(payload[i] - 'a' + 'A');
    }
    assert_last(text, B);
}

static void a_log_that_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    assert_refused("", "not JSON");
    assert_refused("{", "not JSON");
    assert_refused("{\"event_log\":[]} x", "not JSON");
    assert_refused("\"text\"", "not JSON");
    assert_refused("{}", "event_log");
    assert_refused("{\"event_log\":null}", "event_log");
    assert_refused("{\"event_log\":[1]}", "entry 1");
    assert_refused("{\"event_log\":[{},null]}", "entry 2");
}

/* What it means is told, for those who explain. */
static void a_payload_in_another_form_shows_what_was_meant(void **state)
{
    json_t *text = json_string(B);
    struct event event = {.payload = text};
    char payload[MEASUREMENT_PAYLOAD_SIZE];
    char leaf[65] = "untouched";
    char upper[65] = B;

    (void)state;
    assert_non_null(measurement_leaf(&event, leaf));
    assert_string_equal(leaf, B);
    upper[10] = 'A';
    measurement_payload(payload, upper);
    json_string_set(text, payload);
    assert_non_null(measurement_leaf(&event, leaf));
    assert_string_equal(leaf, B);
    json_string_set(text, "61");
    assert_non_null(measurement_leaf(&event, leaf));
    assert_string_equal(leaf, "");
    json_decref(text);
}

static void bad_payload(const json_t *payload)
{
    json_t *entry = event(3, MEASUREMENT_EVENT, A);

    if (payload == NULL)
        json_object_del(entry, "event_payload");
    else
        json_object_set_new(entry, "event_payload", json_deep_copy(payload));
    assert_last(log_of(event(3, MEASUREMENT_EVENT, A), entry, NULL), NULL);
}

static void bad_payload_text(const char *payload, size_t len)
{
    json_t *text = json_stringn(payload, len);

    bad_payload(text);
    json_decref(text);
}

/* An earlier good event does not heal a bad last one: verifiers take the last. */
static void a_last_event_without_a_leaf_is_as_good_as_none(void **state)
{
    char payload[2 * MEASUREMENT_PAYLOAD_SIZE];
    char upper[65] = B;

    (void)state;
    bad_payload(NULL);
    bad_payload(json_null());
    bad_payload(json_true());
    bad_payload_text("", 0);
    bad_payload_text(A, 64);
    bad_payload_text(A "\0z", 66);
    measurement_payload(payload, A);
    bad_payload_text(payload, 126);
    payload[5] = 'g';
    bad_payload_text(payload, 128);
    measurement_payload(payload, A);
    memcpy(payload + 128, "61", 3);
    bad_payload_text(payload, 130);
    measurement_payload(payload, A);
    memcpy(payload + 128, "\0z", 2);
    bad_payload_text(payload, 130);
    upper[10] = 'A';
    measurement_payload(payload, upper);
    bad_payload_text(payload, 128);
    memset(payload, '0', 128); /* 64 zero bytes */
    bad_payload_text(payload, 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_payload_is_that_of_the_python_service),
        cmocka_unit_test(the_last_event_counts),
        cmocka_unit_test(only_the_runtime_register_and_the_exact_name_count),
        cmocka_unit_test(foreign_entries_of_any_form_are_passed_over),
        cmocka_unit_test(zero_bytes_in_a_foreign_name_hide_nothing),
        cmocka_unit_test(upper_case_hex_on_the_wire_is_understood),
        cmocka_unit_test(a_log_that_cannot_be_read_is_an_error),
        cmocka_unit_test(a_payload_in_another_form_shows_what_was_meant),
        cmocka_unit_test(a_last_event_without_a_leaf_is_as_good_as_none),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
