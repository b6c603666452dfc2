#include "support/fuzz.h"

#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANGES_MAX = 6, LONGEST_RUN = 10000 };

static const char *const good[] = {
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HEAD /v1/status?a=b HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    "POST /v1/renew HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"force\":false}",
    "POST /v1/reload HTTP/1.1\r\nContent-Length: 0\r\nContent-Type: a/b\r\n\r\n",
    "POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "GET /long HTTP/1.0\r\n\r\n",
};

/* What has a meaning somewhere in a request, and perhaps another one where it is put. */
static const char *const words[] = {
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    " ",
    ":",
    "\t",
    "HTTP/1.1",
    "HTTP/9.9",
    "GET ",
    "POST ",
    "/",
    "?",
    "%00",
    "../",
    "Content-Length: 1\r\n",
    "Content-Length: 65536\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: 18446744073709551615\r\n",
    "Content-Length: 99999999999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "\xff\xfe",
};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

struct text {
    char *at;
    size_t len;
    size_t size;
};

void fuzz_init(struct fuzz *fuzz)
{
    const char *given = getenv("FUZZ_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : random_number();

    printf("FUZZ_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    fuzz->state = seed;
}

/* SplitMix64. */
static uint64_t next(struct fuzz *fuzz)
{
    uint64_t z = fuzz->state += 0x9e3779b97f4a7c15U;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

size_t fuzz_below(struct fuzz *fuzz, size_t end)
{
    return end == 0 ? 0 : (size_t)(next(fuzz) % end);
}

static void insert(struct text *text, size_t at, const char *bytes, size_t len)
{
    if (len > text->size - text->len)
        len = text->size - text->len;
    memmove(text->at + at + len, text->at + at, text->len - at);
    memcpy(text->at + at, bytes, len);
    text->len += len;
}

static void insert_run(struct fuzz *fuzz, struct text *text, size_t at)
{
    size_t len = fuzz_below(fuzz, LONGEST_RUN);
    char *run = malloc(len + 1);

    if (run == NULL)
        return;
    memset(run, "aaaa0/ \t"[fuzz_below(fuzz, 8)], len);
    insert(text, at, run, len);
    free(run);
}

static void change(struct fuzz *fuzz, struct text *text)
{
    size_t at = fuzz_below(fuzz, text->len);
    size_t len = fuzz_below(fuzz, text->len - at);
    const char *word = words[fuzz_below(fuzz, COUNT(words))];
    char byte = (char)fuzz_below(fuzz, 256);

    switch (fuzz_below(fuzz, 8)) {
    case 0:
        if (text->len > 0)
            text->at[at] = byte;
        break;
    case 1:
        insert(text, at, &byte, 1);
        break;
    case 2: /* a part is gone */
        memmove(text->at + at, text->at + at + len, text->len - at - len);
        text->len -= len;
        break;
    case 3: /* the end is */
        text->len = at;
        break;
    case 4:
        word = good[fuzz_below(fuzz, COUNT(good))];
        insert(text, text->len, word, strlen(word));
        break;
    case 5:
        insert_run(fuzz, text, at);
        break;
    default:
        insert(text, at, word, strlen(word));
        break;
    }
}

size_t fuzz_request(struct fuzz *fuzz, char *ret, size_t size)
{
    struct text text = {.at = ret, .size = size};
    const char *begin = good[fuzz_below(fuzz, COUNT(good))];
    size_t changes = fuzz_below(fuzz, CHANGES_MAX + 1);

    insert(&text, 0, begin, strlen(begin));
    for (size_t i = 0; i < changes; i++)
        change(fuzz, &text);
    return text.len;
}
