/* CAA records out of a DNS message (RFC 1035 §4.1, RFC 8659 §4.1). */
#include "domain/caa.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    HEADER_BYTES = 12,
    TYPE_CNAME = 5,
    CLASS_IN = 1,
    RCODE_NXDOMAIN = 3,
    ALIASES_MAX = 16, /* a loop of them ends there, too */
    CRITICAL = 128,
};

struct message {
    const unsigned char *data;
    size_t len;
    size_t at;
    bool broken;
};

struct record {
    char owner[CAA_NAME_SIZE];
    unsigned type;
    unsigned class;
    size_t data; /* where its data begin */
    size_t data_len;
};

static unsigned read_byte(struct message *m)
{
    if (m->at >= m->len) {
        m->broken = true;
        return 0;
    }
    return m->data[m->at++];
}

static unsigned read_16(struct message *m)
{
    unsigned high = read_byte(m);

    return high << 8 | read_byte(m);
}

static void skip(struct message *m, size_t bytes)
{
    if (bytes > m->len - m->at)
        m->broken = true;
    else
        m->at += bytes;
}

/*
 * What a host name or a service name has; anything else need not be told apart, and becomes '?', which
 * is in no name that is asked for.
 */
static char name_character(unsigned char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
        c == '-' || c == '_')
        return (char)c;
    return '?';
}

static void read_label(struct message *m, size_t bytes, char ret[CAA_NAME_SIZE],
                       size_t *len)
{
    if (*len + bytes + 2 > CAA_NAME_SIZE || bytes > m->len - m->at) {
        m->broken = true;
        return;
    }
    if (*len > 0)
        ret[(*len)++] = '.';
    for (size_t i = 0; i < bytes; i++)
        ret[(*len)++] = name_character(m->data[m->at++]);
    ret[*len] = '\0';
}

/* A pointer leads back to before the place where it stands, so that none can go in circles. */
static void read_name(struct message *m, char ret[CAA_NAME_SIZE])
{
    size_t behind = 0; /* the first pointer: where reading goes on */
    size_t limit = m->at;
    size_t len = 0;

    ret[0] = '\0';
    while (!m->broken) {
        unsigned bytes = read_byte(m);

        if (bytes == 0)
            break;
        if ((bytes & 0xc0) == 0xc0) {
            size_t target = (size_t)(bytes & 0x3f) << 8 | read_byte(m);

            if (behind == 0)
                behind = m->at;
            if (m->broken || target >= limit) {
                m->broken = true;
                return;
            }
            limit = target;
            m->at = target;
        } else if (bytes < 64) {
            read_label(m, bytes, ret, &len);
        } else {
            m->broken = true;
        }
    }
    if (behind != 0)
        m->at = behind;
}

/* The next record, and on to the one behind it. */
static bool read_record(struct message *m, struct record *ret)
{
    read_name(m, ret->owner);
    ret->type = read_16(m);
    ret->class = read_16(m);
    skip(m, 4); /* time to live */
    ret->data_len = read_16(m);
    ret->data = m->at;
    if (!m->broken)
        skip(m, ret->data_len);
    return !m->broken;
}

/* At the first answer; how many there are. */
static unsigned read_head(struct message *m, unsigned *ret_rcode)
{
    unsigned questions;
    unsigned answers;
    char name[CAA_NAME_SIZE];

    skip(m, 3);
    *ret_rcode = read_byte(m) & 0xf;
    questions = read_16(m);
    answers = read_16(m);
    if (m->len < HEADER_BYTES) {
        m->broken = true;
        return 0;
    }
    m->at = HEADER_BYTES;
    for (unsigned i = 0; i < questions && !m->broken; i++) {
        read_name(m, name);
        skip(m, 4); /* type and class */
    }
    return answers;
}

/* `name` becomes what it is an alias of; false when it is none. */
static bool follow(struct message m, unsigned answers, char name[CAA_NAME_SIZE],
                   bool *ret_broken)
{
    struct record record;

    for (unsigned i = 0; i < answers && read_record(&m, &record); i++) {
        if (record.type != TYPE_CNAME || record.class != CLASS_IN ||
            strcasecmp(record.owner, name) != 0)
            continue;
        m.at = record.data;
        read_name(&m, name);
        *ret_broken = m.broken;
        return !m.broken;
    }
    return false;
}

/* Flags, length of the tag, tag, and the rest is the value. */
static int add_record(const struct message *m, const struct record *record,
                      struct caa_set *set, struct err *err)
{
    const unsigned char *data = m->data + record->data;
    struct caa_record *added = &set->items[set->count];
    size_t tag_len = record->data_len < 2 ? 0 : data[1];
    size_t value_len;

    if (tag_len == 0 || tag_len + 2 > record->data_len)
        return err_set(err, ERR_PEER, "a CAA record of %s is damaged", record->owner);
    if (set->count == CAA_RECORDS_MAX)
        return err_set(err, ERR_PEER, "%s has more than %d CAA records", record->owner,
                       CAA_RECORDS_MAX);
    *added = (struct caa_record){.critical = (data[0] & CRITICAL) != 0};
    for (size_t i = 0; i < tag_len && i < sizeof added->tag - 1; i++)
        added->tag[i] = name_character(data[2 + i]);
    value_len = record->data_len - 2 - tag_len;
    added->unusable = value_len >= sizeof added->value ||
                      memchr(data + 2 + tag_len, '\0', value_len) != NULL;
    if (!added->unusable)
        memcpy(added->value, data + 2 + tag_len, value_len);
    set->count++;
    return 0;
}

int caa_read_message(const void *message, size_t len, const char *name,
                     struct caa_set *ret, char ret_alias[CAA_NAME_SIZE], struct err *err)
{
    struct message m = {.data = message, .len = len};
    struct record record;
    char owner[CAA_NAME_SIZE];
    unsigned rcode;
    unsigned answers = read_head(&m, &rcode);
    unsigned aliases = 0;

    ret->count = 0;
    ret_alias[0] = '\0';
    if (m.broken)
        return err_set(err, ERR_PEER, "the answer for %s is no DNS message", name);
    if (rcode != 0 && rcode != RCODE_NXDOMAIN)
        return err_set(err, ERR_PEER, "the answer for %s is an error, code %u", name,
                       rcode);
    snprintf(owner, sizeof owner, "%s", name);
    while (aliases < ALIASES_MAX && follow(m, answers, owner, &m.broken))
        aliases++;
    if (aliases == ALIASES_MAX)
        return err_set(err, ERR_PEER, "%s has more than %d aliases in a row", name,
                       ALIASES_MAX - 1);
    if (aliases > 0)
        snprintf(ret_alias, CAA_NAME_SIZE, "%s", owner);
    for (unsigned i = 0; i < answers; i++) {
        if (m.broken || !read_record(&m, &record))
            return err_set(err, ERR_PEER, "the answer for %s is cut short", name);
        if (record.type == CAA_TYPE && record.class == CLASS_IN &&
            strcasecmp(record.owner, owner) == 0 && add_record(&m, &record, ret, err) < 0)
            return -1;
    }
    return 0;
}
