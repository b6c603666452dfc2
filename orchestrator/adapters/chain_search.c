#include "adapters/chain_search.h"

#include "adapters/tls_probe.h"
#include "base/log.h"
#include "domain/chain.h"
#include "runtime/lookup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of its own, since the resolver may have it longer than the search lasts. */
struct chain_search_name {
    struct chain_search *search; /* NULL: nobody wants the answer any more */
    struct chain_search_name *next;
    struct chain_search_place place;
    struct lookup lookup;
};

struct chain_search_probe {
    struct chain_search *search;
    struct chain_search_probe *next;
    struct chain_search_place place; /* its host is an address */
    unsigned tries;
    struct tls_probe probe;
    struct buf chain_pem;
};

/* ---- the end ---- */

static void on_timer_closed(void *owner)
{
    struct chain_search *search = owner;
    struct err err = search->err; /* done may free or restart the search */

    while (search->probes != NULL) {
        struct chain_search_probe *probe = search->probes;

        search->probes = probe->next;
        buf_done(&probe->chain_pem);
        free(probe);
    }
    search->running = false;
    search->done(search->owner, err.kind == ERR_NONE ? NULL : &err);
}

static void close_if_ended(struct chain_search *search)
{
    if (search->open > 0 || search->closing)
        return;
    search->closing = true;
    timer_close(&search->timer, on_timer_closed);
}

static void abandon_names(struct chain_search *search)
{
    for (struct chain_search_name *name = search->names; name != NULL;
         name = name->next) {
        name->search = NULL;
        search->open--;
        lookup_cancel(&name->lookup);
    }
    search->names = NULL;
}

static void give_up(struct chain_search *search)
{
    if (search->over)
        return;
    search->over = true;
    abandon_names(search);
    for (struct chain_search_probe *probe = search->probes; probe != NULL;
         probe = probe->next)
        tls_probe_cancel(&probe->probe);
}

/* ---- handshakes ---- */

static void start_probe(struct chain_search_probe *probe);

/* Another server may stand behind the same address. */
static bool is_worth_another_try(const struct chain_search_probe *probe,
                                 const struct err *err)
{
    bool answered = err == NULL || (err->kind == ERR_NET &&
                                    (err->code == -UV_EOF || err->code == ECONNRESET));

    return answered && probe->tries < CHAIN_SEARCH_TRIES && !probe->search->over;
}

static void on_probe_done(void *owner, const struct err *err)
{
    struct chain_search_probe *probe = owner;
    struct chain_search *search = probe->search;

    search->open--;
    if (err != NULL && !search->over)
        log_debug("%s", err->message);
    if (err == NULL && !search->over &&
        search->request.is_it(search->owner, probe->probe.where, &probe->chain_pem))
        give_up(search);
    else if (is_worth_another_try(probe, err))
        start_probe(probe);
    close_if_ended(search);
}

static void start_probe(struct chain_search_probe *probe)
{
    struct chain_search *search = probe->search;
    const struct tls_probe_target target = {
        .address = probe->place.at.host,
        .port = probe->place.at.port,
        .server_name = search->request.server_name,
        .proxy_protocol = probe->place.proxy_protocol,
        .ret_chain = &probe->chain_pem,
    };

    probe->tries++;
    search->open++;
    buf_clear(&probe->chain_pem);
    tls_probe_start(&probe->probe, search->request.loop, &target,
                    search->request.timeout_ms, on_probe_done, probe);
}

static void ask(struct chain_search *search, const struct chain_search_place *place,
                const char *address)
{
    struct chain_search_probe *probe;

    if (search->addresses >= CHAIN_SEARCH_ADDRESSES_MAX)
        return;
    search->addresses++;
    probe = calloc(1, sizeof *probe);
    if (probe == NULL) {
        err_sys(&search->err, ENOMEM, "cannot ask for a certificate");
        return;
    }
    probe->search = search;
    probe->place = *place;
    snprintf(probe->place.at.host, sizeof probe->place.at.host, "%s", address);
    buf_init(&probe->chain_pem, CHAIN_PEM_MAX_BYTES);
    probe->next = search->probes;
    search->probes = probe;
    start_probe(probe);
}

/* ---- names ---- */

static void forget(struct chain_search_name *name)
{
    struct chain_search_name **at = &name->search->names;

    while (*at != name)
        at = &(*at)->next;
    *at = name->next;
}

static void on_lookup_done(void *owner, const struct err *err)
{
    struct chain_search_name *name = owner;
    struct chain_search *search = name->search;

    if (search != NULL) {
        search->open--;
        forget(name);
        if (err != NULL)
            log_debug("%s", err->message);
        for (size_t i = 0; err == NULL && i < name->lookup.count; i++)
            ask(search, &name->place, name->lookup.addresses[i]);
        close_if_ended(search);
    }
    free(name);
}

static void look_up(struct chain_search *search, const struct chain_search_place *place)
{
    struct chain_search_name *name = calloc(1, sizeof *name);

    if (name == NULL) {
        err_sys(&search->err, ENOMEM, "cannot look %s up", place->at.host);
        return;
    }
    name->search = search;
    name->place = *place;
    name->next = search->names;
    search->names = name;
    search->open++;
    lookup_start(&name->lookup, search->request.loop, place->at.host, on_lookup_done,
                 name);
}

/* ---- start ---- */

static void on_time_is_up(void *owner)
{
    struct chain_search *search = owner;

    give_up(search);
    close_if_ended(search);
}

void chain_search_start(struct chain_search *search,
                        const struct chain_search_request *request, done_fn done,
                        void *owner)
{
    *search = (struct chain_search){
        .request = *request, .running = true, .done = done, .owner = owner};
    timer_init(&search->timer, request->loop, on_time_is_up, search);
    for (size_t i = 0; i < request->place_count; i++) {
        const struct chain_search_place *place = &request->places[i];

        if (place->at.literal)
            ask(search, place, place->at.host);
        else
            look_up(search, place);
    }
    timer_set(&search->timer, search->open == 0 ? 0 : request->timeout_ms);
}

void chain_search_cancel(struct chain_search *search)
{
    if (!search->running || search->closing)
        return;
    if (search->err.kind == ERR_NONE)
        err_set(&search->err, ERR_CANCELED, "the search for a certificate: canceled");
    give_up(search);
    close_if_ended(search);
}
