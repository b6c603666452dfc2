#include "runtime/server_request.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

/* Bytes that are read from the left. */
struct span {
    const char *at;
    size_t len;
};

static struct span cut(struct span *rest, size_t len, size_t skipped)
{
    struct span head = {rest->at, len};

    rest->at += len + skipped;
    rest->len -= len + skipped;
    return head;
}

/* Up to `byte`, which goes too; false when there is none. */
static bool cut_at(struct span *rest, char byte, struct span *ret)
{
    const char *found = memchr(rest->at, byte, rest->len);

    if (found == NULL)
        return false;
    *ret = cut(rest, (size_t)(found - rest->at), 1);
    return true;
}

static bool cut_line(struct span *rest, struct span *ret)
{
    if (!cut_at(rest, '\n', ret) || ret->len == 0 || ret->at[ret->len - 1] != '\r')
        return false;
    ret->len--;
    return true;
}

static bool is_token(struct span text)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";

    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              (c >= '0' && c <= '9') || (c != '\0' && strchr(marks, c) != NULL)))
            return false;
    }
    return text.len > 0;
}

static bool is_visible(struct span text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] <= ' ' || text.at[i] > '~')
            return false;
    }
    return true;
}

static bool copy(char *ret, size_t size, struct span text)
{
    if (text.len >= size)
        return false;
    memcpy(ret, text.at, text.len);
    ret[text.len] = '\0';
    return true;
}

static bool is_word(struct span text, const char *word)
{
    return text.len == strlen(word) && strncasecmp(text.at, word, text.len) == 0;
}

/* 0, or the status to answer. */
static int read_request_line(struct span line, struct server_request *ret)
{
    struct span method;
    struct span target;
    struct span path;

    if (!cut_at(&line, ' ', &method) || !cut_at(&line, ' ', &target) ||
        !is_token(method) || !is_visible(target))
        return 400;
    if (line.len != 8 || memcmp(line.at, "HTTP/", 5) != 0 || line.at[6] != '.')
        return 400;
    if (memcmp(line.at, "HTTP/1.", 7) != 0)
        return 505;
    if (!copy(ret->method, sizeof ret->method, method))
        return 501;
    if (target.len == 0 || target.at[0] != '/')
        return 400;
    if (!cut_at(&target, '?', &path))
        path = cut(&target, target.len, 0);
    return copy(ret->path, sizeof ret->path, path) &&
                   copy(ret->query, sizeof ret->query, target)
               ? 0
               : 414;
}

struct fields {
    bool has_length;
    size_t length;
    bool is_coded; /* Transfer-Encoding: what would be right is not known here */
    bool expects;
};

static bool read_length(struct span text, size_t *ret)
{
    *ret = 0;
    if (text.len == 0)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        *ret = *ret > SIZE_MAX / 100 ? SIZE_MAX / 10
                                     : *ret * 10 + (size_t)(text.at[i] - '0');
    }
    return true;
}

static struct span trim(struct span text)
{
    while (text.len > 0 && (text.at[0] == ' ' || text.at[0] == '\t'))
        cut(&text, 0, 1);
    while (text.len > 0 &&
           (text.at[text.len - 1] == ' ' || text.at[text.len - 1] == '\t'))
        text.len--;
    return text;
}

static bool read_field(struct span line, struct fields *fields)
{
    struct span name;
    struct span value;

    if (memchr(line.at, '\0', line.len) != NULL ||
        memchr(line.at, '\r', line.len) != NULL || !cut_at(&line, ':', &name) ||
        !is_token(name))
        return false;
    value = trim(line);
    if (is_word(name, "Content-Length")) {
        if (fields->has_length || !read_length(value, &fields->length))
            return false;
        fields->has_length = true;
    }
    if (is_word(name, "Transfer-Encoding"))
        fields->is_coded = true;
    if (is_word(name, "Expect") && is_word(value, "100-continue"))
        fields->expects = true;
    return true;
}

/* 0, or the status to answer. */
static int read_head(struct span head, struct server_request *ret, struct fields *fields)
{
    struct span line;
    int status;

    if (!cut_line(&head, &line))
        return 400;
    status = read_request_line(line, ret);
    while (status == 0 && head.len > 0)
        status = cut_line(&head, &line) && read_field(line, fields) ? 0 : 400;
    if (status != 0)
        return status;
    if (fields->is_coded)
        return 501;
    return strcmp(ret->method, "POST") == 0 && !fields->has_length ? 411 : 0;
}

enum server_parse server_request_parse(struct server_request *ret, const char *bytes,
                                       size_t len, size_t body_max, int *ret_status)
{
    const char *end =
        memmem(bytes, len < SERVER_HEAD_MAX ? len : SERVER_HEAD_MAX, "\r\n\r\n", 4);
    struct fields fields = {0};
    size_t head_len;

    *ret = (struct server_request){.body = NULL};
    *ret_status = end == NULL && len >= SERVER_HEAD_MAX ? 431 : 0;
    if (end == NULL)
        return *ret_status != 0 ? SERVER_PARSE_BAD : SERVER_PARSE_MORE;
    head_len = (size_t)(end - bytes) + 4;
    *ret_status = read_head((struct span){bytes, head_len - 2}, ret, &fields);
    if (*ret_status == 0 && fields.length > body_max)
        *ret_status = 413;
    if (*ret_status != 0)
        return SERVER_PARSE_BAD;
    ret->expects_continue = fields.expects;
    if (len - head_len < fields.length)
        return SERVER_PARSE_MORE;
    ret->body = bytes + head_len;
    ret->body_len = fields.length;
    return SERVER_PARSE_WHOLE;
}

const char *server_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {200, "OK"},
        {202, "Accepted"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {422, "Unprocessable Content"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "";
}
