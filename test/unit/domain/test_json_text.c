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
        cmocka_unit_test(bytes_that_are_no_text_are_escaped),
    };

    return cmocka_run_group_tests(tests, NULL, group_teardown);
}
