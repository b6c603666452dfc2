#include "support/fuzz.h"

#include "base/log.h"
#include "base/secret.h"
#include "base/text.h"

#include <fcntl.h>
#include <jansson.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * Of the processor, for one input: hundreds of times what the slowest one needs under the sanitizers.
 * Time on the clock would depend on who else is at work.
 */
enum { LONGEST_MS = 1000 };

static uint64_t accepted;

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void tell_accepted(void)
{
    fprintf(stderr, "stat::accepted: %llu\n", (unsigned long long)accepted);
}

/* As the program does it, but without the secure heap: the sanitizer sees only the ordinary one. */
int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count;
    (void)arguments;
    json_set_alloc_funcs(wipe_malloc, wipe_free);
    json_object_seed(1); /* the same input takes the same way */
    log_open(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_DEBUG);
    atexit(tell_accepted);
    return 0;
}

static int64_t processor_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void run(const uint8_t *bytes, size_t len)
{
    int64_t begun = processor_ms();

    fuzz_one(bytes, len);
    FUZZ_REQUIRE(processor_ms() - begun < LONGEST_MS);
    FUZZ_REQUIRE(ERR_peek_error() == 0);
}

/* What takes a time that grows with the square of a length is as fast as all else in short inputs. */
static void run_repeated(const uint8_t *bytes, size_t len, size_t size)
{
    uint8_t *whole = malloc(size);

    FUZZ_REQUIRE(whole != NULL);
    for (size_t at = 0; at < size; at += len)
        memcpy(whole + at, bytes, len < size - at ? len : size - at);
    run(whole, size);
    free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    const char *size = getenv("FUZZ_REPEAT");

    if (size != NULL && len > 0)
        run_repeated(bytes, len, strtoul(size, NULL, 10));
    else
        run(bytes, len);
    return 0;
}

void fuzz_note_accepted(void)
{
    accepted++;
}

void fuzz_fail(const char *file, int line, const char *condition, const char *text)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n%s\n", file, line, condition, text);
    abort();
}

char *fuzz_text(const unsigned char *bytes, size_t len)
{
    char *text = malloc(len + 1);

    FUZZ_REQUIRE(text != NULL);
    if (len > 0)
        memcpy(text, bytes, len);
    text[len] = '\0';
    return text;
}

char *fuzz_next_line(char **rest)
{
    return *rest == NULL || **rest == '\0' ? NULL : strsep(rest, "\n");
}

char *fuzz_cut(char *text, const char *mark)
{
    size_t len = strlen(mark);

    for (char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, mark, len) != 0 || line[len] != '\n')
            continue;
        *line = '\0';
        return line + len + 1;
    }
    return text + strlen(text);
}

void fuzz_require_refusal(const struct err *err)
{
    FUZZ_REQUIRE(err->kind != ERR_NONE);
    FUZZ_REQUIRE(err->message[0] != '\0');
}

void fuzz_require_printable(const char *text)
{
    size_t left = strlen(text);
    size_t size;

    for (const char *at = text; left > 0; at += size, left -= size) {
        unsigned code = 0;

        size = text_character(at, left, &code);
        FUZZ_REQUIRE_TEXT(size > 0 && !text_is_control(code), text);
    }
}

void fuzz_require_line(const char *text)
{
    FUZZ_REQUIRE(text[0] != '\0');
    fuzz_require_printable(text);
}

bool fuzz_same(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}
