
/*
 * ngx_http_ekm_module: tells the backends which TLS connection a request
 * came in on, so that a token or a quote can be bound to that connection.
 *
 * Variables:
 *
 *   $ekm_channel_binding   <64 hex>:<64 hex>, both lowercase: the 32 bytes of
 *                          the TLS exporter named by RFC 9266, Section 2, and
 *                          HMAC-SHA256 over these 32 bytes, keyed with the
 *                          text of the secret that nginx and the backends
 *                          share
 *   $ekm                   the exporter alone, which needs no secret
 *
 * Neither is found on a plain connection, before the handshake is complete,
 * and below TLS 1.3, nor $ekm_channel_binding in a server without a secret.
 * The last two are logged once per connection at the "error" level.  Once
 * found, a value stays the same for all requests of the connection to servers
 * with the same secret.
 *
 * Directive:
 *
 *   ekm_secret_file path;  context: http, server.  Read when the configuration
 *                          is loaded, by the master process, so the file may
 *                          be readable by root alone; it must not be
 *                          accessible to group or others.  One newline at the
 *                          end does not belong to the secret.
 *
 * A server without the directive uses the environment variable
 * EKM_SHARED_SECRET of the master process, a means for development.
 *
 * The module also removes X-TLS-EKM-Channel-Binding from every request of
 * a client, with or without TLS and in every location: a backend believes
 * this header, hence a client must have no way to set it.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <openssl/sha.h>

#if !(NGX_HTTP_SSL)
#error ngx_http_ekm_module needs nginx configured --with-http_ssl_module
#endif

#if (OPENSSL_VERSION_NUMBER < 0x30000000L)
#error ngx_http_ekm_module needs OpenSSL 3.0 or later
#endif


#define NGX_HTTP_EKM_LABEL       "EXPORTER-Channel-Binding"
#define NGX_HTTP_EKM_LEN         32
#define NGX_HTTP_EKM_MAC_LEN     SHA256_DIGEST_LENGTH

/* the lengths of $ekm and $ekm_channel_binding */
#define NGX_HTTP_EKM_HEX_LEN     (2 * NGX_HTTP_EKM_LEN)
#define NGX_HTTP_EKM_VALUE_LEN                                                \
    (NGX_HTTP_EKM_HEX_LEN + 1 + 2 * NGX_HTTP_EKM_MAC_LEN)

#define NGX_HTTP_EKM_MAX_SECRET  4096
#define NGX_HTTP_EKM_ENV         "EKM_SHARED_SECRET"


/*
 * All that is known of a secret is in a mapping of its own, which core dumps
 * leave out and which is wiped before it is given back.  This is why HMAC is
 * done here: OpenSSL's EVP_MAC has secret and key schedule on the heap.
 *
 * The text is wiped as soon as the master has made the key schedule of it: the
 * states of SHA-256 after the first block of the inner and of the outer hash
 * (RFC 2104, Section 4).  Workers inherit these.
 */

typedef struct {
    SHA256_CTX                    inner;
    SHA256_CTX                    outer;
    size_t                        len;
    u_char                        text[NGX_HTTP_EKM_MAX_SECRET + 1];
} ngx_http_ekm_key_t;


typedef struct {
    ngx_str_t                     name;    /* path, or NGX_HTTP_EKM_ENV */
    ngx_http_ekm_key_t           *key;
} ngx_http_ekm_secret_t;


typedef struct {
    ngx_array_t                   secrets;  /* of ngx_http_ekm_secret_t * */
} ngx_http_ekm_main_conf_t;


typedef struct {
    ngx_http_ekm_secret_t        *secret;
} ngx_http_ekm_srv_conf_t;


typedef struct ngx_http_ekm_value_s  ngx_http_ekm_value_t;

struct ngx_http_ekm_value_s {
    ngx_http_ekm_value_t         *next;
    ngx_http_ekm_secret_t        *secret;
    size_t                        len;     /* without a secret, that of $ekm */
    u_char                        text[NGX_HTTP_EKM_VALUE_LEN];
};


