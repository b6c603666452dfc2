
/*
 * ngx_http_live_chain_module: workers take a renewed certificate chain by
 * themselves, without a reload, as long as its key stays the same.
 *
 * Directive:
 *
 *   live_chain file | off;  context: http, server.  The file has the chain,
 *                           leaf first, in PEM and without a private key.
 *                           Workers read it, as the user they run as.
 *
 * At a handshake a worker that finds another file than before reads it, and
 * serves its chain from that handshake on, if the leaf belongs to the private
 * key that "ssl_certificate_key" has given to the server.  Otherwise the
 * worker keeps the chain it has, and logs one error.  The file takes the
 * place of "ssl_certificate" also when nginx is started, and in workers that
 * are respawned.  It has to be replaced by rename(2): a file that is written
 * in place may be seen cut behind one of its certificates, which is a chain,
 * too.
 *
 * No session from before a change is resumed after it, as its client would
 * hold the former leaf.  Connections from before a change end gently: there
 * is "Connection: close" in the next HTTP/1.1 response, and GOAWAY on HTTP/2;
 * HTTP/3 connections are left alone.
 *
 * Variable:
 *
 *   $live_chain_stale       "1" on a connection from before a change, otherwise
 *                           empty, also without TLS and without the directive
 *
 * Servers with several certificates, or with variables in their names, are not
 * supported: they are left out when the directive is inherited.  A server with
 * "ssl_certificate_compression" is refused.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#if !(NGX_HTTP_SSL)
#error ngx_http_live_chain_module needs nginx configured --with-http_ssl_module
#endif

#if (OPENSSL_VERSION_NUMBER < 0x30000000L)
#error ngx_http_live_chain_module needs OpenSSL 3.0 or later
#endif


#define NGX_HTTP_LIVE_CHAIN_MAX_SIZE  (1024 * 1024)
#define NGX_HTTP_LIVE_CHAIN_HASH_LEN  32
#define NGX_HTTP_LIVE_CHAIN_KEPT      "the chain served so far is kept"


/*
 * Device, inode, size, and the times of modification and status change; zeros
 * for a link that there is not.  A link counts, too, as it may return to a file
 * that has stayed as it was.  The file itself is kept open: a file system may
 * give the inode of one that is gone to the next one, within the same tick of
 * its clock.
 */

typedef struct {
    uint64_t                      file[7];
    uint64_t                      link[7];
} ngx_http_live_chain_id_t;

typedef u_char  ngx_http_live_chain_hash_t[NGX_HTTP_LIVE_CHAIN_HASH_LEN];


typedef struct {
    ngx_str_t                     name;
    ngx_fd_t                      fd;
    ngx_http_live_chain_id_t      id;       /* of fd, whatever is in it */

    /* what kept the file from being opened, so that it is logged once */
    const char                   *problem;
    ngx_err_t                     err;

    /*
     * hash of leaf and id of the chain taken last: from the file, not counted,
     * so that all workers agree, and the ones that replace them
     */
    ngx_http_live_chain_hash_t    generation;
} ngx_http_live_chain_file_t;


/* one for each SSL_CTX of the http block, with a live chain or without */

typedef struct {
    SSL_CTX                      *ctx;
    ngx_http_live_chain_file_t   *file;
    ngx_str_t                    *server_name;
    ngx_http_live_chain_hash_t    leaf;
    ngx_http_live_chain_hash_t    authorities;
    ngx_http_live_chain_hash_t    sid_ctx;
} ngx_http_live_chain_ctx_t;


typedef struct {
    ngx_array_t                   files;  /* of ngx_http_live_chain_file_t * */
    ngx_array_t                   ctxs;   /* of ngx_http_live_chain_ctx_t */
    ngx_msec_t                    checked;
} ngx_http_live_chain_main_conf_t;


typedef struct {
    ngx_str_t                     name;   /* without data: off */
    ngx_uint_t                    set;    /* unsigned  set:1; */
} ngx_http_live_chain_srv_conf_t;


typedef struct {
    X509                         *leaf;
    STACK_OF(X509)               *chain;
    ngx_http_live_chain_hash_t    hash;   /* of the leaf */
} ngx_http_live_chain_t;


static int ngx_http_live_chain_client_hello(ngx_ssl_conn_t *ssl_conn, int *ad,
    void *arg);
static void ngx_http_live_chain_repair(ngx_ssl_conn_t *ssl_conn);
static void ngx_http_live_chain_check(ngx_http_live_chain_main_conf_t *lmcf,
    ngx_log_t *log);
static void ngx_http_live_chain_check_file(
    ngx_http_live_chain_main_conf_t *lmcf, ngx_http_live_chain_file_t *file,
    ngx_log_t *log);
static ngx_int_t ngx_http_live_chain_look(ngx_http_live_chain_file_t *file,
    ngx_log_t *log, ngx_http_live_chain_id_t *id);
static ngx_fd_t ngx_http_live_chain_open(ngx_http_live_chain_file_t *file,
    ngx_log_t *log, ngx_http_live_chain_id_t *id);
static void ngx_http_live_chain_problem(ngx_http_live_chain_file_t *file,
    ngx_log_t *log, ngx_err_t err, const char *problem);
