/* JSON from texts and to texts; without memory nothing is said of a text. */
#include "domain/json_text.h"

#include "base/secret.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char good[] =
    "{\"texts\": [\"one\", \"two\", 3], \"more\": {\"and\": true}}";

static int left;

static void *scarce(size_t size)
{
    return left-- > 0 ? wipe_malloc(size) : wipe_malloc(SIZE_MAX);
}

/* Too long for what jansson begins a text with, and compact, as it writes it. */
static const char longer[] =
    "{\"a key of many letters\":\"and a text of so many that it has to grow, and grow "
    "again\","
    "\"more\":[\"of the same kind, more than once\",12345678]}";

/* One refusal, and there is memory again. */
static void *refuse_once(size_t size)
{
    return left-- == 0 ? wipe_malloc(SIZE_MAX) : wipe_malloc(size);
}

static int group_teardown(void **state)
{
    (void)state;
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    return 0;
}

static void what_is_no_json_is_a_matter_of_the_text(void **state)
{
    struct err err = ERR_INIT;

    (void)state;
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    assert_null(json_from_text("{\"a\": ", 6, 0, &err));
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.message, "not JSON: line 1: "));
}

static void what_there_is_no_memory_for_is_not(void **state)
{
    json_t *root = NULL;

    (void)state;
    json_set_alloc_funcs(scarce, wipe_free);
    for (int blocks = 0; root == NULL; blocks++) {
        struct err err = ERR_INIT;

        left = blocks;
        root = json_from_text(good, strlen(good), 0, &err);
        if (root == NULL) {
            assert_int_equal(err.kind, ERR_SYS);
            assert_int_equal(err.code, ENOMEM);
        }
    }
    assert_int_equal(json_object_size(root), 2);
    json_decref(root);
    json_set_alloc_funcs(wipe_malloc, wipe_free);
}

static void a_text_is_read_whole_or_not_at_all(void **state)
{
    int refused = 0;

    (void)state;
    for (bool is_over = false; !is_over; refused++) {
        json_t *root;

        left = refused;
        json_set_alloc_funcs(refuse_once, wipe_free);
        root = json_load_whole(longer, strlen(longer), 0, NULL);
        is_over = left >= 0;
        json_set_alloc_funcs(wipe_malloc, wipe_free);
        assert_true((root != NULL) == is_over);
        json_decref(root);
    }
    assert_true(refused > 10);
}

static void a_text_is_written_whole_or_not_at_all(void **state)
{
    json_t *root;
    int refused = 0;

    (void)state;
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    root = json_load_whole(longer, strlen(longer), 0, NULL);
    for (bool is_over = false; !is_over; refused++) {
        char *text;

        left = refused;
        json_set_alloc_funcs(refuse_once, wipe_free);
        text = json_dump_whole(root, JSON_COMPACT);
        is_over = left >= 0;
        json_set_alloc_funcs(wipe_malloc, wipe_free);
        if (is_over)
            assert_string_equal(text, longer);
        else
            assert_null(text);
        wipe_free(text);
    }
    json_decref(root);
    assert_true(refused > 3);
}

static void a_piece_that_does_not_fit_is_an_error(void **state)
{
    json_t *root;

    (void)state;
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    root = json_load_whole(longer, strlen(longer), 0, NULL);
    for (size_t max = 0; max <= strlen(longer); max++) {
        struct err err = ERR_INIT;
        BUF_SCOPED text = {.max = max};
        int failed = json_append(root, JSON_COMPACT, &text, &err);

        assert_int_equal(failed, max < strlen(longer) ? -1 : 0);
        assert_true((err.kind == ERR_NONE) == (failed == 0));
    }
    json_decref(root);
}

static void bytes_that_are_no_text_are_escaped(void **state)
{
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = 64};

    (void)state;
    assert_int_equal(json_to_text(json_pack("{s:o}", "a", json_of_text("\xff")), 0, "why",
                                  &text, &err),
                     0);
    assert_string_equal(buf_str(&text), "{\"a\": \"\\\\xff\"}\n");
    assert_int_equal(json_to_text(NULL, 0, "why", &text, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_string_equal(err.message, "why");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_json_is_a_matter_of_the_text),
        cmocka_unit_test(what_there_is_no_memory_for_is_not),
        cmocka_unit_test(a_text_is_read_whole_or_not_at_all),
        cmocka_unit_test(a_text_is_written_whole_or_not_at_all),
        cmocka_unit_test(a_piece_that_does_not_fit_is_an_error),
        cmocka_unit_test(bytes_that_are_no_text_are_escaped),
    };

    return cmocka_run_group_tests(tests, NULL, group_teardown);
}