/*
 * What is known about a TLS connection.  That there is one of these means that
 * the handshake is complete: SSL_is_init_finished() is false again while a
 * KeyUpdate arrives in pieces.
 *
 * The exporter is a property of the connection, the HMAC depends on the server
 * as well, and requests on one connection may be for several servers: there is
 * a value for each secret in use.  A value is never changed, as requests and
 * concurrent HTTP/2 streams refer to its text until they have been logged.
 */

typedef struct {
    ngx_http_ekm_value_t         *values;
    u_char                        ekm[NGX_HTTP_EKM_LEN];
    unsigned                      exported:1;
    unsigned                      reported:1;
} ngx_http_ekm_connection_t;


static ngx_int_t ngx_http_ekm_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_http_ekm_connection_t *ngx_http_ekm_create_connection(
    ngx_ssl_conn_t *ssl_conn);
static ngx_http_ekm_value_t *ngx_http_ekm_create_value(ngx_http_request_t *r,
    ngx_http_ekm_connection_t *ec, ngx_http_ekm_secret_t *secret, size_t len);
static ngx_int_t ngx_http_ekm_export(ngx_ssl_conn_t *ssl_conn,
    ngx_http_ekm_connection_t *ec, ngx_uint_t level, ngx_log_t *log);
static void ngx_http_ekm_sign(ngx_http_ekm_key_t *key, u_char *ekm,
    u_char *mac);
static void ngx_http_ekm_schedule(ngx_http_ekm_key_t *key);

static ngx_int_t ngx_http_ekm_header_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_ekm_remove_header(ngx_list_t *list);
static ngx_uint_t ngx_http_ekm_is_header(ngx_str_t *name);

