/*
 * nginx_conf_challenges: answers to HTTP-01 challenges that nobody has put a file for: "<token>.<thumbprint
 * of the account key>" (RFC 8555 §8.3). Why that is no risk: docs/ARCHITECTURE.md.
 *
 * A value of several lines is indented for the place where our templates have it; its first line
 * has the indentation of the placeholder.
 */
#include "domain/nginx_conf_internal.h"

#include "domain/hostname.h"

#include <string.h>

#define BASE64URL "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

bool nginx_conf_is_thumbprint(const char *text)
{
    return strlen(text) == JOSE_THUMBPRINT_SIZE - 1 &&
           strspn(text, BASE64URL) == JOSE_THUMBPRINT_SIZE - 1;
}

static bool is_known(const struct site *site)
{
    return config_answers_challenges(site->config) &&
           site->facts->account_thumbprint[0] != '\0';
}

/*
 * Of all that may be asked for, a token is at least 128 bits in base64url (RFC 8555 §8.3), here at most
 * 128 characters, and nothing else. `$` would let a line end follow. A file goes first, so what is
 * asked for by those who check the webroot is what they have put there.
 */
int nginx_write_challenge_tokens(const struct site *site, struct buf *ret,
                                 struct err *err)
{
    if (!is_known(site))
        return 0;
    return buf_append_str(
        ret,
        "location ~ \"^/\\.well-known/acme-challenge/([-_A-Za-z0-9]{22,128})\\z\" {\n"
        "            set $cm_acme_token $1;\n"
        "            try_files $uri @cm_acme_answer;\n"
        "        }",
        err);
}

/* Comparisons, and no map: its hash has no room for long names unless nginx.conf makes some. */
int nginx_write_challenge_answers(const struct site *site, struct buf *ret,
                                  struct err *err)
{
    const char *thumbprint = site->facts->account_thumbprint;
    const struct config_list *names = &site->config->domains;

    if (!is_known(site))
        return 0;
    if (!nginx_conf_is_thumbprint(thumbprint))
        return err_set(err, ERR_CONFIG,
                       "\"%.100s\" is not the thumbprint of an account key", thumbprint);
    if (buf_append_str(ret,
                       "location @cm_acme_answer {\n"
                       "        types { }\n"
                       "        default_type text/plain;\n"
                       "        add_header X-Content-Type-Options nosniff always;\n"
                       "        if ($request_method !~ \"^(GET|HEAD)\\z\") {\n"
                       "            return 405;\n"
                       "        }\n",
                       err) < 0)
        return -1;
    for (size_t i = 0; i < names->count; i++) {
        if (hostname_check(names->items[i], err) < 0)
            return err_wrap(err, "domains");
        if (buf_printf(ret, err,
                       "        if ($host = \"%s\") {\n"
                       "            return 200 \"$cm_acme_token.%s\";\n"
                       "        }\n",
                       names->items[i], thumbprint) < 0)
            return -1;
    }
    return buf_append_str(ret,
                          "        return 404;\n"
                          "    }",
                          err);
}
