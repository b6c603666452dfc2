#include "support/vectors.h"

#include "domain/keys.h"
#include "support/pki.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

json_t *vectors_load(void)
{
    json_error_t where;
    json_t *root =
        json_load_file(TEST_FOLDER "/vectors.json", JSON_REJECT_DUPLICATES, &where);

    if (root == NULL)
        fail_msg("vectors.json line %d: %s", where.line, where.text);
    return root;
}

const char *vectors_text(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    if (text == NULL)
        fail_msg("vectors.json: no text \"%s\"", member);
    return text;
}

const json_t *vectors_key(const json_t *root, const char *name)
{
    const json_t *keys = json_object_get(root, "keys");
    const json_t *key;
    size_t i;

    json_array_foreach(keys, i, key)
    {
        if (strcmp(vectors_text(key, "name"), name) == 0)
            return key;
    }
    fail_msg("vectors.json: no key \"%s\"", name);
    return NULL;
}

unsigned char *vectors_bytes(const char *hex, size_t *ret_len)
{
    size_t len = strlen(hex) / 2;
    unsigned char *bytes = malloc(len + 1);

    assert_non_null(bytes);
    assert_int_equal(text_unhex(bytes, len, hex), 0);
    *ret_len = len;
    return bytes;
}

struct secret *vectors_secret(const char *hex)
{
    size_t len;
    unsigned char *bytes = vectors_bytes(hex, &len);
    struct secret *secret = secret_copy(bytes, len);

    free(bytes);
    assert_non_null(secret);
    return secret;
}

EVP_PKEY *vectors_derive(const json_t *root, const char *name)
{
    struct secret *material =
        vectors_secret(vectors_text(vectors_key(root, name), "material"));
    struct err err = ERR_INIT;
    EVP_PKEY *key = NULL;

    assert_int_equal(keys_derive(material, &key, &err), 0);
    secret_free(material);
    return key;
}
