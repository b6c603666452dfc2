#include "support/nginx_words.h"

#include "support/fuzz.h"

#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\r\n"

enum { WORD_MAX_BYTES = 4096 };

/* Behind the word that begins at `at`, and the word as it stands there; NULL when it has no end. */
static const char *find_end(const char *at, const char **ret_begin, size_t *ret_len)
{
    char quote = *at == '"' || *at == '\'' ? *at : '\0';
    bool after_dollar = false;

    at += quote != '\0';
    *ret_begin = at;
    for (; *at != '\0'; at++) {
        if (*at == '{' && after_dollar)
            continue;
        after_dollar = *at == '$';
        if (quote != '\0' ? *at == quote : strchr(BLANKS ";{", *at) != NULL) {
            *ret_len = (size_t)(at - *ret_begin);
            return at + (quote != '\0');
        }
        if (*at == '\\' && *++at == '\0')
            return NULL;
    }
    return NULL;
}

static char *unescaped(const char *begin, size_t len)
{
    static const char marks[] = "\"'\\trn";
    static const char meant[] = "\"'\\\t\r\n";
    char *word = malloc(len + 1);
    size_t used = 0;

    FUZZ_REQUIRE(word != NULL);
    for (size_t i = 0; i < len; i++) {
        const char *mark =
            begin[i] == '\\' && i + 1 < len ? strchr(marks, begin[i + 1]) : NULL;

        word[used++] = mark == NULL ? begin[i] : meant[mark - marks];
        /* What is behind a backslash never begins an escape itself. */
        if (mark == NULL && begin[i] == '\\' && i + 1 < len)
            word[used++] = begin[i + 1];
        i += begin[i] == '\\';
    }
    word[used] = '\0';
    return word;
}

static bool add_word(struct nginx_directive *directive, const char **at)
{
    bool is_quoted = **at == '"' || **at == '\'';
    const char *begin;
    size_t len = 0;
    const char *end = find_end(*at, &begin, &len);

    if (end == NULL || len > WORD_MAX_BYTES ||
        directive->count == NGINX_DIRECTIVE_WORDS_MAX)
        return false;
    /* A parenthesis may follow a quote, and begins a word: if ($a ~ "b"). */
    if (is_quoted && *end != '\0' && strchr(BLANKS ";{)", *end) == NULL)
        return false;
    directive->words[directive->count++] = unescaped(begin, len);
    *at = end;
    return true;
}

static void done_directive(struct nginx_directive *directive)
{
    for (size_t i = 0; i < directive->count; i++)
        free(directive->words[i]);
    directive->count = 0;
}

static void add_directive(struct nginx_words *ret, struct nginx_directive *directive)
{
    /* Room is doubled at each power of two. */
    if ((ret->count & (ret->count - 1)) == 0) {
        size_t room = ret->count == 0 ? 1 : 2 * ret->count;

        ret->items = reallocarray(ret->items, room, sizeof *ret->items);
        FUZZ_REQUIRE(ret->items != NULL);
    }
    ret->items[ret->count++] = *directive;
    *directive = (struct nginx_directive){.count = 0};
}

static bool read_words(struct nginx_words *ret, struct nginx_directive *directive,
                       const char *at)
{
    unsigned depth = 0;

    for (;;) {
        at += strspn(at, BLANKS);
        switch (*at) {
        case '\0':
            return depth == 0 && directive->count == 0;
        case '#':
            at += strcspn(at, "\n");
            break;
        case ';':
        case '{':
            if (directive->count == 0)
                return false;
            directive->depth = depth;
            directive->has_block = *at == '{';
            depth += directive->has_block;
            add_directive(ret, directive);
            at++;
            break;
        case '}':
            if (directive->count > 0 || depth == 0)
                return false;
            depth--;
            at++;
            break;
        default:
            if (!add_word(directive, &at))
                return false;
            break;
        }
    }
}

bool nginx_words_read(struct nginx_words *ret, const char *text)
{
    struct nginx_directive directive = {.count = 0};
    bool good;

    *ret = (struct nginx_words){.items = NULL};
    good = read_words(ret, &directive, text);
    done_directive(&directive);
    if (!good)
        nginx_words_done(ret);
    return good;
}

void nginx_words_done(struct nginx_words *words)
{
    for (size_t i = 0; i < words->count; i++)
        done_directive(&words->items[i]);
    free(words->items);
    *words = (struct nginx_words){.items = NULL};
}

bool nginx_words_same_form(const struct nginx_words *a, const struct nginx_words *b)
{
    bool same = a->count == b->count;

    for (size_t i = 0; same && i < a->count; i++)
        same = a->items[i].depth == b->items[i].depth &&
               a->items[i].has_block == b->items[i].has_block &&
               a->items[i].count == b->items[i].count &&
               strcmp(a->items[i].words[0], b->items[i].words[0]) == 0;
    return same;
}

bool nginx_words_have(const struct nginx_words *words, const char *name, const char *word,
                      size_t at)
{
    for (size_t i = 0; i < words->count; i++) {
        const struct nginx_directive *directive = &words->items[i];

        if (strcmp(directive->words[0], name) != 0)
            continue;
        for (size_t k = 1; k < directive->count; k++) {
            if ((at == 0 || at == k) && strcmp(directive->words[k], word) == 0)
                return true;
        }
    }
    return false;
}
