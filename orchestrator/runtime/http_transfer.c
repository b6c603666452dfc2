#include "runtime/http_transfer.h"

#include "base/secret.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* ---- what libcurl's result means ---- */

/* CURLE_TOO_LARGE; the library may be newer than its header was. */
enum { SINCE_8_6_TOO_LARGE = 100 };

static const struct outcome {
    int code; /* CURLcode */
    enum err_kind kind;
    const char *text;
} outcomes[] = {
    {CURLE_COULDNT_RESOLVE_HOST, ERR_NET, "the host name does not resolve"},
    {CURLE_COULDNT_RESOLVE_PROXY, ERR_NET, "the name of the proxy does not resolve"},
    {CURLE_PROXY, ERR_NET, "the proxy refuses"},
    {CURLE_COULDNT_CONNECT, ERR_NET, "cannot connect"},
    {CURLE_SSL_CONNECT_ERROR, ERR_NET, "the TLS handshake failed"},
    {CURLE_PEER_FAILED_VERIFICATION, ERR_NET, "the TLS certificate is not trusted"},
    {CURLE_SSL_CACERT_BADFILE, ERR_CONFIG,
     "the file of trusted certificates cannot be used"},
    {CURLE_GOT_NOTHING, ERR_PEER, "the connection was closed without an answer"},
    {CURLE_PARTIAL_FILE, ERR_PEER, "the answer is cut short"},
    {CURLE_RECV_ERROR, ERR_PEER, "the answer cannot be read to its end"},
    {CURLE_SEND_ERROR, ERR_PEER, "the connection broke before the request was sent"},
    {CURLE_UNSUPPORTED_PROTOCOL, ERR_PEER, "the answer is not HTTP"},
    {CURLE_WEIRD_SERVER_REPLY, ERR_PEER, "the answer is not HTTP"},
    {SINCE_8_6_TOO_LARGE, ERR_PEER, "a header line of the answer is too long"},
    {CURLE_OUT_OF_MEMORY, ERR_SYS, "out of memory"},
    {CURLE_OK, ERR_NET, "the call failed"}, /* anything else */
};

static void explain_connect(struct transfer *transfer)
{
    long os_errno = 0;
    char reason[128];

    curl_easy_getinfo(transfer->easy, CURLINFO_OS_ERRNO, &os_errno);
    if (transfer->open_errno != 0) {
        err_sys(&transfer->err, transfer->open_errno, "%s: cannot open a socket",
                transfer->target);
    } else if (transfer->through_socket && os_errno == ENOENT) {
        err_set_code(&transfer->err, ERR_NET, ENOENT, "%s: no such socket",
                     transfer->target);
    } else if (os_errno != 0) {
        uv_strerror_r(-(int)os_errno, reason, sizeof reason);
        err_set_code(&transfer->err, ERR_NET, (int)os_errno, "%s: %s", transfer->target,
                     reason);
    } else if (transfer->through_socket) {
        /* connect(2) said EAGAIN, the queue of the listener is full; libcurl waits, and
         * then finds no reason. */
        err_set_code(&transfer->err, ERR_NET, EAGAIN,
                     "%s: the socket takes no more connections now", transfer->target);
    } else {
        err_set(&transfer->err, ERR_NET, "%s: cannot connect: %s", transfer->target,
                transfer->detail);
    }
}

static void explain_timeout(struct transfer *transfer)
{
    curl_off_t looked_up_us = 0;
    curl_off_t ready_us = 0;
    const char *missing;

    curl_easy_getinfo(transfer->easy, CURLINFO_NAMELOOKUP_TIME_T, &looked_up_us);
    curl_easy_getinfo(transfer->easy, CURLINFO_PRETRANSFER_TIME_T, &ready_us);
    if (transfer->header_bytes > 0)
        missing = "the answer is not complete";
    else if (ready_us > 0)
        missing = "no answer";
    else if (looked_up_us > 0 || transfer->through_socket)
        missing = "no connection";
    else
        missing = "the host name is not looked up";
    err_set(&transfer->err, ERR_TIMEOUT, "%s: %s after %u ms", transfer->target, missing,
            transfer->timeout_ms);
}

/* libcurl's details may have several lines. */
static void flatten(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ')
            *text = ' ';
    }
}

