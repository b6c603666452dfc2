/* Our accounts at the CAs: what is known of them, for people. */
#include "adapters/account_memory.h"
#include "app/daemon_internal.h"
#include "base/log.h"

#include <string.h>

static void log_account(const struct daemon *d, size_t i)
{
    const struct account *account = &d->accounts[i];
    const char *directory = d->config->acme.authorities.items[i].directory;
    char record[ACCOUNT_CAA_SIZE];

    if (account_caa_record(account, d->config->domain, record)[0] != '\0')
        log_info("ACME account at %s: %s; for it alone to have certificates: %s",
                 directory, account->url, record);
    else
        log_info("ACME account at %s: %s", directory, account->url);
}

/* Of an order that had come as far as that. */
void daemon_note_account(struct daemon *d, size_t i, const struct account *account)
{
    bool same = strcmp(d->accounts[i].url, account->url) == 0;

    if (account->url[0] == '\0' && !account->deactivated)
        return;
    d->accounts[i] = *account;
    if (!same && account->url[0] != '\0')
        log_account(d, i);
}

/* From what was remembered under our key, once that is at hand. */
void daemon_recall_accounts(struct daemon *d)
{
    const struct authorities *authorities = &d->config->acme.authorities;

    if (d->config->development || d->config->tls.external_key)
        return;
    for (size_t i = 0; i < authorities->count; i++) {
        const struct account_owner owner = {
            .directory = authorities->items[i].directory,
            .version = d->config->acme.account_version,
            .seal_key = d->tls_key,
        };
        struct account account;

        if (d->accounts[i].url[0] != '\0' || d->accounts[i].deactivated)
            continue;
        account_memory_load(&d->store, &owner, &account);
        daemon_note_account(d, i, &account);
    }
}
