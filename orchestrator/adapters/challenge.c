#include "adapters/challenge.h"

#include "adapters/certbot.h"
#include "base/text.h"

#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROBE_PREFIX "cert-manager-preflight-"

enum {
    TOKEN_MIN = 22, /* 128 bits in base64url */
    NAME_BYTES = 8,
    TEXT_BYTES = 16,
    THE_CAS_PORT = 80,
};

bool challenge_is_token(const char *name)
{
    size_t len =
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");

    return name[len] == '\0' && len >= TOKEN_MIN && len < CHALLENGE_NAME_SIZE &&
           !text_starts_with(name, PROBE_PREFIX);
}

void challenge_read(const struct config *config, const char *name, struct buf *ret)
{
    char folder[FS_PATH_MAX];
    char path[FS_PATH_MAX];
    struct err err = ERR_INIT;

    buf_init(ret, CHALLENGE_TEXT_MAX_BYTES);
    if (certbot_challenge_folder(config, folder, &err) < 0 ||
        fs_join(path, folder, name, &err) < 0 ||
        fs_read_head(path, CHALLENGE_TEXT_MAX_BYTES, ret, &err) < 0)
        buf_clear(ret);
}

/* ---- a file of our own ---- */

/*
 * The same in every life of this container, so that what a killed process left is replaced, and
 * another one for each replica that shares the folder.
 */
static int name_probe(const struct config *config, char ret[CHALLENGE_NAME_SIZE],
                      char path[FS_PATH_MAX], struct err *err)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char who[FS_PATH_MAX + 256] = "";
    char hex[2 * NAME_BYTES + 1];
    char folder[FS_PATH_MAX];

    if (gethostname(who, 255) < 0)
        who[0] = '\0';
    snprintf(who + strlen(who), FS_PATH_MAX, " %s", config->run_dir);
    SHA256((const unsigned char *)who, strlen(who), digest);
    text_hex(hex, digest, NAME_BYTES);
    snprintf(ret, CHALLENGE_NAME_SIZE, PROBE_PREFIX "%s", hex);
    return certbot_challenge_folder(config, folder, err) < 0
               ? -1
               : fs_join(path, folder, ret, err);
}

int challenge_probe_write(struct challenge_probe *probe, const struct config *config,
                          struct err *err)
{
    unsigned char random[TEXT_BYTES];
    char hex[2 * TEXT_BYTES + 1];

    *probe = (struct challenge_probe){.path = ""};
    if (RAND_bytes(random, sizeof random) != 1)
        return err_openssl(err, "no random numbers");
    text_hex(hex, random, sizeof random);
    snprintf(probe->text, sizeof probe->text, "pre-flight check of cert-manager, %s\n",
             hex);
    if (certbot_make_challenge_folder(config, err) == 0 &&
        name_probe(config, probe->name, probe->path, err) == 0 &&
        fs_replace(probe->path, probe->text, strlen(probe->text), 0644, err) == 0)
        return 0;
    probe->path[0] = '\0';
    return -1;
}

void challenge_probe_remove(struct challenge_probe *probe)
{
    struct err ignored = ERR_INIT;

    if (probe->path[0] != '\0')
        (void)fs_remove(probe->path, &ignored); /* the next one replaces it */
    probe->path[0] = '\0';
}

void challenge_probe_clean_up(const struct config *config)
{
    struct challenge_probe probe = {.path = ""};
    struct err ignored = ERR_INIT;

    if (name_probe(config, probe.name, probe.path, &ignored) == 0)
        challenge_probe_remove(&probe);
}

/* ---- fetched as the CA does ---- */

void challenge_fetch_start(struct challenge_fetch *fetch, struct http *http,
                           const struct config *config, const char *address,
                           const char *name, done_fn done, void *owner)
{
    bool local = address == NULL;
    struct http_request request = {
        .method = "GET",
        .url = fetch->url,
        .headers = fetch->headers,
        .max_body = CHALLENGE_TEXT_MAX_BYTES,
        .timeout_ms = CHALLENGE_FETCH_MS,
        .proxy_protocol = local && config->nginx.proxy_protocol,
    };
    const char *v6;

    if (local)
        address = config->nginx.address == NULL ? "127.0.0.1" : config->nginx.address;
    v6 = strchr(address, ':');
    snprintf(fetch->url, sizeof fetch->url,
             "http://%s%s%s:%u/.well-known/acme-challenge/%s", v6 == NULL ? "" : "[",
             address, v6 == NULL ? "" : "]",
             local ? config->nginx.http_port : (unsigned)THE_CAS_PORT, name);
    snprintf(fetch->host, sizeof fetch->host, "Host: %s", config->domain);
    fetch->headers[0] = fetch->host;
    /* A worker of before a reload must not answer from a connection that it kept. */
    fetch->headers[1] = "Connection: close";
    fetch->headers[2] = NULL;
    http_start(&fetch->call, http, &request, done, owner);
}

void challenge_fetch_cancel(struct challenge_fetch *fetch)
{
    http_cancel(&fetch->call);
}