/* Until libcurl 8.6 a header line above its own limit is reported as out of memory. */
static bool header_too_long(struct transfer *transfer, CURLcode code)
{
    long request_bytes = 0;

    curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &request_bytes);
    return code == CURLE_OUT_OF_MEMORY && request_bytes > 0 && !transfer->header_complete;
}

static void explain(struct transfer *transfer, CURLcode code)
{
    const struct outcome *outcome = outcomes;

    flatten(transfer->detail);
    if (code == CURLE_COULDNT_CONNECT) {
        explain_connect(transfer);
        return;
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        explain_timeout(transfer);
        return;
    }
    if (header_too_long(transfer, code)) {
        err_set(&transfer->err, ERR_PEER, "%s: a header line of the answer is too long",
                transfer->target);
        return;
    }
    while (outcome->code != (int)code && outcome->code != CURLE_OK)
        outcome++;
    err_set(&transfer->err, outcome->kind, "%s: %s (%s)", transfer->target, outcome->text,
            transfer->detail[0] != '\0' ? transfer->detail : curl_easy_strerror(code));
}

void transfer_judge(struct transfer *transfer, CURLcode code)
{
    long status = 0;

    if (transfer->err.kind != ERR_NONE) /* a callback of ours ended it */
        return;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    transfer->call->status = (int)status;
    if (code != CURLE_OK)
        explain(transfer, code);
    else if (!transfer->header_complete)
        /* libcurl lets a connection that closes within the header pass. */
        err_set(&transfer->err, ERR_PEER, "%s: the header of the answer is cut short",
                transfer->target);
}

/* ---- what arrives ---- */

/* Both take all or nothing: another number than `count` ends the transfer. */
static size_t on_curl_body(char *bytes, size_t size, size_t count, void *data)
{
    struct transfer *transfer = data;

    (void)size; /* always 1 */
    if (transfer->ended)
        return 0;
    if (buf_append(&transfer->call->body, bytes, count, &transfer->err) == 0)
        return count;
    err_wrap(&transfer->err, "%s: the answer is too long", transfer->target);
    return 0;
}

static size_t on_curl_header(char *bytes, size_t size, size_t count, void *data)
{
    struct transfer *transfer = data;
    struct buf *headers = &transfer->call->headers;
    long status = 0;

    (void)size;
    if (transfer->ended)
        return 0;
    transfer->header_bytes += count;
    if (transfer->header_bytes > TRANSFER_MAX_HEADER) {
        err_set(&transfer->err, ERR_PEER,
                "%s: the header of the answer is longer than %d bytes", transfer->target,
                TRANSFER_MAX_HEADER);
        return 0;
    }
    if (transfer->header_complete)
        return count;
    /* Interim responses (RFC 9110 §15.2) come before the final one. */
    if (count > 5 && memcmp(bytes, "HTTP/", 5) == 0)
        buf_clear(headers);
    if (buf_append(headers, bytes, count, &transfer->err) < 0) {
        err_wrap(&transfer->err, "%s", transfer->target);
        return 0;
    }
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    transfer->header_complete = status >= 200 && (bytes[0] == '\r' || bytes[0] == '\n');
    return count;
}

/* libcurl's own sockets are not close-on-exec. */
static curl_socket_t on_curl_open(void *data, curlsocktype purpose,
                                  struct curl_sockaddr *address)
{
    struct transfer *transfer = data;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

    (void)purpose;
    if (fd < 0)
        transfer->open_errno = errno;
    return fd;
}

/* ---- settings ---- */

