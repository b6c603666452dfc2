/*
 * The input is a text of a single value: a host name, "host:port", hex, base64url, a time, a version, a
 * line of another program.
 */
#include "base/log.h"
#include "base/text.h"
#include "domain/caa.h"
#include "domain/config_internal.h"
#include "domain/host_port.h"
#include "domain/hostname.h"
#include "domain/nginx_conf.h"
#include "domain/renewal_info.h"
#include "support/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check_names(const char *text)
{
    struct err err = ERR_INIT;
    bool good = hostname_check(text, &err) == 0;

    if (!good)
        fuzz_require_refusal(&err);
    else
        FUZZ_REQUIRE(strlen(text) <= 253 && strspn(text,
                                                   "abcdefghijklmnopqrstuvwxyz"
                                                   "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                                   "0123456789.-") == strlen(text));
    FUZZ_REQUIRE(!good || hostname_check_pattern(text, &err) == 0);
    if (hostname_check_public(text, &err) == 0)
        FUZZ_REQUIRE(good && strchr(text, '.') != NULL);
    for (const char *name = text; good && name != NULL; name = caa_parent(name))
        FUZZ_REQUIRE(hostname_check(name, &err) == 0);
    if (good)
        fuzz_note_accepted();
}

static void check_place(const char *text)
{
    struct host_port place;
    struct host_port again;
    char written[HOST_PORT_HOST_SIZE + 16];

    if (host_port_parse(&place, text) < 0)
        return;
    FUZZ_REQUIRE(place.host[0] != '\0' && place.port >= 1 && place.port <= 65535);
    snprintf(written, sizeof written,
             strchr(place.host, ':') == NULL ? "%s:%u" : "[%s]:%u", place.host,
             place.port);
    FUZZ_REQUIRE_TEXT(host_port_parse(&again, written) == 0, written);
    FUZZ_REQUIRE(strcmp(again.host, place.host) == 0 && again.port == place.port &&
                 again.literal == place.literal);
    fuzz_note_accepted();
}

static void check_encodings(const unsigned char *bytes, size_t len, const char *text)
{
    size_t size = TEXT_BASE64URL_SIZE(len);
    unsigned char *back = malloc(TEXT_UNBASE64URL_MAX(size) + len + 1);
    char *written = malloc(size > 2 * len + 1 ? size : 2 * len + 1);
    size_t back_len = 0;

    FUZZ_REQUIRE(back != NULL && written != NULL);
    text_base64url(written, bytes, len);
    FUZZ_REQUIRE(text_unbase64url(back, &back_len, written, strlen(written)) == 0);
    FUZZ_REQUIRE(back_len == len && memcmp(back, bytes, len) == 0);
    text_hex(written, bytes, len);
    FUZZ_REQUIRE(text_unhex(back, len, written) == 0 && memcmp(back, bytes, len) == 0);
    if (text_unbase64url(back, &back_len, text, strlen(text)) == 0) {
        FUZZ_REQUIRE(back_len <= TEXT_UNBASE64URL_MAX(strlen(text)));
        fuzz_note_accepted();
    }
    free(back);
    free(written);
}

/* Of any size, also of none. */
static void check_escape(const unsigned char *bytes, size_t len)
{
    static const size_t sizes[] = {1, 2, 5, 17, 64, 4096};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *shown = malloc(sizes[i]);

        FUZZ_REQUIRE(shown != NULL);
        FUZZ_REQUIRE(text_escape(shown, sizes[i], bytes, len) == strlen(shown));
        fuzz_require_printable(shown);
        free(shown);
    }
}

static void check_values(const char *text, size_t len)
{
    char quoted[CONFIG_QUOTED_SIZE];
    char size[CONFIG_SIZE_SIZE];
    char servers[64];
    enum log_level level;
    uint64_t number;
    int64_t seconds = renewal_info_retry_after(text, FUZZ_NOW);

    FUZZ_REQUIRE(seconds >= 0);
    fuzz_require_line(config_quoted(quoted, text, len));
    if (config_parse_size(text, size))
        FUZZ_REQUIRE(config_has_form(CONFIG_SIZE, size));
    (void)config_parse_number(text, len, &number);
    for (int type = CONFIG_HOSTNAME; type <= CONFIG_AUTHORITIES; type++)
        (void)config_has_form((enum config_type)type, text);
    if (log_level_parse(text, &level) == 0)
        FUZZ_REQUIRE(log_level_name(level)[0] != '\0');
    nginx_conf_nameservers(text, servers, sizeof servers);
    FUZZ_REQUIRE(strspn(servers, "0123456789abcdefABCDEF.:[] ") == strlen(servers));
    (void)nginx_conf_parse_version(text);
    (void)nginx_conf_is_thumbprint(text);
}

void fuzz_one(const unsigned char *bytes, size_t len)
{
    char *text = fuzz_text(bytes, len);

    check_names(text);
    check_place(text);
    check_encodings(bytes, len, text);
    check_escape(bytes, len);
    check_values(text, len);
    free(text);
}
