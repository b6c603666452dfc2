/*
 * The input is a template that a deployment has mounted, a line "====", and nginx text for
 * EXTRA_LOCATIONS. Both are rendered as they are, and the locations of a text that nginx can read are
 * found where nginx has them.
 */
#include "domain/nginx_conf.h"
#include "domain/nginx_text.h"
#include "domain/template.h"
#include "domain/upstreams.h"

#include "support/fuzz.h"
#include "support/nginx_words.h"

#include <stdlib.h>
#include <string.h>

enum { RENDERED_MAX_BYTES = 4 * 1024 * 1024 };

/* A value that looks like a placeholder is none. */
static const struct template_value values[] = {
    {"DOMAIN", "app.example.org"}, {"SELF", "${SELF}"}, {"EMPTY", ""}};

enum { VALUE_COUNT = sizeof values / sizeof values[0] };

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;

    while ((text = strstr(text, part)) != NULL) {
        text += strlen(part);
        count++;
    }
    return count;
}

static void render_values(const char *text)
{
    struct err err = ERR_INIT;
    BUF_SCOPED rendered = {.max = RENDERED_MAX_BYTES};
    BUF_SCOPED same = {.max = RENDERED_MAX_BYTES};
    size_t domains = count_of(text, "${DOMAIN}");
    size_t selves = count_of(text, "${SELF}");
    size_t empties = count_of(text, "${EMPTY}");

    FUZZ_REQUIRE(template_render(text, values, VALUE_COUNT, &rendered, &err) == 0);
    FUZZ_REQUIRE(rendered.len + empties * strlen("${EMPTY}") ==
                 strlen(text) +
                     domains * (strlen("app.example.org") - strlen("${DOMAIN}")));
    FUZZ_REQUIRE(count_of(buf_str(&rendered), "${SELF}") >= selves);
    FUZZ_REQUIRE(template_render(text, NULL, 0, &same, &err) == 0);
    FUZZ_REQUIRE(strcmp(buf_str(&same), text) == 0);
    if (domains + selves + empties > 0)
        fuzz_note_accepted();
}

/* Whether nginx would take the locations for some: with one or two arguments, and a block. */
static bool are_locations(const struct nginx_words *words)
{
    for (size_t i = 0; i < words->count; i++) {
        const struct nginx_directive *directive = &words->items[i];

        if (strcmp(directive->words[0], "location") == 0 &&
            (!directive->has_block || directive->count < 2 || directive->count > 3))
            return false;
    }
    return true;
}

/* The location as our reader would tell of it, or NULL when it has to pass over it. */
static const char *path_of(const struct nginx_directive *directive, bool *ret_exact)
{
    const char *word = directive->count > 1 ? directive->words[1] : NULL;

    *ret_exact = false;
    if (directive->depth > 0 || strcmp(directive->words[0], "location") != 0 ||
        word == NULL || word[0] == '~' || word[0] == '@')
        return NULL;
    *ret_exact = word[0] == '=';
    word += *ret_exact ? 1 : strncmp(word, "^~", 2) == 0 ? 2 : 0;
    if (word[0] == '\0')
        word = directive->count > 2 ? directive->words[2] : NULL;
    return word;
}

static void compare_locations(const char *text, const struct nginx_words *words)
{
    struct nginx_text_location found;
    struct nginx_text reader;
    size_t line = 1;

    nginx_text_init(&reader, text);
    for (size_t i = 0; i < words->count; i++) {
        bool exact;
        const char *path = path_of(&words->items[i], &exact);

        if (path == NULL)
            continue;
        FUZZ_REQUIRE_TEXT(nginx_text_next_location(&reader, &found), path);
        FUZZ_REQUIRE_TEXT(strncmp(found.path, path, NGINX_TEXT_WORD_SIZE - 1 - 2) == 0,
                          found.path);
        FUZZ_REQUIRE_TEXT(found.exact == exact, path);
        FUZZ_REQUIRE(found.line >= line);
        line = found.line;
    }
    FUZZ_REQUIRE_TEXT(!nginx_text_next_location(&reader, &found), found.path);
    if (words->count > 0)
        fuzz_note_accepted();
}

/* Ends, and stays within the text, whatever it is. */
static void read_any(const char *text)
{
    struct nginx_text_location found;
    struct nginx_text reader;
    char group[NGINX_TEXT_WORD_SIZE];
    size_t count = 0;

    nginx_text_init(&reader, text);
    while (nginx_text_next_location(&reader, &found))
        count++;
    FUZZ_REQUIRE(count <= strlen(text));
    if (nginx_text_worker_group(text, group))
        FUZZ_REQUIRE(strlen(group) < sizeof group);
}

static void render_site(char *base, char *locations)
{
    static char domain[] = "app.example.org";
    static char path[] = "/etc/nginx/ssl";
    static char nothing[] = "";
    static char origin[] = "^https://a$";
    static char *names[] = {domain};
    static char *origins[] = {origin};
    struct upstreams upstreams = {.count = 0};
    const struct config config = {.domain = domain,
                                  .domains = {names, 1},
                                  .tls.dir = path,
                                  .cors_origins = {origins, 1},
                                  .nginx = {.webroot = path,
                                            .http_port = 80,
                                            .https_port = 443,
                                            .extra_upstreams = nothing,
                                            .extra_locations = locations}};
    const struct nginx_facts facts = {.upstreams = &upstreams};
    struct err err = ERR_INIT;
    BUF_SCOPED rendered = {.max = RENDERED_MAX_BYTES};

    if (nginx_conf_render(&config, &facts, NGINX_HTTPS,
                          &(struct nginx_templates){base, "${EXTRA_LOCATIONS}"},
                          &rendered, &err) < 0)
        fuzz_require_refusal(&err);
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    char *base = fuzz_text(bytes, len);
    char *locations = fuzz_cut(base, "====");
    struct nginx_words words;

    render_values(base);
    render_site(base, locations);
    read_any(base);
    read_any(locations);
    if (nginx_words_read(&words, locations)) {
        if (are_locations(&words))
            compare_locations(locations, &words);
        nginx_words_done(&words);
    }
    free(base);
}
