#include "app/verdicts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int make(void **state)
{
    *state = calloc(1, sizeof(struct verdicts));
    return *state == NULL ? -1 : 0;
}

static int drop(void **state)
{
    free(*state);
    return 0;
}

/* What is printed where there is no terminal; the caller frees it. */
static char *printed(const struct verdicts *verdicts)
{
    char *text = NULL;
    FILE *out = tmpfile();
    size_t len;

    assert_non_null(out);
    verdicts_print(verdicts, out);
    len = (size_t)ftell(out);
    rewind(out);
    text = calloc(1, len + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, len, out), len);
    fclose(out);
    return text;
}

static void rows_have_a_line_each_without_a_terminal(void **state)
{
    struct verdicts *verdicts = *state;
    char *text;

    verdicts_add(verdicts, VERDICT_OK, "clock", "plausible");
    verdicts_add(verdicts, VERDICT_SKIPPED, "CA", "not asked");
    verdicts_add(verdicts, VERDICT_WARNING, "files", "%s has mode %04o", "key.pem",
                 0644U);
    verdicts_advise(verdicts, "chmod 600 %s", "key.pem");
    text = printed(verdicts);
    assert_string_equal(text,
                        "ok    clock         plausible\n"
                        "-     CA            not asked\n"
                        "warn  files         key.pem has mode 0644\n"
                        "                    chmod 600 key.pem\n"
                        "\n"
                        "0 failed, 1 warning\n");
    free(text);
}

static void one_that_has_failed_decides(void **state)
{
    struct verdicts *verdicts = *state;
    char *text = printed(verdicts);

    assert_string_equal(text, "\nall is well\n");
    free(text);
    assert_true(verdicts_hold(verdicts));
    verdicts_add(verdicts, VERDICT_WARNING, "a", "b");
    assert_true(verdicts_hold(verdicts));
    verdicts_add(verdicts, VERDICT_FAILED, "a", "b");
    verdicts_add(verdicts, VERDICT_OK, "a", "b");
    assert_false(verdicts_hold(verdicts));
}

static void texts_from_outside_forge_no_row(void **state)
{
    struct verdicts *verdicts = *state;
    json_t *root;

    verdicts_add(verdicts, VERDICT_OK, "CA", "a\nFAIL  b\x1b[2J\xff");
    assert_string_equal(verdicts->rows[0].text, "a\\x0aFAIL  b\\x1b[2J\\xff");
    root = verdicts_json(verdicts);
    assert_non_null(root);
    json_decref(root);
}

static void rows_without_room_are_counted_and_advise_no_other_one(void **state)
{
    struct verdicts *verdicts = *state;

    for (int i = 0; i < VERDICT_ROWS_MAX; i++)
        verdicts_add(verdicts, VERDICT_OK, "a", "b");
    verdicts_add(verdicts, VERDICT_FAILED, "a", "c");
    verdicts_advise(verdicts, "d");
    assert_false(verdicts_hold(verdicts));
    assert_string_equal(verdicts->rows[VERDICT_ROWS_MAX - 1].text, "b");
    assert_string_equal(verdicts->rows[VERDICT_ROWS_MAX - 1].hint, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rows_have_a_line_each_without_a_terminal, make,
                                        drop),
        cmocka_unit_test_setup_teardown(one_that_has_failed_decides, make, drop),
        cmocka_unit_test_setup_teardown(texts_from_outside_forge_no_row, make, drop),
        cmocka_unit_test_setup_teardown(
            rows_without_room_are_counted_and_advise_no_other_one, make, drop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