static void ngx_http_live_chain_identify(ngx_file_info_t *fi, uint64_t *id);
static void ngx_http_live_chain_take(ngx_http_live_chain_main_conf_t *lmcf,
    ngx_http_live_chain_file_t *file, ngx_log_t *log);
static ngx_int_t ngx_http_live_chain_read(ngx_http_live_chain_file_t *file,
    ngx_log_t *log, ngx_http_live_chain_t *lc);
static ngx_int_t ngx_http_live_chain_parse(ngx_http_live_chain_file_t *file,
    ngx_log_t *log, u_char *text, size_t len, ngx_http_live_chain_t *lc);
static int ngx_http_live_chain_password(char *buf, int size, int rwflag,
    void *userdata);
static ngx_int_t ngx_http_live_chain_generation(
    ngx_http_live_chain_file_t *file, ngx_http_live_chain_t *lc,
    ngx_http_live_chain_hash_t generation);
static ngx_int_t ngx_http_live_chain_use(ngx_http_live_chain_ctx_t *lctx,
    ngx_http_live_chain_t *lc);
static ngx_uint_t ngx_http_live_chain_is_used(SSL_CTX *ctx,
    ngx_http_live_chain_t *lc);
static void ngx_http_live_chain_set_sid_ctxs(
    ngx_http_live_chain_main_conf_t *lmcf, ngx_log_t *log);
static ngx_int_t ngx_http_live_chain_set_sid_ctx(
    ngx_http_live_chain_main_conf_t *lmcf, ngx_http_live_chain_ctx_t *lctx);

static ngx_int_t ngx_http_live_chain_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_live_chain_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_uint_t ngx_http_live_chain_is_live(ngx_http_request_t *r);
static ngx_uint_t ngx_http_live_chain_is_stale(ngx_http_request_t *r);

#if (NGX_HTTP_V2)
static ngx_int_t ngx_http_live_chain_goaway(ngx_http_v2_connection_t *h2c);
static void ngx_http_live_chain_goaway_handler(ngx_event_t *ev);
static void ngx_http_live_chain_goaway_cleanup(void *data);
#endif

static ngx_int_t ngx_http_live_chain_add_variables(ngx_conf_t *cf);
static ngx_int_t ngx_http_live_chain_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_live_chain_init_server(ngx_conf_t *cf,
    ngx_http_core_srv_conf_t *cscf);
static ngx_int_t ngx_http_live_chain_is_possible(ngx_conf_t *cf,
    ngx_http_core_srv_conf_t *cscf);
static ngx_http_live_chain_file_t *ngx_http_live_chain_add_file(
    ngx_http_live_chain_main_conf_t *lmcf, ngx_str_t *name);
static ngx_int_t ngx_http_live_chain_hash_authorities(
    ngx_http_live_chain_ctx_t *lctx);
