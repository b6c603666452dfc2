/* What was meant by a mistyped name. */
#include "base/guess.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void letters_are_counted(void **state)
{
    static const struct {
        const char *a;
        const char *b;
        unsigned distance;
    } pairs[] = {
        {"", "", 0},
        {"a", "", 1},
        {"", "abc", 3},
        {"domain", "domain", 0},
        {"domian", "domain", 1},
        {"Domain", "domain", 0},
        {"doman", "domain", 1},
        {"domaain", "domain", 1},
        {"kitten", "sitting", 3},
    };

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        assert_int_equal(guess_distance(pairs[i].a, pairs[i].b), pairs[i].distance);
        assert_int_equal(guess_distance(pairs[i].b, pairs[i].a), pairs[i].distance);
    }
}

static void what_is_too_long_for_a_name_is_far_from_everything(void **state)
{
    char name[100];

    (void)state;
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_true(guess_distance(name, name) > 100);
}

static const char *guessed(const char *said)
{
    static const char *const names[] = {"warning", "error", "log", "level", "lever"};
    struct guess guess = guess_of(said);

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        guess_try(&guess, names[i]);
    return guess.name;
}

static void the_nearest_name_is_guessed_and_the_first_of_equals(void **state)
{
    (void)state;
    assert_string_equal(guessed("warnign"), "warning");
    assert_string_equal(guessed("ERORR"), "error");
    assert_string_equal(guessed("levek"), "level");
    assert_string_equal(guessed("lever"), "lever");
}

static void a_beginning_of_three_letters_is_enough(void **state)
{
    (void)state;
    assert_string_equal(guessed("warn"), "warning");
    assert_string_equal(guessed("err"), "error");
    assert_null(guessed("wa"));
}

static void nothing_is_guessed_from_another_word(void **state)
{
    (void)state;
    assert_null(guessed(""));
    assert_null(guessed("zebra"));
    assert_null(guessed("xyg")); /* two letters of three */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_are_counted),
        cmocka_unit_test(what_is_too_long_for_a_name_is_far_from_everything),
        cmocka_unit_test(the_nearest_name_is_guessed_and_the_first_of_equals),
        cmocka_unit_test(a_beginning_of_three_letters_is_enough),
        cmocka_unit_test(nothing_is_guessed_from_another_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
