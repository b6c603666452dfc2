#include "support/settings.h"

#include "domain/config_show.h"
#include "support/fuzz.h"

#include <jansson.h>
#include <string.h>

static char *const no_environment[] = {NULL};

static void require_fine(const char *line, const char *unseen)
{
    enum { LONGEST = 2048 };

    fuzz_require_line(line);
    FUZZ_REQUIRE_TEXT(strlen(line) < LONGEST, line);
    FUZZ_REQUIRE_TEXT(unseen == NULL || strstr(line, unseen) == NULL, line);
}

static bool load(const struct config_sources *sources, const char *unseen, bool must,
                 struct config *ret)
{
    struct config_report report;
    int failed = config_load(ret, &report, sources);

    FUZZ_REQUIRE((failed == 0) == (report.error_count == 0));
    for (size_t i = 0; i < report.error_count; i++)
        require_fine(report.errors[i], unseen);
    for (size_t i = 0; i < report.warning_count; i++)
        require_fine(report.warnings[i], unseen);
    FUZZ_REQUIRE_TEXT(!must || failed == 0,
                      report.error_count > 0 ? report.errors[0] : "");
    config_report_done(&report);
    return failed == 0;
}

static bool have_same_values(const struct config *a, const struct config *b)
{
    json_t *shown_a = config_show_json(a, false);
    json_t *shown_b = config_show_json(b, false);
    const json_t *others = json_object_get(shown_b, "settings");
    const char *key;
    json_t *setting;
    bool same = json_is_object(others);

    json_object_foreach(json_object_get(shown_a, "settings"), key, setting)
    {
        const json_t *value = json_object_get(setting, "value");
        const json_t *other = json_object_get(json_object_get(others, key), "value");

        /* Secrets have none. */
        same = same && (value == NULL ? other == NULL : json_equal(value, other));
    }
    json_decref(shown_a);
    json_decref(shown_b);
    return same;
}

static void require_same_when_shown(const struct config *config, const char *unseen)
{
    struct config again;
    struct err err = ERR_INIT;
    BUF_SCOPED text = {.max = 0};

    FUZZ_REQUIRE(config_show_yaml(config, false, &text, &err) == 0);
    FUZZ_REQUIRE_TEXT(unseen == NULL || strstr(buf_str(&text), unseen) == NULL,
                      buf_str(&text));
    load(&(struct config_sources){.yaml_name = "shown.yaml",
                                  .yaml = buf_str(&text),
                                  .yaml_len = text.len,
                                  .environment = no_environment},
         unseen, true, &again);
    FUZZ_REQUIRE_TEXT(have_same_values(config, &again), buf_str(&text));
    config_done(&again);
}

bool fuzz_load_settings(const struct config_sources *sources, const char *unseen,
                        struct config *ret)
{
    if (!load(sources, unseen, false, ret)) {
        config_done(ret);
        return false;
    }
    require_same_when_shown(ret, unseen);
    fuzz_note_accepted();
    return true;
}