static ngx_int_t ngx_http_ekm_add_variables(ngx_conf_t *cf);
static ngx_int_t ngx_http_ekm_init(ngx_conf_t *cf);
static void *ngx_http_ekm_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_ekm_create_srv_conf(ngx_conf_t *cf);
static char *ngx_http_ekm_merge_srv_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_ekm_secret_file(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_ekm_read_file(ngx_conf_t *cf,
    ngx_http_ekm_secret_t *secret);
static ngx_fd_t ngx_http_ekm_open_file(ngx_conf_t *cf, ngx_str_t *name);
static ngx_int_t ngx_http_ekm_check_text(ngx_conf_t *cf,
    ngx_http_ekm_secret_t *secret);
static ngx_int_t ngx_http_ekm_read_env(ngx_conf_t *cf,
    ngx_http_ekm_secret_t **secret);
static ngx_http_ekm_secret_t *ngx_http_ekm_create_secret(ngx_conf_t *cf,
    ngx_str_t *name);
static void ngx_http_ekm_cleanup_secret(void *data);


static ngx_command_t  ngx_http_ekm_commands[] = {

    { ngx_string("ekm_secret_file"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_CONF_TAKE1,
      ngx_http_ekm_secret_file,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ekm_module_ctx = {
    ngx_http_ekm_add_variables,            /* preconfiguration */
    ngx_http_ekm_init,                     /* postconfiguration */

    ngx_http_ekm_create_main_conf,         /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_http_ekm_create_srv_conf,          /* create server configuration */
    ngx_http_ekm_merge_srv_conf,           /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_ekm_module = {
    NGX_MODULE_V1,
    &ngx_http_ekm_module_ctx,              /* module context */
    ngx_http_ekm_commands,                 /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* data is the number of bytes of the value that the variable shows */

static ngx_http_variable_t  ngx_http_ekm_vars[] = {

    { ngx_string("ekm_channel_binding"), NULL, ngx_http_ekm_variable,
      NGX_HTTP_EKM_VALUE_LEN, 0, 0 },

    { ngx_string("ekm"), NULL, ngx_http_ekm_variable,
      NGX_HTTP_EKM_HEX_LEN, 0, 0 },

      ngx_http_null_variable
};


/*
 * A request leaves out the phases before the one it enters at: an error found
 * while the header is read, such as a missing Host, goes by "error_page" to
 * the server rewrite phase, or for a named location to the rewrite phase, and
 * from there possibly to a backend.  Where nginx answers such an error itself,
 * the request is in no phase at all, but SSI in the answer may make subrequests
 * with a copy of its list of headers; they enter at the server rewrite phase.
 */

static ngx_http_phases  ngx_http_ekm_phases[] = {
    NGX_HTTP_POST_READ_PHASE,
    NGX_HTTP_SERVER_REWRITE_PHASE,
    NGX_HTTP_REWRITE_PHASE
};


/* index into ex_data of an SSL, of ngx_http_ekm_connection_t */

static int  ngx_http_ekm_index = -1;


static ngx_int_t
ngx_http_ekm_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_ssl_conn_t             *ssl_conn;
    ngx_http_ekm_value_t       *value;
    ngx_http_ekm_srv_conf_t    *escf;
    ngx_http_ekm_connection_t  *ec;

    if (r->connection->ssl == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    ssl_conn = r->connection->ssl->connection;

    ec = SSL_get_ex_data(ssl_conn, ngx_http_ekm_index);

    if (ec == NULL) {

        if (!SSL_is_init_finished(ssl_conn)) {

            /*
             * Early data may be replayed (RFC 8446, Section 2.3), so it must
             * not pass for a request of this connection.  The handshake may
             * finish while the request is processed: the absence is not to be
             * cached.
             */

            v->not_found = 1;
            v->no_cacheable = 1;

            return NGX_OK;
        }

        ec = ngx_http_ekm_create_connection(ssl_conn);
        if (ec == NULL) {
            return NGX_ERROR;
        }
    }

    escf = ngx_http_get_module_srv_conf(r, ngx_http_ekm_module);

    for (value = ec->values; value; value = value->next) {
        if (value->secret == escf->secret && value->len >= data) {
            break;
        }
    }

    if (value == NULL) {
        value = ngx_http_ekm_create_value(r, ec, escf->secret, data);

        if (value == NULL) {
            ec->reported = 1;
            v->not_found = 1;
            return NGX_OK;
        }
    }

    v->len = data;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = value->text;

    return NGX_OK;
}


static ngx_http_ekm_connection_t *
ngx_http_ekm_create_connection(ngx_ssl_conn_t *ssl_conn)
{
    ngx_connection_t           *c;
    ngx_http_ekm_connection_t  *ec;

    /*
     * Each HTTP/2 and HTTP/3 stream has an ngx_connection_t of its own, the
     * SSL is one and knows the connection whose pool outlives it.
     */

    c = ngx_ssl_get_connection(ssl_conn);

    ec = ngx_pcalloc(c->pool, sizeof(ngx_http_ekm_connection_t));
    if (ec == NULL) {
        return NULL;
    }

    if (SSL_set_ex_data(ssl_conn, ngx_http_ekm_index, ec) == 0) {
        ngx_ssl_error(NGX_LOG_ALERT, c->log, 0, "SSL_set_ex_data() failed");
        return NULL;
    }

    return ec;
}


static ngx_http_ekm_value_t *
ngx_http_ekm_create_value(ngx_http_request_t *r, ngx_http_ekm_connection_t *ec,
    ngx_http_ekm_secret_t *secret, size_t len)
{
    u_char                    *p, mac[NGX_HTTP_EKM_MAC_LEN];
    ngx_log_t                 *log;
    ngx_uint_t                 level;
    ngx_ssl_conn_t            *ssl_conn;
    ngx_connection_t          *c;
    ngx_http_ekm_value_t      *value;
    ngx_http_core_srv_conf_t  *cscf;

    log = r->connection->log;
    ssl_conn = r->connection->ssl->connection;

    /* an error once per connection, not with every request */

    level = ec->reported ? NGX_LOG_DEBUG : NGX_LOG_ERR;

    /*
     * RFC 9266 allows older versions with conditions, such as the extended
     * master secret (RFC 7627), that make the exporter unique; we do without.
     */

    if (SSL_version(ssl_conn) < TLS1_3_VERSION) {
        ngx_log_error(level, log, 0,
                      "no EKM channel binding: it requires TLSv1.3, "
                      "the connection is %s", SSL_get_version(ssl_conn));
        return NULL;
    }

    if (secret == NULL && len > NGX_HTTP_EKM_HEX_LEN) {
        cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);

        ngx_log_error(level, log, 0,
                      "no EKM channel binding: server \"%V\" has no secret, "
                      "set \"ekm_secret_file\" and reload",
                      &cscf->server_name);
        return NULL;
    }

    if (ngx_http_ekm_export(ssl_conn, ec, level, log) != NGX_OK) {
        return NULL;
    }

    c = ngx_ssl_get_connection(ssl_conn);

    value = ngx_palloc(c->pool, sizeof(ngx_http_ekm_value_t));
    if (value == NULL) {
        return NULL;
    }

    p = ngx_hex_dump(value->text, ec->ekm, NGX_HTTP_EKM_LEN);

    if (secret) {
        ngx_http_ekm_sign(secret->key, ec->ekm, mac);

        *p++ = ':';
        p = ngx_hex_dump(p, mac, NGX_HTTP_EKM_MAC_LEN);
    }

    value->len = p - value->text;
    value->secret = secret;
    value->next = ec->values;
    ec->values = value;

    return value;
}


static ngx_int_t
ngx_http_ekm_export(ngx_ssl_conn_t *ssl_conn, ngx_http_ekm_connection_t *ec,
    ngx_uint_t level, ngx_log_t *log)
{
    if (ec->exported) {
        return NGX_OK;
    }

    /*
     * In TLS 1.3 no context is the same as the empty context that RFC 9266
     * asks for (RFC 8446, Section 7.5).
     */

    if (SSL_export_keying_material(ssl_conn, ec->ekm, NGX_HTTP_EKM_LEN,
                                   NGX_HTTP_EKM_LABEL,
                                   sizeof(NGX_HTTP_EKM_LABEL) - 1,
                                   NULL, 0, 0)
        != 1)
    {
        ngx_ssl_error(level, log, 0, "SSL_export_keying_material() failed");
        return NGX_ERROR;
    }

    ec->exported = 1;

    return NGX_OK;
}


static void
ngx_http_ekm_sign(ngx_http_ekm_key_t *key, u_char *ekm, u_char *mac)
{
    SHA256_CTX  ctx;

    ctx = key->inner;
    SHA256_Update(&ctx, ekm, NGX_HTTP_EKM_LEN);
    SHA256_Final(mac, &ctx);

    ctx = key->outer;
    SHA256_Update(&ctx, mac, NGX_HTTP_EKM_MAC_LEN);
    SHA256_Final(mac, &ctx);

    OPENSSL_cleanse(&ctx, sizeof(SHA256_CTX));
}


static void
ngx_http_ekm_schedule(ngx_http_ekm_key_t *key)
{
    ngx_uint_t  i;

    if (key->len > SHA256_CBLOCK) {
        SHA256_Init(&key->inner);
        SHA256_Update(&key->inner, key->text, key->len);
        SHA256_Final(key->text, &key->inner);

        key->len = SHA256_DIGEST_LENGTH;
    }

    ngx_memzero(key->text + key->len, SHA256_CBLOCK - key->len);

    for (i = 0; i < SHA256_CBLOCK; i++) {
        key->text[i] ^= 0x36;
    }

    SHA256_Init(&key->inner);
    SHA256_Update(&key->inner, key->text, SHA256_CBLOCK);

    for (i = 0; i < SHA256_CBLOCK; i++) {
        key->text[i] ^= 0x36 ^ 0x5c;
    }

    SHA256_Init(&key->outer);
    SHA256_Update(&key->outer, key->text, SHA256_CBLOCK);

    OPENSSL_cleanse(key->text, sizeof(key->text));
}


static ngx_int_t
ngx_http_ekm_header_handler(ngx_http_request_t *r)
{
    ngx_int_t  n;

    n = ngx_http_ekm_remove_header(&r->headers_in.headers);

    if (n == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (n > 0) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "removed X-TLS-EKM-Channel-Binding sent by client");
    }

    return NGX_DECLINED;
}


/*
 * Returns how many elements were removed.  No element is moved, because
 * r->headers_in points to the known ones, as do the elements themselves
 * since nginx 1.23.0.  Instead, a part is cut before and after the element.
 * Only the first part of a list may become empty: the usual iteration looks
 * at the first element of any other part unasked.
 */

static ngx_int_t
ngx_http_ekm_remove_header(ngx_list_t *list)
{
    ngx_int_t         n;
    ngx_uint_t        i;
    ngx_list_part_t  *part, *prev, *next, *rest;
    ngx_table_elt_t  *h;

    n = 0;
    prev = NULL;

    for (part = &list->part; part; part = next) {
        h = part->elts;
        next = part->next;

        for (i = 0; i < part->nelts; i++) {
            if (ngx_http_ekm_is_header(&h[i].key)) {
                break;
            }
        }

        if (i == part->nelts) {
            prev = part;
            continue;
        }

        n++;

        if (i + 1 < part->nelts) {
            rest = ngx_palloc(list->pool, sizeof(ngx_list_part_t));
            if (rest == NULL) {
                return NGX_ERROR;
            }

            rest->elts = &h[i + 1];
            rest->nelts = part->nelts - i - 1;
            rest->next = next;

            if (list->last == part) {
                list->last = rest;
            }

            next = rest;
        }

        if (i == 0 && prev) {
            prev->next = next;

            if (list->last == part) {
                list->last = prev;
            }

        } else {
            part->nelts = i;
            part->next = next;
            prev = part;
        }
    }

    /*
     * There may be less room in the last part than list->nalloc says: let
     * ngx_list_push() take it for full.  An empty one has room for one.
     */

    if (n) {
        list->nalloc = ngx_max(list->last->nelts, 1);
    }

    return n;
}


/*
 * A backend that maps names the way of CGI (RFC 3875, Section 4.1.18) cannot
 * tell "-" from "_", and some replace any other character by "_" too.  nginx
 * lets them pass with "underscores_in_headers on" or "ignore_invalid_headers
 * off".
 */

static ngx_uint_t
ngx_http_ekm_is_header(ngx_str_t *name)
{
    u_char      ch;
    ngx_uint_t  i;

    static u_char  header[] = "x-tls-ekm-channel-binding";

    if (name->len != sizeof(header) - 1) {
        return 0;
    }

    for (i = 0; i < name->len; i++) {
        ch = ngx_tolower(name->data[i]);

        if (ch == header[i]) {
            continue;
        }

        if (header[i] != '-'
            || (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9'))
        {
            return 0;
        }
    }

    return 1;
}


static ngx_int_t
ngx_http_ekm_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    /*
     * OpenSSL never gives an index back, so it is taken once and not at each
     * reload.  No callback goes with it: OpenSSL would go on calling it when
     * a reload has removed "load_module" and the code is gone.
     */

    if (ngx_http_ekm_index == -1) {
        ngx_http_ekm_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);

        if (ngx_http_ekm_index == -1) {
            ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                          "SSL_get_ex_new_index() failed");
            return NGX_ERROR;
        }
    }

    for (v = ngx_http_ekm_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ekm_init(ngx_conf_t *cf)
{
    ngx_uint_t                  i, n;
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    n = sizeof(ngx_http_ekm_phases) / sizeof(ngx_http_ekm_phases[0]);

    for (i = 0; i < n; i++) {
        h = ngx_array_push(&cmcf->phases[ngx_http_ekm_phases[i]].handlers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        *h = ngx_http_ekm_header_handler;
    }

    return NGX_OK;
}


static void *
ngx_http_ekm_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_ekm_main_conf_t  *emcf;

    emcf = ngx_palloc(cf->pool, sizeof(ngx_http_ekm_main_conf_t));
    if (emcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&emcf->secrets, cf->pool, 1,
                       sizeof(ngx_http_ekm_secret_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return emcf;
}


static void *
ngx_http_ekm_create_srv_conf(ngx_conf_t *cf)
{
    ngx_http_ekm_srv_conf_t  *escf;

    escf = ngx_palloc(cf->pool, sizeof(ngx_http_ekm_srv_conf_t));
    if (escf == NULL) {
        return NULL;
    }

    escf->secret = NGX_CONF_UNSET_PTR;

    return escf;
}


static char *
ngx_http_ekm_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_ekm_srv_conf_t *prev = parent;
    ngx_http_ekm_srv_conf_t *conf = child;

    if (conf->secret != NGX_CONF_UNSET_PTR) {
        return NGX_CONF_OK;
    }

    if (prev->secret == NGX_CONF_UNSET_PTR
        && ngx_http_ekm_read_env(cf, &prev->secret) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    conf->secret = prev->secret;

    return NGX_CONF_OK;
}


static char *
ngx_http_ekm_secret_file(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ekm_srv_conf_t *escf = conf;

    ngx_str_t                 *value;
    ngx_uint_t                 i;
    ngx_http_ekm_secret_t    **secrets;
    ngx_http_ekm_main_conf_t  *emcf;

    if (escf->secret != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0) {
        return "has an empty path";
    }

    if (ngx_conf_full_name(cf->cycle, &value[1], 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    /* servers that name the same file share the secret and its values */

    emcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ekm_module);

    secrets = emcf->secrets.elts;

    for (i = 0; i < emcf->secrets.nelts; i++) {
        if (secrets[i]->name.len == value[1].len
            && ngx_strcmp(secrets[i]->name.data, value[1].data) == 0)
        {
            escf->secret = secrets[i];
            return NGX_CONF_OK;
        }
    }

    escf->secret = ngx_http_ekm_create_secret(cf, &value[1]);
    if (escf->secret == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_ekm_read_file(cf, escf->secret) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ekm_read_file(ngx_conf_t *cf, ngx_http_ekm_secret_t *secret)
{
    ssize_t              n;
    ngx_fd_t             fd;
    ngx_int_t            rc;
    ngx_http_ekm_key_t  *key;

    fd = ngx_http_ekm_open_file(cf, &secret->name);
    if (fd == NGX_INVALID_FILE) {
        return NGX_ERROR;
    }

    rc = NGX_ERROR;

    key = secret->key;

    /* there is room for one byte more than is allowed */

    while (key->len <= NGX_HTTP_EKM_MAX_SECRET) {

        n = ngx_read_fd(fd, key->text + key->len,
                        NGX_HTTP_EKM_MAX_SECRET + 1 - key->len);

        if (n == -1) {
            if (ngx_errno == NGX_EINTR) {
                continue;
            }

            ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                               ngx_read_fd_n " \"%V\" failed", &secret->name);
            goto done;
        }

        if (n == 0) {
            break;
        }

        key->len += n;
    }

    rc = ngx_http_ekm_check_text(cf, secret);

    if (rc == NGX_OK) {
        ngx_http_ekm_schedule(key);
    }

done:

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_ALERT, cf, ngx_errno,
                           ngx_close_file_n " \"%V\" failed", &secret->name);
    }

    return rc;
}


static ngx_fd_t
ngx_http_ekm_open_file(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_fd_t         fd;
    ngx_uint_t       mode;
    ngx_file_info_t  fi;

    /* nonblocking, so that a FIFO is refused below and not waited for */

    fd = ngx_open_file(name->data, NGX_FILE_RDONLY|NGX_FILE_NONBLOCK,
                       NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "cannot open the EKM secret \"%V\", create the file "
                           "with the secret as its text and mode 0600, "
                           ngx_open_file_n " failed", name);
        return NGX_INVALID_FILE;
    }

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_fd_info_n " \"%V\" failed", name);
        goto failed;
    }

    if (!ngx_is_file(&fi)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the EKM secret \"%V\" is not a regular file, put "
                           "the secret into a file with mode 0600", name);
        goto failed;
    }

    mode = ngx_file_access(&fi);

    if (mode & 0077) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the EKM secret \"%V\" is accessible to group or "
                           "others, its mode is 0%ui%ui%ui, run \"chmod 600\" "
                           "on it",
                           name, mode >> 6, (mode >> 3) & 7, mode & 7);
        goto failed;
    }

    return fd;

failed:

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_ALERT, cf, ngx_errno,
                           ngx_close_file_n " \"%V\" failed", name);
    }

    return NGX_INVALID_FILE;
}


