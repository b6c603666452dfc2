/*
 * Where metrics can be asked for, and nothing else: <run_dir>/metrics.sock, which is for nginx's
 * workers (metrics.nginx), and a TCP port (metrics.listen). The control socket is for root alone.
 */
#include "app/daemon_internal.h"

#include "base/log.h"
#include "domain/host_port.h"

#include <stdio.h>
#include <string.h>

enum {
    CONNECTIONS_MAX = 16,
    TIMEOUT_MS = 5000,
    RETRY_MS = 60 * 1000, /* an address may come later than we do */
};

static void refuse(struct server_answer *ret, int status, const char *message)
{
    struct err ignored = ERR_INIT;

    ret->status = status;
    ret->type = "text/plain";
    buf_clear(&ret->body);
    (void)buf_printf(&ret->body, &ignored, "%s\n", message);
}

static void answer(void *owner, const struct server_request *request,
                   struct server_answer *ret)
{
    bool reads =
        strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0;
    struct err err = ERR_INIT;

    if (strcmp(request->path, "/metrics") != 0) {
        refuse(ret, 404, "there is only /metrics");
    } else if (!reads) {
        refuse(ret, 405, "only GET and HEAD");
    } else {
        ret->status = 200;
        ret->type = DAEMON_METRICS_TYPE;
        if (daemon_metrics_text(owner, &ret->body, &err) < 0)
            refuse(ret, 500, err.message);
    }
}

/* ---- the places ---- */

static bool is_wanted(const struct daemon *d, enum scrape_place place)
{
    if (d->deploys_only)
        return false;
    return place == SCRAPE_NGINX ? d->config->metrics.nginx
                                 : d->config->metrics.listen != NULL;
}

static int open_for_nginx(struct daemon *d, const struct server_options *options,
                          struct err *err)
{
    char path[FS_PATH_MAX];
    gid_t group;

    return fs_join(path, d->config->run_dir, "metrics.sock", err) < 0 ||
                   nginx_worker_group(d->config, &group, err) < 0
               ? -1
               : server_start_unix(&d->scrape.servers[SCRAPE_NGINX], &d->loop, path, 0660,
                                   group, options, err);
}

static int open_listener(struct daemon *d, const struct server_options *options,
                         struct err *err)
{
    struct host_port place;

    if (host_port_parse(&place, d->config->metrics.listen) < 0)
        return err_set(err, ERR_CONFIG, "it is no address with a port");
    return server_start_tcp(&d->scrape.servers[SCRAPE_LISTENER], &d->loop, place.host,
                            place.port, options, err);
}

/* Whether it need not be tried again. */
static bool open_place(struct daemon *d, enum scrape_place place)
{
    const struct server_options options = {
        .connections = CONNECTIONS_MAX,
        .timeout_ms = TIMEOUT_MS,
        .answer = answer,
        .owner = d,
    };
    const char *setting = place == SCRAPE_NGINX ? "metrics.nginx" : "metrics.listen";
    struct scrape *scrape = &d->scrape;
    struct err err = ERR_INIT;

    if (scrape->open[place] || !is_wanted(d, place))
        return true;
    scrape->servers[place] = (struct server){.path = ""};
    if ((place == SCRAPE_NGINX ? open_for_nginx(d, &options, &err)
                               : open_listener(d, &options, &err)) < 0) {
        server_close(&scrape->servers[place], NULL, NULL);
        if (!scrape->failed[place])
            log_error("%s: %s (tried again every minute)", setting, err.message);
        scrape->failed[place] = true;
        return false;
    }
    scrape->open[place] = true;
    if (place == SCRAPE_LISTENER)
        log_info("metrics are at http://%s/metrics, for whoever gets there",
                 d->config->metrics.listen);
    else if (scrape->failed[place])
        log_info("nginx can show metrics now");
    return true;
}

static void open_all(void *owner)
{
    struct daemon *d = owner;
    bool all = true;

    for (enum scrape_place place = SCRAPE_NGINX; place < SCRAPE_PLACES; place++)
        all = open_place(d, place) && all;
    if (!all)
        timer_set(&d->scrape.retry, RETRY_MS);
}

/* Certificates do not wait for it. */
void daemon_start_scrape(struct daemon *d)
{
    timer_init(&d->scrape.retry, &d->loop, open_all, d);
    open_all(d);
}

void daemon_close_scrape(struct daemon *d)
{
    timer_close(&d->scrape.retry, NULL);
    for (enum scrape_place place = SCRAPE_NGINX; place < SCRAPE_PLACES; place++) {
        if (d->scrape.open[place])
            server_close(&d->scrape.servers[place], NULL, NULL);
    }
}