/* The URL without what may be secret in it: user, password, query. */
static int check_url(struct transfer *transfer, const struct http_request *request)
{
    const char *through =
        request->unix_socket != NULL ? request->unix_socket : request->proxy;
    CURLU *url = curl_url();
    char *scheme = NULL;
    char *shown = NULL;
    CURLUcode code = CURLUE_OUT_OF_MEMORY;

    if (url != NULL)
        code = curl_url_set(url, CURLUPART_URL, request->url, 0);
    if (code == CURLUE_OK)
        code = curl_url_get(url, CURLUPART_SCHEME, &scheme, 0);
    if (code == CURLUE_OK && strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
        code = CURLUE_UNSUPPORTED_SCHEME;
    if (code == CURLUE_OK) {
        curl_url_set(url, CURLUPART_USER, NULL, 0);
        curl_url_set(url, CURLUPART_PASSWORD, NULL, 0);
        curl_url_set(url, CURLUPART_QUERY, NULL, 0);
        curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0);
        code = curl_url_get(url, CURLUPART_URL, &shown, 0);
    }
    if (code == CURLUE_OK)
        snprintf(transfer->target, sizeof transfer->target, "%s %.200s%s%s",
                 request->method, shown, through == NULL ? "" : " through ",
                 through == NULL ? "" : through);
    else
        err_set(&transfer->err, code == CURLUE_OUT_OF_MEMORY ? ERR_SYS : ERR_CONFIG,
                "\"%s\" is not an http or https URL: %s",
                strchr(request->url, '@') == NULL ? request->url : "(not shown)",
                curl_url_strerror(code));
    curl_free(shown);
    curl_free(scheme);
    curl_url_cleanup(url);
    return code == CURLUE_OK ? 0 : -1;
}

static int check_request(struct transfer *transfer, const struct http_request *request)
{
    const size_t longest = sizeof((struct sockaddr_un *)NULL)->sun_path - 1;

    if (check_url(transfer, request) < 0)
        return -1;
    if (request->unix_socket != NULL && strlen(request->unix_socket) > longest)
        return err_set_code(&transfer->err, ERR_CONFIG, ENAMETOOLONG,
                            "%s: the path of a socket has at most %zu bytes",
                            transfer->target, longest);
    for (size_t i = 0; request->headers != NULL && request->headers[i] != NULL; i++) {
        /* The value may be a secret. */
        if (request->headers[i][strcspn(request->headers[i], "\r\n")] != '\0')
            return err_set(&transfer->err, ERR_CONFIG,
                           "%s: header %.*s holds a line break", transfer->target,
                           (int)strcspn(request->headers[i], ":\r\n"),
                           request->headers[i]);
    }
    return 0;
}

static bool add_header(struct transfer *transfer, const char *line)
{
    struct curl_slist *longer = curl_slist_append(transfer->headers, line);

    if (longer != NULL)
        transfer->headers = longer;
    return longer != NULL;
}

static bool set_headers(struct transfer *transfer, const struct http_request *request)
{
    /* "Name:" takes away what libcurl would send by itself. */
    bool good = add_header(transfer, "Expect:");
    bool typed = false;

    for (size_t i = 0; request->headers != NULL && request->headers[i] != NULL; i++) {
        good = good && add_header(transfer, request->headers[i]);
        typed = typed || strncasecmp(request->headers[i], "Content-Type:", 13) == 0;
    }
    if (!typed)
        good = good && add_header(transfer, "Content-Type:");
    return good && curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER,
                                    transfer->headers) == CURLE_OK;
}

static bool set_method(CURL *easy, const struct http_request *request)
{
    bool failed = false;

    if (strcmp(request->method, "HEAD") == 0)
        return curl_easy_setopt(easy, CURLOPT_NOBODY, 1L) == CURLE_OK;
    if (strcmp(request->method, "GET") == 0 && request->body == NULL)
        return curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L) == CURLE_OK;
    failed |= curl_easy_setopt(easy, CURLOPT_POST, 1L) != CURLE_OK;
    failed |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                               (curl_off_t)request->body_len) != CURLE_OK;
    failed |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS,
                               request->body == NULL ? "" : request->body) != CURLE_OK;
    failed |= curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method) != CURLE_OK;
    /* On a reused connection that breaks before the first byte of the answer libcurl
     * sends the request again, which only a safe method (RFC 9110 §9.2.1) may. */
    failed |= curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK;
    failed |= curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L) != CURLE_OK;
    return !failed;
}

static const struct number_option {
    CURLoption option;
    long value;
} number_options[] = {
    {CURLOPT_NOSIGNAL, 1},
    {CURLOPT_FOLLOWLOCATION, 0},
    {CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1},
    {CURLOPT_SUPPRESS_CONNECT_HEADERS, 1}, /* the proxy's are not those of the answer */
    {CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2},
    /* Without it the end of a call waits for getaddrinfo(3) in libcurl's thread. */
    {CURLOPT_QUICK_EXIT, 1},
    /* A resumed session is not verified again, and its keys would stay in memory. */
    {CURLOPT_SSL_SESSIONID_CACHE, 0},
};

