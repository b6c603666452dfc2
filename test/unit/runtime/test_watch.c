#include "runtime/watch.h"

#include "base/fs.h"
#include "support/loop.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct owner {
    struct watch watch;
    uv_loop_t *loop;
    char folder[64];
    const char *wanted; /* name that is waited for */
    bool seen;
    bool close_at_once;
    unsigned closed;
    bool in_call;
};

static void on_closed(void *owner)
{
    struct owner *o = owner;

    assert_false(o->in_call);
    o->closed++;
}

static void close_watch(struct owner *o)
{
    o->in_call = true;
    watch_close(&o->watch, o->loop, on_closed, o);
    o->in_call = false;
}

static void on_changed(void *owner, const char *name)
{
    struct owner *o = owner;

    assert_non_null(name);
    assert_int_equal(o->closed, 0);
    if (o->wanted != NULL && strcmp(name, o->wanted) == 0)
        o->seen = true;
    if (o->close_at_once) {
        o->close_at_once = false;
        close_watch(o);
    }
}

static bool seen(void *owner)
{
    return ((struct owner *)owner)->seen;
}

static void open_owner(struct owner *o, void **state)
{
    struct err err = ERR_INIT;

    *o = (struct owner){.loop = *state};
    snprintf(o->folder, sizeof o->folder, "/tmp/test_watch.XXXXXX");
    assert_non_null(mkdtemp(o->folder));
    assert_int_equal(watch_start(&o->watch, o->loop, o->folder, on_changed, o, &err), 0);
}

static void close_owner(struct owner *o)
{
    struct err err = ERR_INIT;

    if (o->closed == 0)
        close_watch(o);
    loop_run(o->loop);
    assert_int_equal(o->closed, 1);
    assert_int_equal(fs_remove_tree(o->folder, &err), 0);
}

static void put(const struct owner *o, const char *name, const char *text)
{
    char path[FS_PATH_MAX];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", o->folder, name);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void wait_for(struct owner *o, const char *name)
{
    o->wanted = name;
    o->seen = false;
    loop_run_until(o->loop, seen, o);
}

static void test_names_what_appears_changes_and_goes(void **state)
{
    struct owner o;
    char from[FS_PATH_MAX];
    char to[FS_PATH_MAX];

    open_owner(&o, state);
    put(&o, "one", "");
    wait_for(&o, "one");
    put(&o, "one", "changed");
    wait_for(&o, "one");
    snprintf(from, sizeof from, "%s/one", o.folder);
    snprintf(to, sizeof to, "%s/two", o.folder);
    assert_int_equal(rename(from, to), 0);
    wait_for(&o, "two");
    assert_int_equal(unlink(to), 0);
    wait_for(&o, "two");
    close_owner(&o);
}

static void test_several_watches_of_one_folder(void **state)
{
    struct owner o;
    struct owner other = {.loop = *state};
    struct err err = ERR_INIT;

    open_owner(&o, state);
    assert_int_equal(
        watch_start(&other.watch, *state, o.folder, on_changed, &other, &err), 0);
    other.wanted = "one";
    put(&o, "one", "");
    wait_for(&o, "one");
    loop_run_until(*state, seen, &other);
    close_watch(&other);
    put(&o, "two", "");
    wait_for(&o, "two");
    close_owner(&o);
    assert_int_equal(other.closed, 1);
}

static void test_folder_that_goes(void **state)
{
    struct owner o;
    struct err err = ERR_INIT;

    open_owner(&o, state);
    assert_int_equal(fs_remove_tree(o.folder, &err), 0);
    o.wanted = strrchr(o.folder, '/') + 1;
    loop_run_until(*state, seen, &o);
    close_owner(&o);
}

static void test_missing_folder(void **state)
{
    struct owner o = {.loop = *state};
    struct err err = ERR_INIT;

    assert_int_equal(
        watch_start(&o.watch, *state, "/nonexistent/folder", on_changed, &o, &err), -1);
    assert_int_equal(err.kind, ERR_SYS);
    assert_int_equal(err.code, ENOENT);
    assert_non_null(strstr(err.message, "/nonexistent/folder"));
    memset(&o.watch, 0xa5, sizeof o.watch); /* the memory is ours again */
    loop_run(*state);
}

static void test_close_after_failed_start(void **state)
{
    struct owner o = {.loop = *state};
    struct err err = ERR_INIT;

    assert_int_equal(watch_start(&o.watch, *state, "/nonexistent", on_changed, &o, &err),
                     -1);
    close_watch(&o);
    loop_run(*state);
    assert_int_equal(o.closed, 1);
}

static void test_close_without_start_and_twice(void **state)
{
    struct owner o;
    struct owner zeroed = {.loop = *state};

    close_watch(&zeroed);
    watch_close(&zeroed.watch, *state, NULL, NULL);
    loop_run(*state);
    assert_int_equal(zeroed.closed, 1);

    open_owner(&o, state);
    close_watch(&o);
    close_watch(&o);
    loop_run(*state);
    assert_int_equal(o.closed, 2);
    o.closed = 1;
    close_owner(&o);
}

static void test_no_event_after_close(void **state)
{
    struct owner o;

    open_owner(&o, state);
    put(&o, "one", "");
    o.wanted = "one";
    watch_close(&o.watch, *state, NULL, NULL);
    loop_run(*state);
    assert_false(o.seen);
    o.closed = 1;
    close_owner(&o);
}

static void test_close_from_its_own_event(void **state)
{
    struct owner o;

    open_owner(&o, state);
    o.close_at_once = true;
    put(&o, "one", "");
    put(&o, "two", "");
    loop_run(*state);
    close_owner(&o);
}

static void test_start_again_after_close(void **state)
{
    struct owner o;
    struct err err = ERR_INIT;

    open_owner(&o, state);
    watch_close(&o.watch, *state, NULL, NULL);
    assert_int_equal(watch_start(&o.watch, *state, o.folder, on_changed, &o, &err), 0);
    put(&o, "one", "");
    wait_for(&o, "one");
    close_owner(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_names_what_appears_changes_and_goes),
        loop_test(test_several_watches_of_one_folder),
        loop_test(test_folder_that_goes),
        loop_test(test_missing_folder),
        loop_test(test_close_after_failed_start),
        loop_test(test_close_without_start_and_twice),
        loop_test(test_no_event_after_close),
        loop_test(test_close_from_its_own_event),
        loop_test(test_start_again_after_close),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
