#include "app/machine.h"

#include "adapters/evidence_folder.h"
#include "adapters/live_chain.h"
#include "adapters/store.h"
#include "domain/chain.h"

/* Longer than the daemon, which has HTTPS to think of: nobody is to read that a name does not resolve when it does. */
enum { NAMES_MS = 2000 };

static void know_more(struct machine *machine)
{
    if (--machine->open == 0)
        uv_stop(&machine->loop);
}

static void on_version_known(void *owner, const struct err *err)
{
    struct machine *machine = owner;

    if (err != NULL)
        machine->version_err = *err;
    know_more(machine);
}

static void on_looked_up(void *owner, const struct upstream *upstream, bool changed,
                         const struct err *err)
{
    (void)owner;
    (void)upstream;
    (void)changed;
    (void)err;
}

static void on_round_over(void *owner, bool changed)
{
    struct machine *machine = owner;

    (void)changed;
    machine->round_over = true;
}

static void on_ready(void *owner)
{
    know_more(owner);
}

static const struct upstream_watch_events watch_events = {
    .looked_up = on_looked_up,
    .round_over = on_round_over,
    .ready = on_ready,
};

/* Its name has that of the certificate's key in it. */
static void find_live_chain(struct machine *machine, const struct config *config)
{
    struct store store;
    struct chain *chain = NULL;
    BUF_SCOPED pem = {0};

    if (!config->nginx.live_chain)
        return;
    if (store_init(&store, config, &machine->chain_err) == 0 &&
        store_load_chain(&store, &pem, &machine->chain_err) == 0 &&
        chain_parse(pem.data, pem.len, &chain, &machine->chain_err) == 0 &&
        live_chain_path(config, chain_public_key(chain), machine->live_chain,
                        &machine->chain_err) == 0)
        machine->facts.live_chain = machine->live_chain;
    chain_free(chain);
}

int machine_ask(struct machine *machine, const struct config *config,
                enum machine_scope scope, struct err *err)
{
    bool names = scope == MACHINE_ALL;

    *machine = (struct machine){.open = names ? 2 : 1, .round_over = !names};
    nginx_machine_facts(config, &machine->facts);
    if (evidence_folder_for_nginx(config, machine->evidence, &machine->facts, err) < 0)
        return -1;
    if (uv_loop_init(&machine->loop) != 0)
        return err_set(err, ERR_SYS, "cannot create the event loop");
    if (upstream_watch_init(&machine->upstreams, &machine->loop, config, &watch_events,
                            machine, err) < 0) {
        upstream_watch_done(&machine->upstreams);
        uv_loop_close(&machine->loop);
        return -1;
    }
    machine->facts.upstreams = &machine->upstreams.upstreams;
    if (scope != MACHINE_HTTP_ONLY)
        find_live_chain(machine, config);
    if (names)
        upstream_watch_start(&machine->upstreams, NAMES_MS);
    nginx_probe_start(&machine->probe, &machine->loop, config, &machine->facts,
                      on_version_known, machine);
    uv_run(&machine->loop, UV_RUN_DEFAULT);
    return 0;
}

bool machine_close(struct machine *machine)
{
    if (!machine->round_over)
        return false;
    upstream_watch_close(&machine->upstreams);
    uv_run(&machine->loop, UV_RUN_DEFAULT);
    uv_loop_close(&machine->loop);
    upstream_watch_done(&machine->upstreams);
    return true;
}