static bool set_options(struct transfer *transfer, const struct http_request *request)
{
    CURL *easy = transfer->easy;
    const struct text_option {
        CURLoption option;
        const char *value;
    } text_options[] = {
        {CURLOPT_URL, request->url},
        {CURLOPT_PROTOCOLS_STR, "http,https"},
        {CURLOPT_USERAGENT, "cert-manager/" CERT_MANAGER_VERSION},
        /* Whatever the environment says. */
        {CURLOPT_PROXY, request->proxy == NULL ? "" : request->proxy},
        {CURLOPT_NOPROXY, request->no_proxy == NULL ? "" : request->no_proxy},
        {CURLOPT_UNIX_SOCKET_PATH, request->unix_socket},
    };
    const struct pointer_option {
        CURLoption option;
        void *value;
    } pointer_options[] = {
        {CURLOPT_PRIVATE, transfer},        {CURLOPT_ERRORBUFFER, transfer->detail},
        {CURLOPT_WRITEDATA, transfer},      {CURLOPT_HEADERDATA, transfer},
        {CURLOPT_OPENSOCKETDATA, transfer},
    };
    bool failed = false;

    for (size_t i = 0; i < sizeof number_options / sizeof *number_options; i++)
        failed |= curl_easy_setopt(easy, number_options[i].option,
                                   number_options[i].value) != CURLE_OK;
    for (size_t i = 0; i < sizeof text_options / sizeof *text_options; i++)
        failed |= curl_easy_setopt(easy, text_options[i].option, text_options[i].value) !=
                  CURLE_OK;
    for (size_t i = 0; i < sizeof pointer_options / sizeof *pointer_options; i++)
        failed |= curl_easy_setopt(easy, pointer_options[i].option,
                                   pointer_options[i].value) != CURLE_OK;
    failed |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_curl_body) != CURLE_OK;
    failed |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_curl_header) != CURLE_OK;
    failed |=
        curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_curl_open) != CURLE_OK;
    failed |=
        curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)request->timeout_ms) != CURLE_OK;
    failed |= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                               (long)request->timeout_ms) != CURLE_OK;
    failed |= curl_easy_setopt(easy, CURLOPT_HAPROXYPROTOCOL,
                               request->proxy_protocol ? 1L : 0L) != CURLE_OK;
    return !failed;
}

/* These roots instead of the system's, read for every connection: the file may change. */
static bool set_ca_bundle(CURL *easy, const char *path)
{
    return path == NULL ||
           (curl_easy_setopt(easy, CURLOPT_CAINFO, path) == CURLE_OK &&
            curl_easy_setopt(easy, CURLOPT_CAPATH, (char *)NULL) == CURLE_OK &&
            curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L) == CURLE_OK);
}

/* To open a FIFO that nobody writes to would be to wait for ever, with all that we have to do. */
static int check_ca_bundle(struct transfer *transfer, const char *path)
{
    struct stat status;

    if (path == NULL)
        return 0;
    if (stat(path, &status) < 0)
        return err_set(&transfer->err, ERR_CONFIG, "%s: %s: %s", transfer->target, path,
                       strerror(errno));
    if (!S_ISREG(status.st_mode))
        return err_set(&transfer->err, ERR_CONFIG, "%s: %s: not a regular file",
                       transfer->target, path);
    return 0;
}

int transfer_prepare(struct transfer *transfer, const struct http_request *request)
{
    transfer->timeout_ms = request->timeout_ms;
    transfer->through_socket = request->unix_socket != NULL;
    if (check_request(transfer, request) < 0 ||
        check_ca_bundle(transfer, request->ca_bundle) < 0)
        return -1;
    transfer->easy = curl_easy_init();
    if (transfer->easy == NULL || !set_options(transfer, request) ||
        !set_method(transfer->easy, request) || !set_headers(transfer, request) ||
        !set_ca_bundle(transfer->easy, request->ca_bundle))
        return err_set(&transfer->err, ERR_SYS,
                       "%s: libcurl refuses its settings, out of memory?",
                       transfer->target);
    return 0;
}

void transfer_free(struct transfer *transfer)
{
    curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->headers);
    wipe_free(transfer);
}
