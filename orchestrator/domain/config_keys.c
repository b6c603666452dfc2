/* The keys of the table: found, and guessed. */
#include "base/guess.h"
#include "domain/config_internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

bool config_find_key(const char *key, size_t *ret)
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        if (config_settings[i].key != NULL && strcmp(config_settings[i].key, key) == 0) {
            *ret = i;
            return true;
        }
    }
    return false;
}

bool config_find_section(const char *section, size_t *ret)
{
    size_t len = strlen(section);

    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *key = config_settings[i].key;

        if (key != NULL && strncmp(key, section, len) == 0 && key[len] == '.') {
            *ret = i;
            return true;
        }
    }
    return false;
}

const char *config_last_part(const char *key)
{
    const char *dot = strrchr(key, '.');

    return dot == NULL ? key : dot + 1;
}

static bool suggest_spelling(const char *said, char ret[CONFIG_KEY_SIZE])
{
    unsigned least = guess_of(said).distance;
    bool found = false;

    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *key = config_settings[i].key;
        char section[CONFIG_KEY_SIZE];
        size_t len;

        if (key == NULL)
            continue;
        if (guess_distance(said, key) < least) {
            least = guess_distance(said, key);
            snprintf(ret, CONFIG_KEY_SIZE, "%s", key);
            found = true;
        }
        len = strcspn(key, ".");
        snprintf(section, sizeof section, "%.*s", (int)len, key);
        if (key[len] == '.' && guess_distance(said, section) < least) {
            least = guess_distance(said, section);
            snprintf(ret, CONFIG_KEY_SIZE, "%s", section);
            found = true;
        }
    }
    return found;
}

/* Somebody knows the variable, and looks for its key. */
static bool suggest_twin(const char *variable, char ret[CONFIG_KEY_SIZE])
{
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const struct config_setting *setting = &config_settings[i];

        if (setting->key != NULL && setting->variable != NULL &&
            strcasecmp(setting->variable, variable) == 0) {
            snprintf(ret, CONFIG_KEY_SIZE, "%s", setting->key);
            return true;
        }
    }
    return false;
}

bool config_suggest_key(const char *said, char ret[CONFIG_KEY_SIZE])
{
    if (suggest_twin(said, ret) || suggest_spelling(said, ret))
        return true;
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *key = config_settings[i].key;

        if (key != NULL && strcmp(config_last_part(key), config_last_part(said)) == 0) {
            snprintf(ret, CONFIG_KEY_SIZE, "%s", key);
            return true;
        }
    }
    return false;
}

size_t config_section_len(size_t i)
{
    const char *key = config_settings[i].key;
    const char *dot = key == NULL ? NULL : strchr(key, '.');

    return dot == NULL ? 0 : (size_t)(dot - key);
}

bool config_same_section(size_t a, size_t b)
{
    size_t len = config_section_len(a);

    return len == config_section_len(b) &&
           (len == 0 || memcmp(config_settings[a].key, config_settings[b].key, len) == 0);
}

bool config_begins_section(size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (config_same_section(k, i))
            return false;
    }
    return true;
}