static void ngx_http_live_chain_close(void *data);
static ngx_int_t ngx_http_live_chain_init_process(ngx_cycle_t *cycle);
static void *ngx_http_live_chain_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_live_chain_create_srv_conf(ngx_conf_t *cf);
static char *ngx_http_live_chain_merge_srv_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_live_chain(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


static ngx_command_t  ngx_http_live_chain_commands[] = {

    { ngx_string("live_chain"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_CONF_TAKE1,
      ngx_http_live_chain,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_live_chain_module_ctx = {
    ngx_http_live_chain_add_variables,     /* preconfiguration */
    ngx_http_live_chain_init,              /* postconfiguration */

    ngx_http_live_chain_create_main_conf,  /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_http_live_chain_create_srv_conf,   /* create server configuration */
    ngx_http_live_chain_merge_srv_conf,    /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_live_chain_module = {
    NGX_MODULE_V1,
    &ngx_http_live_chain_module_ctx,       /* module context */
    ngx_http_live_chain_commands,          /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_live_chain_init_process,      /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* not cacheable: a change may happen while a request is processed */

static ngx_http_variable_t  ngx_http_live_chain_vars[] = {

    { ngx_string("live_chain_stale"), NULL, ngx_http_live_chain_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


/* index into ex_data of an SSL_CTX, of ngx_http_live_chain_ctx_t */

static int  ngx_http_live_chain_index = -1;


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;


/*
 * OpenSSL calls this before it looks for the session that a client asks to
 * resume, and a second time when there was a HelloRetryRequest: then with the
 * SSL_CTX of the server that the client has named, otherwise with the one of
 * the default server.
 */

static int
ngx_http_live_chain_client_hello(ngx_ssl_conn_t *ssl_conn, int *ad, void *arg)
{
    ngx_http_live_chain_main_conf_t *lmcf = arg;

    ngx_http_live_chain_check(lmcf, ngx_cycle->log);

    ngx_http_live_chain_repair(ssl_conn);

#if (NGX_HTTP_LIVE_CHAIN_CLIENT_HELLO)

    /*
     * There is one callback per SSL_CTX, and nginx 1.29.2 and later have one:
     * it goes to the server that the client has named.
     */

    return ngx_ssl_client_hello_callback(ssl_conn, ad, NULL);

#else

    return SSL_CLIENT_HELLO_SUCCESS;

#endif
}


/*
 * nginx creates an SSL when the first bytes have arrived, so it is a copy of
 * what its SSL_CTX was then.
 */

static void
ngx_http_live_chain_repair(ngx_ssl_conn_t *ssl_conn)
{
    int                         rc;
    X509                       *leaf;
    SSL_CTX                    *ctx;
    EVP_PKEY                   *key;
    STACK_OF(X509)             *chain;
    ngx_http_live_chain_ctx_t  *lctx;

    ctx = SSL_get_SSL_CTX(ssl_conn);

    lctx = SSL_CTX_get_ex_data(ctx, ngx_http_live_chain_index);
    if (lctx == NULL) {
        return;
    }

    /*
     * A session is bound to the session id context of the default server,
     * even if it belongs to another one.  Where nginx has a callback of its
     * own, the SSL gets the one of the other server there, but only while it
     * has the one of its SSL_CTX.
     */

    if (SSL_set_session_id_context(ssl_conn, lctx->sid_ctx,
                                   NGX_HTTP_LIVE_CHAIN_HASH_LEN)
        == 0)
    {
        ngx_ssl_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                      "SSL_set_session_id_context() failed");
    }

    if (lctx->file == NULL) {
        return;
    }

    leaf = SSL_CTX_get0_certificate(ctx);

    if (SSL_get_certificate(ssl_conn) == leaf) {
        return;
    }

    SSL_CTX_get0_chain_certs(ctx, &chain);

    /* OpenSSL 3.0 frees the former key before it refers to the new one */

    key = SSL_get_privatekey(ssl_conn);
    EVP_PKEY_up_ref(key);

    rc = SSL_use_cert_and_key(ssl_conn, leaf, key, chain, 1);

    EVP_PKEY_free(key);

    if (rc != 1) {
        ngx_ssl_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                      "SSL_use_cert_and_key() failed");
    }
}


static void
ngx_http_live_chain_check(ngx_http_live_chain_main_conf_t *lmcf,
    ngx_log_t *log)
{
    ngx_uint_t                    i;
    ngx_http_live_chain_file_t  **file;

    lmcf->checked = ngx_current_msec;

    file = lmcf->files.elts;

    for (i = 0; i < lmcf->files.nelts; i++) {
        ngx_http_live_chain_check_file(lmcf, file[i], log);
    }
}


static void
ngx_http_live_chain_check_file(ngx_http_live_chain_main_conf_t *lmcf,
    ngx_http_live_chain_file_t *file, ngx_log_t *log)
{
    ngx_fd_t                  fd;
    ngx_http_live_chain_id_t  id;

    if (ngx_http_live_chain_look(file, log, &id) != NGX_OK) {
        return;
    }

    if (file->fd != NGX_INVALID_FILE
        && ngx_memcmp(&id, &file->id, sizeof(id)) == 0)
    {
        file->problem = NULL;
        return;
    }

    fd = ngx_http_live_chain_open(file, log, &id);
    if (fd == NGX_INVALID_FILE) {
        return;
    }

    /* not before there is the new one: it must not get the same inode */

    ngx_http_live_chain_close(file);

    file->fd = fd;
    file->id = id;
    file->problem = NULL;

    /*
     * nginx takes any error left in the queue of OpenSSL for one of the
     * handshake, and reading PEM leaves one at the end of the file.
     */

    ERR_set_mark();

    ngx_http_live_chain_take(lmcf, file, log);

    ERR_pop_to_mark();
}


/* one system call, unless there is a link */

static ngx_int_t
ngx_http_live_chain_look(ngx_http_live_chain_file_t *file, ngx_log_t *log,
    ngx_http_live_chain_id_t *id)
{
    ngx_file_info_t  fi;

    if (ngx_link_info(file->name.data, &fi) == NGX_FILE_ERROR) {
        goto failed;
    }

    if (ngx_is_link(&fi)) {
        ngx_http_live_chain_identify(&fi, id->link);

        if (ngx_file_info(file->name.data, &fi) == NGX_FILE_ERROR) {
            goto failed;
        }

    } else {
        ngx_memzero(id->link, sizeof(id->link));
    }

    /* to open it may have an effect on some kinds of files */

    if (!ngx_is_file(&fi)) {
        ngx_http_live_chain_problem(file, log, 0, "is not a regular file");
        return NGX_ERROR;
    }

    ngx_http_live_chain_identify(&fi, id->file);

    return NGX_OK;

failed:

    ngx_http_live_chain_problem(file, log, ngx_errno, "cannot be found");

    return NGX_ERROR;
}


static ngx_fd_t
ngx_http_live_chain_open(ngx_http_live_chain_file_t *file, ngx_log_t *log,
    ngx_http_live_chain_id_t *id)
{
    ngx_fd_t         fd;
    const char      *problem;
    ngx_err_t        err;
    ngx_file_info_t  fi;

    /* nonblocking, as the file may have become a FIFO meanwhile */

    fd = ngx_open_file(file->name.data,
                       NGX_FILE_RDONLY|NGX_FILE_NONBLOCK|O_CLOEXEC,
                       NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_http_live_chain_problem(file, log, ngx_errno, "cannot be opened");
        return NGX_INVALID_FILE;
    }

    err = 0;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        err = ngx_errno;
        problem = "cannot be examined";

    } else if (!ngx_is_file(&fi)) {
        problem = "is not a regular file";

    } else {
        ngx_http_live_chain_identify(&fi, id->file);
        return fd;
    }

    ngx_http_live_chain_problem(file, log, err, problem);

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, log, ngx_errno,
                      ngx_close_file_n " \"%V\" failed", &file->name);
    }

    return NGX_INVALID_FILE;
}


static void
ngx_http_live_chain_problem(ngx_http_live_chain_file_t *file, ngx_log_t *log,
    ngx_err_t err, const char *problem)
{
    if (file->problem == problem && file->err == err) {
        return;
    }

    file->problem = problem;
    file->err = err;

    ngx_log_error(NGX_LOG_ERR, log, err,
                  "live chain \"%V\" %s, " NGX_HTTP_LIVE_CHAIN_KEPT,
                  &file->name, problem);
}


static void
ngx_http_live_chain_identify(ngx_file_info_t *fi, uint64_t *id)
{
    id[0] = (uint64_t) fi->st_dev;
    id[1] = (uint64_t) fi->st_ino;
    id[2] = (uint64_t) fi->st_size;
    id[3] = (uint64_t) fi->st_mtim.tv_sec;
    id[4] = (uint64_t) fi->st_mtim.tv_nsec;
    id[5] = (uint64_t) fi->st_ctim.tv_sec;
    id[6] = (uint64_t) fi->st_ctim.tv_nsec;
}


static void
ngx_http_live_chain_take(ngx_http_live_chain_main_conf_t *lmcf,
    ngx_http_live_chain_file_t *file, ngx_log_t *log)
{
    ngx_int_t                    rc;
    ngx_uint_t                   i, taken, changed;
    ngx_http_live_chain_t        lc;
    ngx_http_live_chain_ctx_t   *lctx, *refused;
    ngx_http_live_chain_hash_t   generation;

    if (ngx_http_live_chain_read(file, log, &lc) != NGX_OK) {
        return;
    }

    if (X509_digest(lc.leaf, EVP_sha256(), lc.hash, NULL) == 0
        || ngx_http_live_chain_generation(file, &lc, generation) != NGX_OK)
    {
        ngx_ssl_error(NGX_LOG_ALERT, log, 0,
                      "hashing the live chain \"%V\" failed, "
                      NGX_HTTP_LIVE_CHAIN_KEPT, &file->name);
        goto done;
    }

    taken = 0;
    changed = 0;
    refused = NULL;

    lctx = lmcf->ctxs.elts;

    for (i = 0; i < lmcf->ctxs.nelts; i++) {
        if (lctx[i].file != file) {
            continue;
        }

        rc = ngx_http_live_chain_use(&lctx[i], &lc);

        if (rc == NGX_ERROR) {
            if (refused == NULL) {
                refused = &lctx[i];
                ngx_ssl_error(NGX_LOG_ERR, log, 0,
                              "live chain \"%V\" cannot be used by server "
                              "\"%V\", " NGX_HTTP_LIVE_CHAIN_KEPT,
                              &file->name, refused->server_name);
            }

            continue;
        }

        taken = 1;

        if (rc == NGX_OK) {
            changed = 1;
        }
    }

    if (changed) {
        ngx_log_error(NGX_LOG_NOTICE, log, 0,
                      "live chain \"%V\" is served from now on, "
                      "%d certificates, leaf %*xs",
                      &file->name, sk_X509_num(lc.chain) + 1,
                      (size_t) NGX_HTTP_LIVE_CHAIN_HASH_LEN, lc.hash);
    }

    if (taken) {
        ngx_memcpy(file->generation, generation, sizeof(generation));
        ngx_http_live_chain_set_sid_ctxs(lmcf, log);
    }

done:

    X509_free(lc.leaf);
    sk_X509_pop_free(lc.chain, X509_free);
}


static ngx_int_t
ngx_http_live_chain_read(ngx_http_live_chain_file_t *file, ngx_log_t *log,
    ngx_http_live_chain_t *lc)
{
    u_char     *text;
    size_t      size, len;
    ssize_t     n;
    ngx_int_t   rc;

    size = (size_t) file->id.file[2];

    if (file->id.file[2] > NGX_HTTP_LIVE_CHAIN_MAX_SIZE) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "live chain \"%V\" is larger than %d bytes, "
                      NGX_HTTP_LIVE_CHAIN_KEPT,
                      &file->name, NGX_HTTP_LIVE_CHAIN_MAX_SIZE);
        return NGX_ERROR;
    }

    /* one byte more, as nothing is not to be allocated */

    text = ngx_alloc(size + 1, log);
    if (text == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_ERROR;

    /* what is appended later makes the file another one */

    for (len = 0; len < size; len += n) {

        n = ngx_read_fd(file->fd, text + len, size - len);

        if (n == -1) {
            if (ngx_errno == NGX_EINTR) {
                n = 0;
                continue;
            }

            ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                          ngx_read_fd_n " live chain \"%V\" failed, "
                          NGX_HTTP_LIVE_CHAIN_KEPT, &file->name);
            goto done;
        }

        if (n == 0) {
            break;
        }
    }

    rc = ngx_http_live_chain_parse(file, log, text, len, lc);

done:

    OPENSSL_cleanse(text, size);
    ngx_free(text);

    return rc;
}


/* what nginx itself accepts as a chain, but no private key beside it */

static ngx_int_t
ngx_http_live_chain_parse(ngx_http_live_chain_file_t *file, ngx_log_t *log,
    u_char *text, size_t len, ngx_http_live_chain_t *lc)
{
    BIO            *bio;
    X509           *x509;
    u_long          n;

    static u_char   key[] = "PRIVATE KEY-----";

    if (memmem(text, len, key, sizeof(key) - 1)) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "live chain \"%V\" has a private key, it must have "
                      "nothing but certificates, " NGX_HTTP_LIVE_CHAIN_KEPT,
                      &file->name);
        return NGX_ERROR;
    }

    lc->leaf = NULL;
    lc->chain = sk_X509_new_null();

    bio = BIO_new_mem_buf(text, (int) len);

    if (lc->chain == NULL || bio == NULL) {
        goto failed;
    }

    lc->leaf = PEM_read_bio_X509_AUX(bio, NULL, ngx_http_live_chain_password,
                                     NULL);
    if (lc->leaf == NULL) {
        goto failed;
    }

    for ( ;; ) {

        x509 = PEM_read_bio_X509(bio, NULL, ngx_http_live_chain_password,
                                 NULL);
        if (x509 == NULL) {
            n = ERR_peek_last_error();

            if (ERR_GET_LIB(n) == ERR_LIB_PEM
                && ERR_GET_REASON(n) == PEM_R_NO_START_LINE)
            {
                break;
            }

            goto failed;
        }

        if (sk_X509_push(lc->chain, x509) == 0) {
            X509_free(x509);
            goto failed;
        }
    }

    BIO_free(bio);

    return NGX_OK;