static ngx_int_t
ngx_http_ekm_check_text(ngx_conf_t *cf, ngx_http_ekm_secret_t *secret)
{
    size_t               i;
    ngx_http_ekm_key_t  *key;

    key = secret->key;

    if (key->len > NGX_HTTP_EKM_MAX_SECRET) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the EKM secret \"%V\" is larger than %d bytes",
                           &secret->name, NGX_HTTP_EKM_MAX_SECRET);
        return NGX_ERROR;
    }

    if (key->len && key->text[key->len - 1] == LF) {
        key->len--;
    }

    if (key->len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the EKM secret \"%V\" is empty, write the secret "
                           "into it", &secret->name);
        return NGX_ERROR;
    }

    /*
     * A second newline or a CR would become part of the key here and most
     * likely not at the backend, where every check would then fail.
     */

    for (i = 0; i < key->len; i++) {
        if (key->text[i] < 0x20 || key->text[i] == 0x7f) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the EKM secret \"%V\" has a control character "
                               "at offset %uz, it must be one line of text",
                               &secret->name, i);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* *secret becomes NULL if the environment has none */

static ngx_int_t
ngx_http_ekm_read_env(ngx_conf_t *cf, ngx_http_ekm_secret_t **secret)
{
    char   *text;
    size_t  len;

    static ngx_str_t  name = ngx_string(NGX_HTTP_EKM_ENV);

    *secret = NULL;

    text = getenv(NGX_HTTP_EKM_ENV);

    if (text == NULL || text[0] == '\0') {
        return NGX_OK;
    }

    len = ngx_strlen(text);

    if (len > NGX_HTTP_EKM_MAX_SECRET) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the environment variable \"%V\" is larger than "
                           "%d bytes", &name, NGX_HTTP_EKM_MAX_SECRET);
        return NGX_ERROR;
    }

    *secret = ngx_http_ekm_create_secret(cf, &name);
    if (*secret == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy((*secret)->key->text, text, len);
    (*secret)->key->len = len;

    ngx_http_ekm_schedule((*secret)->key);

    return NGX_OK;
}


