#include "domain/nginx_text.h"

#include "base/text.h"

#include <string.h>

enum token { END, WORD, SEMICOLON, OPEN, CLOSE };

#define BLANKS " \t\r\n"

void nginx_text_init(struct nginx_text *text, const char *fragment)
{
    *text = (struct nginx_text){.at = fragment, .line = 1};
}

static char take(struct nginx_text *text)
{
    if (*text->at == '\n')
        text->line++;
    return *text->at++;
}

static void skip_blanks_and_comments(struct nginx_text *text)
{
    for (;;) {
        if (*text->at == '#')
            text->at += strcspn(text->at, "\n");
        if (*text->at == '\0' || strchr(BLANKS, *text->at) == NULL)
            return;
        take(text);
    }
}

/* A word as far as there is room for it. */
struct word {
    char *text;
    size_t len;
};

static void put(struct word *word, char c)
{
    if (word->len < NGINX_TEXT_WORD_SIZE - 1)
        word->text[word->len++] = c;
}

/* What stands behind a backslash. Of anything else than these, nginx keeps both. */
static void take_escaped(struct nginx_text *text, struct word *word)
{
    char c = take(text);

    switch (c) {
    case '"':
    case '\'':
    case '\\':
        break;
    case 't':
        c = '\t';
        break;
    case 'r':
        c = '\r';
        break;
    case 'n':
        c = '\n';
        break;
    default:
        put(word, '\\');
        break;
    }
    put(word, c);
}

/*
 * A word, its quotes and escapes undone, cut when it is too long. A quote counts only at its
 * beginning, and the braces behind a dollar sign, however many, are none of a block.
 */
static void take_word(struct nginx_text *text, char ret[NGINX_TEXT_WORD_SIZE])
{
    struct word word = {.text = ret};
    char quote = '\0';

    if (*text->at == '"' || *text->at == '\'')
        quote = take(text);

    while (*text->at != '\0') {
        char c = *text->at;

        if (quote != '\0' ? c == quote : strchr(BLANKS ";{", c) != NULL)
            break;
        if (c == '\\' && text->at[1] != '\0') {
            take(text);
            take_escaped(text, &word);
            continue;
        }
        put(&word, take(text));
        while (c == '$' && *text->at == '{')
            put(&word, take(text));
    }
    ret[word.len] = '\0';
    if (quote != '\0' && *text->at != '\0')
        take(text);
}

static enum token next(struct nginx_text *text, char word[NGINX_TEXT_WORD_SIZE])
{
    skip_blanks_and_comments(text);
    switch (*text->at) {
    case '\0':
        return END;
    case ';':
        take(text);
        return SEMICOLON;
    case '{':
        take(text);
        text->depth++;
        return OPEN;
    case '}':
        take(text);
        if (text->depth > 0)
            text->depth--;
        return CLOSE;
    default:
        take_word(text, word);
        return WORD;
    }
}

/* The words behind `location`. The modifier may be glued to the path. */
static bool read_location(struct nginx_text *text, struct nginx_text_location *ret)
{
    char word[NGINX_TEXT_WORD_SIZE] = "";
    const char *path = word;
    bool comparing = true;

    ret->exact = false;
    if (next(text, word) != WORD)
        return false;
    if (word[0] == '=')
        ret->exact = true;
    else if (word[0] == '~' || word[0] == '@')
        comparing = false;
    path += ret->exact ? 1 : text_starts_with(word, "^~") ? 2 : 0;
    if (*path == '\0' && comparing) {
        if (next(text, word) != WORD)
            return false;
        path = word;
    }
    ret->line = text->line;
    memmove(ret->path, path, strlen(path) + 1);
    return comparing;
}

bool nginx_text_next_location(struct nginx_text *text, struct nginx_text_location *ret)
{
    char word[NGINX_TEXT_WORD_SIZE] = "";
    bool at_start = true; /* of a directive */
    enum token token;

    while ((token = next(text, word)) != END) {
        if (token == WORD && at_start && text->depth == 0 &&
            strcmp(word, "location") == 0 && read_location(text, ret))
            return true;
        at_start = token != WORD;
    }
    return false;
}

bool nginx_text_worker_group(const char *conf, char ret[NGINX_TEXT_WORD_SIZE])
{
    struct nginx_text text;
    bool at_start = true; /* of a directive */
    bool found = false;
    enum token token;

    nginx_text_init(&text, conf);
    *ret = '\0';
    while (!found && (token = next(&text, ret)) != END) {
        found = token == WORD && at_start && text.depth == 0 && strcmp(ret, "user") == 0;
        at_start = token != WORD;
    }
    if (!found || next(&text, ret) != WORD)
        return false;
    /* Behind the last word it is left as it is. */
    (void)next(&text, ret);
    return true;
}