failed:

    ngx_ssl_error(NGX_LOG_ERR, log, 0,
                  "live chain \"%V\" is not a chain of certificates in PEM, "
                  NGX_HTTP_LIVE_CHAIN_KEPT, &file->name);

    BIO_free(bio);
    X509_free(lc->leaf);
    sk_X509_pop_free(lc->chain, X509_free);

    return NGX_ERROR;
}


/* a certificate may be encrypted, and OpenSSL would ask at the terminal */

static int
ngx_http_live_chain_password(char *buf, int size, int rwflag, void *userdata)
{
    return -1;
}


static ngx_int_t
ngx_http_live_chain_generation(ngx_http_live_chain_file_t *file,
    ngx_http_live_chain_t *lc, ngx_http_live_chain_hash_t generation)
{
    struct {
        ngx_http_live_chain_id_t    id;
        ngx_http_live_chain_hash_t  leaf;
    } parts;

    parts.id = file->id;
    ngx_memcpy(parts.leaf, lc->hash, sizeof(parts.leaf));

    if (EVP_Digest(&parts, sizeof(parts), generation, NULL, EVP_sha256(), NULL)
        == 0)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/*
 * NGX_DECLINED when the very chain is in use already: the file was touched or
 * replaced by a copy, which is no reason to end connections.
 *
 * SSL_CTX_use_cert_and_key() changes all or nothing; it fails if the leaf does
 * not belong to the key.  SSL_CTX_use_certificate() drops the key then.
 */

static ngx_int_t
ngx_http_live_chain_use(ngx_http_live_chain_ctx_t *lctx,
    ngx_http_live_chain_t *lc)
{
    int        rc;
    EVP_PKEY  *key;

    if (ngx_http_live_chain_is_used(lctx->ctx, lc)) {
        return NGX_DECLINED;
    }

    /* OpenSSL 3.0 frees the former key before it refers to the new one */

    key = SSL_CTX_get0_privatekey(lctx->ctx);
    EVP_PKEY_up_ref(key);

    rc = SSL_CTX_use_cert_and_key(lctx->ctx, lc->leaf, key, lc->chain, 1);

    EVP_PKEY_free(key);

    if (rc != 1) {
        return NGX_ERROR;
    }

    ngx_memcpy(lctx->leaf, lc->hash, sizeof(lctx->leaf));

    return NGX_OK;
}


static ngx_uint_t
ngx_http_live_chain_is_used(SSL_CTX *ctx, ngx_http_live_chain_t *lc)
{
    int              i, n;
    STACK_OF(X509)  *chain;

    if (X509_cmp(SSL_CTX_get0_certificate(ctx), lc->leaf) != 0) {
        return 0;
    }

    SSL_CTX_get0_chain_certs(ctx, &chain);

    n = sk_X509_num(lc->chain);

    /* nginx leaves the chain out if there is none, hence not -1 for NULL */

    if (ngx_max(sk_X509_num(chain), 0) != n) {
        return 0;
    }

    for (i = 0; i < n; i++) {
        if (X509_cmp(sk_X509_value(chain, i), sk_X509_value(lc->chain, i))
            != 0)
        {
            return 0;
        }
    }

    return 1;
}


/*
 * OpenSSL resumes a session, from a ticket as well as from a cache, only if
 * its session id context is the one in use.  All of them depend on all files,
 * as a session may have the one of the default server.
 */

static void
ngx_http_live_chain_set_sid_ctxs(ngx_http_live_chain_main_conf_t *lmcf,
    ngx_log_t *log)
{
    ngx_uint_t                  i;
    ngx_http_live_chain_ctx_t  *lctx;

    lctx = lmcf->ctxs.elts;

    for (i = 0; i < lmcf->ctxs.nelts; i++) {
        if (ngx_http_live_chain_set_sid_ctx(lmcf, &lctx[i]) != NGX_OK) {
            ngx_ssl_error(NGX_LOG_ALERT, log, 0,
                          "setting a session id context failed");
        }
    }
}


/* as the one of nginx it depends on the certificate and on the client CAs */

static ngx_int_t
ngx_http_live_chain_set_sid_ctx(ngx_http_live_chain_main_conf_t *lmcf,
    ngx_http_live_chain_ctx_t *lctx)
{
    ngx_int_t                     rc;
    ngx_uint_t                    i;
    EVP_MD_CTX                   *md;
    ngx_http_live_chain_file_t  **file;

    md = EVP_MD_CTX_create();
    if (md == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_ERROR;

    if (EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 0
        || EVP_DigestUpdate(md, lctx->leaf, sizeof(lctx->leaf)) == 0
        || EVP_DigestUpdate(md, lctx->authorities, sizeof(lctx->authorities))
           == 0)
    {
        goto done;
    }

    file = lmcf->files.elts;

    for (i = 0; i < lmcf->files.nelts; i++) {
        if (EVP_DigestUpdate(md, file[i]->generation,
                             sizeof(file[i]->generation))
            == 0)
        {
            goto done;
        }
    }

    if (EVP_DigestFinal_ex(md, lctx->sid_ctx, NULL) == 0
        || SSL_CTX_set_session_id_context(lctx->ctx, lctx->sid_ctx,
                                          sizeof(lctx->sid_ctx))
           == 0)
    {
        goto done;
    }

    rc = NGX_OK;

done:

    EVP_MD_CTX_destroy(md);

    return rc;
}


static ngx_int_t
ngx_http_live_chain_header_filter(ngx_http_request_t *r)
{
    ngx_http_live_chain_main_conf_t  *lmcf;

    if (r != r->main || !ngx_http_live_chain_is_live(r)) {
        return ngx_http_next_header_filter(r);
    }

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_live_chain_module);

    /*
     * This worker may have seen no handshake since the last change.  Not every
     * response is worth a system call, one in a tick of the clock is.
     */

    if (lmcf->checked != ngx_current_msec) {
        ngx_http_live_chain_check(lmcf, ngx_cycle->log);
    }

    if (ngx_http_live_chain_is_stale(r)) {
        r->keepalive = 0;

#if (NGX_HTTP_V2)

        if (r->stream
            && ngx_http_live_chain_goaway(r->stream->connection) != NGX_OK)
        {
            return NGX_ERROR;
        }

#endif
    }

    return ngx_http_next_header_filter(r);
}


static ngx_int_t
ngx_http_live_chain_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_live_chain_main_conf_t  *lmcf;

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->len = 0;
    v->data = (u_char *) "1";

    if (ngx_http_live_chain_is_live(r)) {
        lmcf = ngx_http_get_module_main_conf(r, ngx_http_live_chain_module);

        ngx_http_live_chain_check(lmcf, ngx_cycle->log);

        v->len = ngx_http_live_chain_is_stale(r);
    }

    return NGX_OK;
}


