#include "domain/hint.h"

#include <stddef.h>

/* For what has no line below. */
static const char *const kinds[] = {
    [ERR_NONE] = "",
    [ERR_CONFIG] =
        ("a setting or file has to be changed: `cert-manager check` looks at all "
         "of them"),
    [ERR_SYS] = "look at disk space, permissions and memory of this container",
    [ERR_NET] = "look at the network and its firewall; it is tried again by itself",
    [ERR_PEER] = "the other side answered with a refusal: its own log says more",
    [ERR_CRYPTO] = "a key or certificate is not what it must be: the reason names it",
    [ERR_TIMEOUT] = "the other side is slow or overloaded; it is tried again by itself",
    [ERR_CANCELED] = "",
};

/* What says more than the kind alone: ERR_NONE for any kind of that activity. */
static const struct {
    enum plan_activity activity;
    enum err_kind kind;
    const char *text;
} lines[] = {
    {PLAN_KEYS, ERR_NET,
     "the guest agent is not there: mount its socket into the container (agent.socket), "
     "and see that the agent runs"},
    {PLAN_KEYS, ERR_TIMEOUT, "the guest agent hangs: look at it on the virtual machine"},
    {PLAN_KEYS, ERR_PEER,
     "the guest agent refuses its keys: look at its log, and at the key provider of the "
     "application"},
    {PLAN_ACCOUNT, ERR_NONE,
     "challenges are answered from files until the guest agent gives the account's key"},
    {PLAN_EXAMINING, ERR_SYS,
     "the TLS folder cannot be read or written: look at its volume and permissions"},
    {PLAN_APPLYING, ERR_CONFIG,
     "nginx refuses its configuration: `cert-manager render` shows it, `nginx -t` judges "
     "it"},
    {PLAN_APPLYING, ERR_TIMEOUT,
     "nginx did not take the certificate in time: see that it runs, and its error log"},
    {PLAN_APPLYING, ERR_NET,
     "nginx or the guest agent is not reached: see that both run"},
    {PLAN_APPLYING, ERR_PEER,
     "the guest agent made no certificate event, or nginx presented another leaf: the "
     "reason says which"},
    {PLAN_REAPPLYING, ERR_NET,
     "nginx or the guest agent is not reached: see that both run"},
    {PLAN_REPAIRING, ERR_NONE,
     "the former certificate is tried again until it is served and measured: see that "
     "nginx and the guest agent run"},
    {PLAN_MEASURING, ERR_NONE,
     "clients that verify refuse until the guest agent makes the certificate event: look "
     "at its log"},
    {PLAN_ISSUING, ERR_NET,
     "the CA is not reached: look at outgoing connections and DNS (acme.directory, "
     "acme.proxy)"},
    {PLAN_ISSUING, ERR_TIMEOUT, "the CA or its validation is slow; it is tried again"},
    {PLAN_ISSUING, ERR_SYS,
     "certbot could not do its work here: look at its path, disk space and permissions"},
    {PLAN_GATHERING, ERR_NONE,
     "/evidences/ shows nothing meanwhile; HTTPS and the certificate do not wait for it"},
    {PLAN_ASKING, ERR_NONE,
     "the certificate is renewed by its lifetime as long as the CA does not say when"},
};

const char *hint_of(enum plan_activity activity, enum err_kind kind)
{
    if (kind == ERR_NONE || kind == ERR_CANCELED)
        return "";
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (lines[i].activity == activity &&
            (lines[i].kind == kind || lines[i].kind == ERR_NONE))
            return lines[i].text;
    }
    return kinds[kind];
}

const char *hint_of_order(enum certbot_verdict verdict)
{
    static const char *const texts[] = {
        [CERTBOT_ISSUED] = "",
        [CERTBOT_CHALLENGE_FAILED] =
            ("the CA has to reach port 80 of this machine by each of the names: look at "
             "DNS, firewall and load balancer"),
        [CERTBOT_RATE_LIMITED] =
            ("the CA limits orders, and nothing but waiting helps; what "
             "is served stays"),
        [CERTBOT_CA_UNREACHABLE] =
            ("look at outgoing connections and DNS, and at the CA's "
             "status page; it is tried again by itself"),
        [CERTBOT_CA_REFUSED] =
            ("the CA's own words are in the reason: CAA records, names, "
             "profile and account binding are what it judges"),
        [CERTBOT_ACCOUNT_GONE] =
            ("the CA does not know the account any more: set LETSENCRYPT_ACCOUNT_VERSION "
             "to a value that was never used, such as v2"),
        [CERTBOT_LOCKED] = "another certbot works in the same folders: let it end",
        [CERTBOT_KILLED] =
            "certbot was killed: look at the memory limit of the container",
        [CERTBOT_TOO_OLD] = "install certbot 4 or newer, or leave acme.profile out",
        [CERTBOT_LOCAL_FAILURE] =
            ("certbot could not do its work here: look at certbot.path, disk space and "
             "permissions"),
    };

    return texts[verdict];
}
