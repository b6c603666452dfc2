#include "domain/health.h"

#include "base/text.h"
#include "domain/json_text.h"

#include <stdio.h>
#include <string.h>

int health_check_chain(const struct chain *chain, const struct config_list *names,
                       int64_t now, struct err *err)
{
    const struct chain_leaf *leaf = chain_leaf(chain);
    const char *lacks = chain_lacks(chain, names);
    char date[TEXT_TIME_SIZE];

    if (now >= leaf->not_after)
        return err_set(err, ERR_CRYPTO, "the certificate has expired, on %s",
                       text_time(date, leaf->not_after));
    if (now < leaf->not_before)
        return err_set(
            err, ERR_CRYPTO,
            "the certificate is valid from %s on only: is this machine's clock "
            "right?",
            text_time(date, leaf->not_before));
    if (lacks != NULL)
        return err_set(err, ERR_CRYPTO, "the certificate is not for %s", lacks);
    return 0;
}

int health_to_json(const struct health *health, struct buf *ret, struct err *err)
{
    char reason[ERR_MESSAGE_MAX]; /* others' words are in it, and JSON is UTF-8 */

    text_escape(reason, sizeof reason, health->reason, strlen(health->reason));
    return json_to_text(json_pack("{s:b, s:b, s:s, s:s}", "healthy", health->healthy,
                                  "attested", health->attested, "sha256", health->sha256,
                                  "reason", reason),
                        0, "the health cannot be written as JSON", ret, err);
}

int health_from_json(const struct buf *json, struct health *ret, struct err *err)
{
    json_t *root = json_load_whole(buf_str(json), json->len, 0, NULL);
    const char *sha256;
    const char *reason;
    int healthy;
    int attested;
    int failed;

    failed = json_unpack(root, "{s:b, s:b, s:s, s:s}", "healthy", &healthy, "attested",
                         &attested, "sha256", &sha256, "reason", &reason);
    if (root != NULL && failed == 0) {
        *ret = (struct health){.healthy = healthy != 0, .attested = attested != 0};
        snprintf(ret->sha256, sizeof ret->sha256, "%s", sha256);
        snprintf(ret->reason, sizeof ret->reason, "%s", reason);
    }
    json_decref(root);
    return root != NULL && failed == 0
               ? 0
               : err_set(err, ERR_PEER, "the daemon does not say how it is");
}