/* true if the connection is one of a server with a live chain */

static ngx_uint_t
ngx_http_live_chain_is_live(ngx_http_request_t *r)
{
    SSL_CTX                    *ctx;
    ngx_http_live_chain_ctx_t  *lctx;

    if (r->connection->ssl == NULL) {
        return 0;
    }

    ctx = SSL_get_SSL_CTX(r->connection->ssl->connection);

    lctx = SSL_CTX_get_ex_data(ctx, ngx_http_live_chain_index);

    return lctx && lctx->file;
}


/* the SSL refers to its leaf, so there is no other one at the same address */

static ngx_uint_t
ngx_http_live_chain_is_stale(ngx_http_request_t *r)
{
    ngx_ssl_conn_t  *ssl_conn;

    ssl_conn = r->connection->ssl->connection;

    return SSL_get_certificate(ssl_conn)
           != SSL_CTX_get0_certificate(SSL_get_SSL_CTX(ssl_conn));
}


#if (NGX_HTTP_V2)

/*
 * What nginx does to HTTP/2 connections when a worker shuts down, but not
 * from within the processing of a stream.
 */

static ngx_int_t
ngx_http_live_chain_goaway(ngx_http_v2_connection_t *h2c)
{
    ngx_event_t         *ev;
    ngx_connection_t    *c;
    ngx_pool_cleanup_t  *cln;

    if (h2c->goaway) {
        return NGX_OK;
    }

    c = h2c->connection;

    cln = ngx_pool_cleanup_add(c->pool, sizeof(ngx_event_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    ev = cln->data;

    ngx_memzero(ev, sizeof(ngx_event_t));

    ev->data = h2c;
    ev->handler = ngx_http_live_chain_goaway_handler;
    ev->log = c->log;

    cln->handler = ngx_http_live_chain_goaway_cleanup;

    ngx_post_event(ev, &ngx_posted_events);

    return NGX_OK;
}


static void
ngx_http_live_chain_goaway_handler(ngx_event_t *ev)
{
    ngx_event_t               *rev;
    ngx_connection_t          *c;
    ngx_http_v2_connection_t  *h2c;

    h2c = ev->data;
    c = h2c->connection;

    if (h2c->goaway || c->error) {
        return;
    }

    /*
     * A connection without streams is closed at once, together with what the
     * socket has not taken yet: then it is left to the next response.
     */

    if (!h2c->processing && (h2c->last_out || c->buffered)) {
        return;
    }

    rev = c->read;

    c->close = 1;
    rev->handler(rev);

    /* the handler was given an event to close, not the one to read, if any */

    if (c->fd != (ngx_socket_t) -1 && rev->ready) {
        ngx_post_event(rev, &ngx_posted_events);
    }
}


static void
ngx_http_live_chain_goaway_cleanup(void *data)
{
    ngx_event_t *ev = data;

    if (ev->posted) {
        ngx_delete_posted_event(ev);
    }
}

#endif


static ngx_int_t
ngx_http_live_chain_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    /* no callback goes with the index, it would outlive the module's code */

    if (ngx_http_live_chain_index == -1) {
        ngx_http_live_chain_index = SSL_CTX_get_ex_new_index(0, NULL, NULL,
                                                             NULL, NULL);

        if (ngx_http_live_chain_index == -1) {
            ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                          "SSL_CTX_get_ex_new_index() failed");
            return NGX_ERROR;
        }
    }

    for (v = ngx_http_live_chain_vars; v->name.len; v++) {
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
ngx_http_live_chain_init(ngx_conf_t *cf)
{
    ngx_uint_t                        i;
    ngx_pool_cleanup_t               *cln;
    ngx_http_core_srv_conf_t        **cscfp;
    ngx_http_core_main_conf_t        *cmcf;
    ngx_http_live_chain_ctx_t        *lctx;
    ngx_http_live_chain_file_t      **file;
    ngx_http_live_chain_main_conf_t  *lmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_live_chain_module);

    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        if (ngx_http_live_chain_init_server(cf, cscfp[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (lmcf->files.nelts == 0) {
        return NGX_OK;
    }

    /* the array does not move any more */

    lctx = lmcf->ctxs.elts;

    for (i = 0; i < lmcf->ctxs.nelts; i++) {
        if (SSL_CTX_set_ex_data(lctx[i].ctx, ngx_http_live_chain_index,
                                &lctx[i])
            == 0)
        {
            ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                          "SSL_CTX_set_ex_data() failed");
            return NGX_ERROR;
        }

        SSL_CTX_set_client_hello_cb(lctx[i].ctx,
                                    ngx_http_live_chain_client_hello, lmcf);
    }

    file = lmcf->files.elts;

    for (i = 0; i < lmcf->files.nelts; i++) {
        cln = ngx_pool_cleanup_add(cf->pool, 0);
        if (cln == NULL) {
            return NGX_ERROR;
        }

        cln->handler = ngx_http_live_chain_close;
        cln->data = file[i];
    }

    /*
     * So that a worker respawned while a file is bad has what was good when
     * the configuration was loaded.  Workers look at the files again: they
     * may be refused what the master may read.
     */

    ngx_http_live_chain_set_sid_ctxs(lmcf, cf->log);
    ngx_http_live_chain_check(lmcf, cf->log);

    for (i = 0; i < lmcf->files.nelts; i++) {
        ngx_http_live_chain_close(file[i]);
        file[i]->problem = NULL;
    }

    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_live_chain_header_filter;

    return NGX_OK;
}


static ngx_int_t
ngx_http_live_chain_init_server(ngx_conf_t *cf, ngx_http_core_srv_conf_t *cscf)
{
    X509                             *x509;
    ngx_int_t                         rc;
    ngx_http_ssl_srv_conf_t          *sscf;
    ngx_http_live_chain_ctx_t        *lctx;
    ngx_http_live_chain_srv_conf_t   *lscf;
    ngx_http_live_chain_main_conf_t  *lmcf;

    sscf = cscf->ctx->srv_conf[ngx_http_ssl_module.ctx_index];
    lscf = cscf->ctx->srv_conf[ngx_http_live_chain_module.ctx_index];
    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_live_chain_module);

    if (sscf->ssl.ctx == NULL) {
        return NGX_OK;
    }

    lctx = ngx_array_push(&lmcf->ctxs);
    if (lctx == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(lctx, sizeof(ngx_http_live_chain_ctx_t));

    lctx->ctx = sscf->ssl.ctx;
    lctx->server_name = &cscf->server_name;

    x509 = SSL_CTX_get0_certificate(lctx->ctx);

    if ((x509 && X509_digest(x509, EVP_sha256(), lctx->leaf, NULL) == 0)
        || ngx_http_live_chain_hash_authorities(lctx) != NGX_OK)
    {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                      "hashing the certificates of server \"%V\" failed",
                      lctx->server_name);
        return NGX_ERROR;
    }

    if (lscf->name.data == NULL) {
        return NGX_OK;
    }

    rc = ngx_http_live_chain_is_possible(cf, cscf);

    if (rc != NGX_OK) {
        return rc == NGX_DECLINED ? NGX_OK : NGX_ERROR;
    }

    lctx->file = ngx_http_live_chain_add_file(lmcf, &lscf->name);
    if (lctx->file == NULL) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* NGX_DECLINED if a server is left out */

static ngx_int_t
ngx_http_live_chain_is_possible(ngx_conf_t *cf,
    ngx_http_core_srv_conf_t *cscf)
{
    char                            *reason;
    ngx_uint_t                       level;
    ngx_http_ssl_srv_conf_t         *sscf;
    ngx_http_live_chain_srv_conf_t  *lscf;

    sscf = cscf->ctx->srv_conf[ngx_http_ssl_module.ctx_index];
    lscf = cscf->ctx->srv_conf[ngx_http_live_chain_module.ctx_index];

#if (NGX_HTTP_LIVE_CHAIN_COMPRESSION)

    /* OpenSSL would go on sending the certificates that it has compressed */

    if (sscf->certificate_compression) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"live_chain\" and \"ssl_certificate_compression\" "
                      "exclude each other, both are on for server \"%V\"",
                      &cscf->server_name);
        return NGX_ERROR;
    }

#endif

    if (sscf->certificate_values) {
        reason = "whose certificate has a variable in its name";

    } else if (sscf->certificates && sscf->certificates->nelts > 1) {
        reason = "which has several certificates";

    } else if (SSL_CTX_get0_certificate(sscf->ssl.ctx) == NULL
               || SSL_CTX_get0_privatekey(sscf->ssl.ctx) == NULL)
    {
        return NGX_DECLINED;

    } else {
        return NGX_OK;
    }

    level = lscf->set ? NGX_LOG_EMERG : NGX_LOG_WARN;

    ngx_log_error(level, cf->log, 0,
                  "\"live_chain\" is not possible for server \"%V\", %s",
                  &cscf->server_name, reason);

    return lscf->set ? NGX_ERROR : NGX_DECLINED;
}


/* servers that name the same file share it, and it is looked at once */

static ngx_http_live_chain_file_t *
ngx_http_live_chain_add_file(ngx_http_live_chain_main_conf_t *lmcf,
    ngx_str_t *name)
{
    ngx_uint_t                    i;
    ngx_http_live_chain_file_t  **files, *file;

    files = lmcf->files.elts;

    for (i = 0; i < lmcf->files.nelts; i++) {
        if (files[i]->name.len == name->len
            && ngx_strcmp(files[i]->name.data, name->data) == 0)
        {
            return files[i];
        }
    }

    files = ngx_array_push(&lmcf->files);
    if (files == NULL) {
        return NULL;
    }

    file = ngx_pcalloc(lmcf->files.pool, sizeof(ngx_http_live_chain_file_t));
    if (file == NULL) {
        return NULL;
    }

    file->name = *name;
    file->fd = NGX_INVALID_FILE;

    *files = file;

    return file;
}


static ngx_int_t
ngx_http_live_chain_hash_authorities(ngx_http_live_chain_ctx_t *lctx)
{
    int                          i;
    ngx_int_t                    rc;
    EVP_MD_CTX                  *md;
    STACK_OF(X509_NAME)         *names;
    ngx_http_live_chain_hash_t   hash;

    md = EVP_MD_CTX_create();
    if (md == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_ERROR;

    if (EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 0) {
        goto done;
    }

    names = SSL_CTX_get_client_CA_list(lctx->ctx);

    for (i = 0; i < sk_X509_NAME_num(names); i++) {
        if (X509_NAME_digest(sk_X509_NAME_value(names, i), EVP_sha256(), hash,
                             NULL)
            == 0
            || EVP_DigestUpdate(md, hash, sizeof(hash)) == 0)
        {
            goto done;
        }
    }

    if (EVP_DigestFinal_ex(md, lctx->authorities, NULL) == 0) {
        goto done;
    }

    rc = NGX_OK;

done:

    EVP_MD_CTX_destroy(md);

    return rc;
}


static void
ngx_http_live_chain_close(void *data)
{
    ngx_http_live_chain_file_t *file = data;

    if (file->fd == NGX_INVALID_FILE) {
        return;
    }

    if (ngx_close_file(file->fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, ngx_errno,
                      ngx_close_file_n " \"%V\" failed", &file->name);
    }

    file->fd = NGX_INVALID_FILE;
}


static ngx_int_t
ngx_http_live_chain_init_process(ngx_cycle_t *cycle)
{
    ngx_http_live_chain_main_conf_t  *lmcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    lmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_live_chain_module);

    if (lmcf) {
        ngx_http_live_chain_check(lmcf, cycle->log);
    }

    return NGX_OK;
}


static void *
ngx_http_live_chain_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_live_chain_main_conf_t  *lmcf;

    lmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_live_chain_main_conf_t));
    if (lmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&lmcf->files, cf->pool, 1,
                       sizeof(ngx_http_live_chain_file_t *))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_array_init(&lmcf->ctxs, cf->pool, 4,
                       sizeof(ngx_http_live_chain_ctx_t))
        != NGX_OK)
    {
        return NULL;
    }

    return lmcf;
}


static void *
ngx_http_live_chain_create_srv_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_live_chain_srv_conf_t));
}


static char *
ngx_http_live_chain_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_live_chain_srv_conf_t *prev = parent;
    ngx_http_live_chain_srv_conf_t *conf = child;

    if (!conf->set) {
        conf->name = prev->name;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_live_chain(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_live_chain_srv_conf_t *lscf = conf;

    ngx_str_t  *value;

    if (lscf->set) {
        return "is duplicate";
    }

    lscf->set = 1;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    if (value[1].len == 0) {
        return "has an empty path";
    }

    if (ngx_http_script_variables_count(&value[1])) {
        return "does not support variables";
    }

    if (ngx_conf_full_name(cf->cycle, &value[1], 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    lscf->name = value[1];

    return NGX_CONF_OK;
}
