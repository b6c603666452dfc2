#include "domain/renewal_info.h"

#include "base/text.h"
#include "domain/json_text.h"

#include <jansson.h>
#include <openssl/asn1.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEY_IDENTIFIER_MAX_BYTES = 64, SERIAL_MAX_BYTES = 21, RETRY_AFTER_MAX_DIGITS = 9 };

/* ---- the id ---- */

/* The content of the DER, which has a leading 00 where the top bit would look like a sign. */
static const unsigned char *serial_content(unsigned char *der, int len, size_t *ret_len)
{
    enum { HEADER_BYTES = 2 }; /* of a value below 128 bytes */

    if (len <= HEADER_BYTES || len > HEADER_BYTES + SERIAL_MAX_BYTES)
        return NULL;
    *ret_len = (size_t)len - HEADER_BYTES;
    return der + HEADER_BYTES;
}

void renewal_info_id(const X509 *certificate, char ret[RENEWAL_INFO_ID_SIZE])
{
    _Static_assert(TEXT_BASE64URL_SIZE(KEY_IDENTIFIER_MAX_BYTES) +
                           TEXT_BASE64URL_SIZE(SERIAL_MAX_BYTES) <=
                       RENEWAL_INFO_ID_SIZE,
                   "RENEWAL_INFO_ID_SIZE is too small");
    AUTHORITY_KEYID *authority =
        X509_get_ext_d2i(certificate, NID_authority_key_identifier, NULL, NULL);
    const ASN1_OCTET_STRING *issuer = authority == NULL ? NULL : authority->keyid;
    int issuer_len = issuer == NULL ? 0 : ASN1_STRING_length(issuer);
    unsigned char *der = NULL;
    int der_len = i2d_ASN1_INTEGER(X509_get0_serialNumber(certificate), &der);
    size_t serial_len;
    const unsigned char *serial = serial_content(der, der_len, &serial_len);
    char *end;

    ret[0] = '\0';
    if (serial != NULL && issuer_len > 0 && issuer_len <= KEY_IDENTIFIER_MAX_BYTES) {
        text_base64url(ret, ASN1_STRING_get0_data(issuer), (size_t)issuer_len);
        end = ret + strlen(ret);
        *end = '.';
        text_base64url(end + 1, serial, serial_len);
    }
    OPENSSL_free(der);
    AUTHORITY_KEYID_free(authority);
    ERR_clear_error();
}

/* ---- times ---- */

/* Exactly `digits` of them; false when there are others. Moves on behind them. */
static bool take_number(const char **at, int digits, int *ret)
{
    *ret = 0;
    for (int i = 0; i < digits; i++, (*at)++) {
        if (**at < '0' || **at > '9')
            return false;
        *ret = *ret * 10 + (**at - '0');
    }
    return true;
}

static bool take_letter(const char **at, const char *allowed)
{
    if (**at == '\0' || strchr(allowed, **at) == NULL)
        return false;
    (*at)++;
    return true;
}

