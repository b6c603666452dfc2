/*
 * nginx_text: reads text in nginx's configuration language as far as we need to know it. Pure.
 *
 * Words, quotes, escapes, comments and blocks are told apart as ngx_conf_file.c does; what the
 * words mean is nginx's business.
 */
#ifndef CM_DOMAIN_NGINX_TEXT_H
#define CM_DOMAIN_NGINX_TEXT_H

#include <stdbool.h>
#include <stddef.h>

enum { NGINX_TEXT_WORD_SIZE = 1100 };

/* A `location` that compares the path itself: not a regular expression, not a named one. */
struct nginx_text_location {
    char path[NGINX_TEXT_WORD_SIZE];
    bool exact;  /* "=" */
    size_t line; /* of its path, from 1 */
};

struct nginx_text {
    const char *at;
    size_t line;
    unsigned depth;
};

void nginx_text_init(struct nginx_text *text, const char *fragment);

/* The next location at the outermost level of the text; false at its end. */
bool nginx_text_next_location(struct nginx_text *text, struct nginx_text_location *ret);

/*
 * Name of the group that `user` at the outermost level gives to workers: its second word or, as for
 * nginx, the user's own name. False when the text, of a main configuration, does not say it.
 */
bool nginx_text_worker_group(const char *conf, char ret[NGINX_TEXT_WORD_SIZE]);

#endif