static ngx_http_ekm_secret_t *
ngx_http_ekm_create_secret(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_pool_cleanup_t        *cln;
    ngx_http_ekm_secret_t     *secret, **slot;
    ngx_http_ekm_main_conf_t  *emcf;

    emcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ekm_module);

    slot = ngx_array_push(&emcf->secrets);
    if (slot == NULL) {
        return NULL;
    }

    secret = ngx_pcalloc(cf->pool, sizeof(ngx_http_ekm_secret_t));
    if (secret == NULL) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    secret->key = mmap(NULL, sizeof(ngx_http_ekm_key_t), PROT_READ|PROT_WRITE,
                       MAP_PRIVATE|MAP_ANON, -1, 0);

    if (secret->key == MAP_FAILED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "mmap() for the EKM secret failed");
        return NULL;
    }

    cln->handler = ngx_http_ekm_cleanup_secret;
    cln->data = secret;

#ifdef MADV_DONTDUMP

    if (madvise(secret->key, sizeof(ngx_http_ekm_key_t), MADV_DONTDUMP) == -1) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, ngx_errno,
                           "madvise(MADV_DONTDUMP) failed, a core dump will "
                           "contain the EKM secret");
    }

#endif

    secret->name = *name;
    *slot = secret;

    return secret;
}


static void
ngx_http_ekm_cleanup_secret(void *data)
{
    ngx_http_ekm_secret_t *secret = data;

    OPENSSL_cleanse(secret->key, sizeof(ngx_http_ekm_key_t));

    if (munmap(secret->key, sizeof(ngx_http_ekm_key_t)) == -1) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, ngx_errno,
                      "munmap() of the EKM secret failed");
    }
}