/* "Z", "+02:00": seconds to take away. */
static bool take_offset(const char **at, int *ret)
{
    int sign = **at == '-' ? -1 : 1;
    int hours;
    int minutes;

    *ret = 0;
    if (take_letter(at, "Zz"))
        return true;
    if (!take_letter(at, "+-") || !take_number(at, 2, &hours) || !take_letter(at, ":") ||
        !take_number(at, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *ret = sign * (hours * 3600 + minutes * 60);
    return true;
}

/* "2026-01-02", as tm counts. */
static bool take_date(const char **at, struct tm *ret)
{
    if (!take_number(at, 4, &ret->tm_year) || !take_letter(at, "-") ||
        !take_number(at, 2, &ret->tm_mon) || !take_letter(at, "-") ||
        !take_number(at, 2, &ret->tm_mday))
        return false;
    ret->tm_year -= 1900;
    ret->tm_mon -= 1;
    return true;
}

/* "04:05:06". A second 60 is a leap second. */
static bool take_time_of_day(const char **at, struct tm *ret)
{
    return take_number(at, 2, &ret->tm_hour) && take_letter(at, ":") &&
           take_number(at, 2, &ret->tm_min) && take_letter(at, ":") &&
           take_number(at, 2, &ret->tm_sec) && ret->tm_hour <= 23 && ret->tm_min <= 59 &&
           ret->tm_sec <= 60;
}

/* ".125", or nothing. */
static bool skip_fraction(const char **at)
{
    size_t digits;

    if (!take_letter(at, "."))
        return true;
    digits = strspn(*at, "0123456789");
    *at += digits;
    return digits > 0;
}

/* RFC 3339 §5.6, down to the second. */
static bool parse_time(const char *text, int64_t *ret)
{
    struct tm parts = {0};
    struct tm same;
    int offset;

    if (!take_date(&text, &parts) || !take_letter(&text, "Tt ") ||
        !take_time_of_day(&text, &parts) || !skip_fraction(&text) ||
        !take_offset(&text, &offset) || *text != '\0')
        return false;
    same = parts;
    *ret = timegm(&same) - offset;
    /* Another day comes out where there is none of that number. */
    return parts.tm_mon >= 0 && parts.tm_mon < 12 && parts.tm_mday > 0 &&
           (same.tm_mday == parts.tm_mday || parts.tm_sec == 60);
}

int64_t renewal_info_retry_after(const char *value, int64_t now)
{
    struct tm parts = {0};
    size_t digits = strspn(value, "0123456789");
    const char *end;
    int64_t at;

    if (digits > 0 && value[digits] == '\0')
        return digits <= RETRY_AFTER_MAX_DIGITS ? strtol(value, NULL, 10) : INT32_MAX;
    end = strptime(value, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    if (end == NULL || *end != '\0')
        return 0;
    at = timegm(&parts);
    return at > now ? at - now : 0;
}

/* ---- the answer ---- */

static int read_time(const json_t *window, const char *name, int64_t *ret,
                     struct err *err)
{
    const char *text = json_string_value(json_object_get(window, name));
    char shown[64] = "";

    if (text == NULL)
        return err_set(err, ERR_PEER, "the answer has no suggestedWindow.%s", name);
    if (parse_time(text, ret))
        return 0;
    text_escape(shown, sizeof shown, text, strlen(text));
    return err_set(err, ERR_PEER, "suggestedWindow.%s: found \"%s\", expected a time",
                   name, shown);
}

static int read_window(const json_t *root, struct renewal_window *ret, struct err *err)
{
    const json_t *window = json_object_get(root, "suggestedWindow");
    char start[TEXT_TIME_SIZE];
    char end[TEXT_TIME_SIZE];

    if (read_time(window, "start", &ret->start, err) < 0 ||
        read_time(window, "end", &ret->end, err) < 0)
        return -1;
    if (renewal_window_is_sound(ret))
        return 0;
    return err_set(err, ERR_PEER,
                   "the suggested window begins on %s and ends on %s, not after that",
                   text_time(start, ret->start), text_time(end, ret->end));
}

/* A link that cannot be shown as it is is of no use to anybody. */
static void read_explanation(const json_t *root, char ret[RENEWAL_INFO_LINK_SIZE])
{
    const char *link = json_string_value(json_object_get(root, "explanationURL"));

    ret[0] = '\0';
    if (link == NULL || strlen(link) >= RENEWAL_INFO_LINK_SIZE ||
        (!text_starts_with(link, "https://") && !text_starts_with(link, "http://")))
        return;
    for (const char *at = link; *at != '\0'; at++) {
        if (*at <= ' ' || *at > '~' || *at == '"')
            return;
    }
    snprintf(ret, RENEWAL_INFO_LINK_SIZE, "%s", link);
}

int renewal_info_read(const char *json, struct renewal_info *ret, struct err *err)
{
    json_t *root = json_load_whole(json, strlen(json), 0, NULL);
    struct renewal_window window = {0};
    int failed;

    if (root == NULL)
        return err_set(err, ERR_PEER, "the answer is not JSON");
    failed = read_window(root, &window, err);
    if (failed == 0) {
        ret->window = window;
        read_explanation(root, ret->explanation);
    }
    json_decref(root);
    return failed;
}
