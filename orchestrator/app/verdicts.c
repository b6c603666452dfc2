#include "app/verdicts.h"

#include "app/terminal.h"
#include "base/text.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

/* Columns before the text: the verdict, and what was looked at. */
enum { VERDICT_COLUMNS = 6, CHECK_COLUMNS = 14, TEXT_COLUMN = 20, TEXT_COLUMNS_MIN = 24 };

static const struct {
    const char *shown;
    const char *name; /* for machines */
    enum terminal_style style;
} looks[VERDICTS] = {
    [VERDICT_SKIPPED] = {"-", "skipped", TERMINAL_FAINT},
    [VERDICT_OK] = {"ok", "ok", TERMINAL_GOOD},
    [VERDICT_WARNING] = {"warn", "warning", TERMINAL_DOUBTFUL},
    [VERDICT_FAILED] = {"FAIL", "failed", TERMINAL_BAD},
};

/* ---- what was found ---- */

/* Some of it comes from outside: without control characters, and UTF-8, as JSON needs it. */
__attribute__((format(printf, 2, 0))) static void
put_text(char ret[ERR_MESSAGE_MAX], const char *format, va_list args)
{
    char raw[ERR_MESSAGE_MAX];

    vsnprintf(raw, sizeof raw, format, args);
    text_escape(ret, ERR_MESSAGE_MAX, raw, strlen(raw));
}

void verdicts_add(struct verdicts *verdicts, enum verdict verdict, const char *check,
                  const char *format, ...)
{
    struct verdict_row *row = &verdicts->rows[verdicts->count];
    va_list args;

    verdicts->of[verdict]++;
    verdicts->full = verdicts->count == VERDICT_ROWS_MAX;
    if (verdicts->full)
        return;
    *row = (struct verdict_row){.verdict = verdict, .check = check};
    va_start(args, format);
    put_text(row->text, format, args);
    va_end(args);
    verdicts->count++;
}

void verdicts_advise(struct verdicts *verdicts, const char *format, ...)
{
    va_list args;

    if (verdicts->full)
        return;
    va_start(args, format);
    put_text(verdicts->rows[verdicts->count - 1].hint, format, args);
    va_end(args);
}

bool verdicts_hold(const struct verdicts *verdicts)
{
    return verdicts->of[VERDICT_FAILED] == 0;
}

/* ---- for people ---- */

/* Characters, for columns: what is wider or narrower than one is not known. */
static size_t columns_of(const char *text, size_t len)
{
    size_t columns = 0;

    for (size_t i = 0; i < len; i++)
        columns += ((unsigned char)text[i] & 0xC0U) != 0x80U;
    return columns;
}

/* Words, as many in a line as there is room for; `width` 0: all of them. */
static void print_wrapped(FILE *out, const char *text, size_t width)
{
    size_t used = 0;

    while (*text != '\0') {
        size_t len = strcspn(text, " ");
        size_t columns = columns_of(text, len);

        if (used > 0 && width > 0 && used + 1 + columns > width) {
            fprintf(out, "\n%*s", TEXT_COLUMN, "");
            used = 0;
        } else if (used > 0) {
            putc(' ', out);
            used++;
        }
        fwrite(text, 1, len, out);
        used += columns;
        text += len;
        text += strspn(text, " ");
    }
    putc('\n', out);
}

static void print_row(FILE *out, const struct verdict_row *row, size_t width)
{
    const char *shown = looks[row->verdict].shown;
    size_t len = strlen(shown);

    terminal_print(out, looks[row->verdict].style, "%s", shown);
    fprintf(out, "%*s%-*s", VERDICT_COLUMNS - (int)len, "", CHECK_COLUMNS, row->check);
    print_wrapped(out, row->text, width);
    if (row->hint[0] == '\0')
        return;
    fprintf(out, "%*s", TEXT_COLUMN, "");
    print_wrapped(out, row->hint, width);
}

static void print_sum(const struct verdicts *verdicts, FILE *out)
{
    size_t failed = verdicts->of[VERDICT_FAILED];
    size_t warnings = verdicts->of[VERDICT_WARNING];
    enum verdict worst = failed > 0     ? VERDICT_FAILED
                         : warnings > 0 ? VERDICT_WARNING
                                        : VERDICT_OK;

    putc('\n', out);
    if (worst == VERDICT_OK)
        terminal_print(out, looks[worst].style, "all is well");
    else
        terminal_print(out, looks[worst].style, "%zu failed, %zu warning%s", failed,
                       warnings, warnings == 1 ? "" : "s");
    putc('\n', out);
}

void verdicts_print(const struct verdicts *verdicts, FILE *out)
{
    size_t width = 0;

    if (isatty(fileno(out)) == 1) {
        width = terminal_width(out);
        width = width < TEXT_COLUMN + TEXT_COLUMNS_MIN ? TEXT_COLUMNS_MIN
                                                       : width - TEXT_COLUMN;
    }
    for (size_t i = 0; i < verdicts->count; i++)
        print_row(out, &verdicts->rows[i], width);
    print_sum(verdicts, out);
}

/* ---- for machines ---- */

json_t *verdicts_json(const struct verdicts *verdicts)
{
    json_t *list = json_array();

    for (size_t i = 0; i < verdicts->count; i++) {
        const struct verdict_row *row = &verdicts->rows[i];

        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "check", row->check,
                                              "verdict", looks[row->verdict].name, "text",
                                              row->text, "hint", row->hint));
    }
    return json_pack("{s:b, s:o}", "ok", verdicts_hold(verdicts), "checks", list);
}
