/*
 * nginx_words: a text in nginx's configuration language taken apart, to compare with what the program
 * makes of it or means by it. Written from the rules of nginx's ngx_conf_read_token(), not from the
 * program's own reader.
 */
#ifndef TEST_FUZZ_NGINX_WORDS_H
#define TEST_FUZZ_NGINX_WORDS_H

#include <stdbool.h>
#include <stddef.h>

enum { NGINX_DIRECTIVE_WORDS_MAX = 64 };

struct nginx_directive {
    unsigned depth; /* of blocks around it */
    bool has_block;
    size_t count;
    char *words[NGINX_DIRECTIVE_WORDS_MAX]; /* quotes and escapes undone */
};

struct nginx_words {
    struct nginx_directive *items;
    size_t count;
};

/* False, and nothing to release, when nginx would refuse the text as such. */
bool nginx_words_read(struct nginx_words *ret, const char *text);
void nginx_words_done(struct nginx_words *words);

/* Whether they differ in nothing but arguments. */
bool nginx_words_same_form(const struct nginx_words *a, const struct nginx_words *b);

/* Whether some directive `name` has `word` as its argument at that place; at 0: as any of them. */
bool nginx_words_have(const struct nginx_words *words, const char *name, const char *word,
                      size_t at);

#endif
