"""What documentation shows, found in its own text, and a shell that runs it in a container.

Blocks of Markdown say by their language what they are:

    sh       commands that do what they say they do
    console  `$ command`, and below it what it prints
    log      lines of the log, in this order, others between them
    yaml     settings

In what is printed, `…` stands for any text, and lines may end elsewhere. Times, durations, fingerprints,
versions and lines of files may be others than they were when the text was written; nothing else may.
"""

import re
from pathlib import Path
from typing import NamedTuple

from loopback import wait_until
from stack import BUILD, REPOSITORY

MARKDOWN = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


class Block(NamedTuple):
    file: Path
    line: int  # of its first line, from 1
    heading: str  # the nearest one above it
    language: str  # empty when it says none
    text: str

    @property
    def place(self):
        return f"{self.file.name}:{self.line}"


class Span(NamedTuple):
    """Text between backquotes, or what a macro of mdoc(7) marks."""

    file: Path
    line: int
    text: str

    @property
    def place(self):
        return f"{self.file.name}:{self.line}"


class Command(NamedTuple):
    place: str
    text: str
    output: str | None  # None: not shown


# Markdown.


def markdown_blocks(path):
    blocks, heading, language, begin, lines = [], "", None, 0, []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if language is not None and line.strip() == "```":
            blocks.append(Block(path, begin, heading, language, "\n".join(lines)))
            language = None
        elif language is not None:
            lines.append(line)
        elif line.startswith("```"):
            language, begin, lines = line[3:].strip(), number + 1, []
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    assert language is None, f"{path.name}: a block does not end"
    return blocks


def prose_lines(path):
    """Lines of Markdown outside of blocks, with their numbers."""
    is_prose = True
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("```"):
            is_prose = not is_prose
        elif is_prose:
            yield number, line


def markdown_spans(path):
    """A span may go on in the next line of its paragraph."""
    numbered, text = [], ""
    for number, line in prose_lines(path):
        numbered += [number] * (len(line) + 1)
        text += line + "\n"
    return [
        Span(path, numbered[found.start()], " ".join(found[1].replace("\\|", "|").split()))
        for found in re.finditer(r"`([^`]+)`", text)
    ]


def markdown_links(path):
    return [
        Span(path, number, target)
        for number, line in prose_lines(path)
        for target in re.findall(r"\]\(([^)\s]+)\)", line)
    ]


def markdown_anchors(path):
    """Of its headings, as GitHub makes them."""
    headings = (line.lstrip("#").strip() for _, line in prose_lines(path) if line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Manuals.


def manuals():
    return sorted((BUILD / "man").glob("*.[1-8]"))


def manual_blocks(path):
    """Literal displays, by what is in them."""
    blocks, heading, begin, lines = [], "", 0, None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith(".Bd -literal"):
            begin, lines = number + 1, []
        elif line == ".Ed":
            text = "\n".join(lines)
            blocks.append(Block(path, begin, heading, _language_of(text), text))
            lines = None
        elif lines is not None:
            lines.append(line.replace("\\e", "\\").replace("\\&", ""))
        elif line.startswith((".Sh ", ".Ss ")):
            heading = line[4:]
    return blocks


def _language_of(text):
    if text.startswith("[cert-manager] "):
        return "log"
    return "yaml" if re.match(r"[a-z_]+:(\s|$)", text) else "sh"


def manual_paths(path):
    """What .Pa marks: FILE , FILE is a row of them."""
    spans, folder = [], ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := re.match(r"\.(?:It |Pq )?Pa (.+)", line):
            for name in re.split(r"\s+", re.sub(r"\s[,.]", "", found[1]).strip()):
                folder = name if "/" in name.rstrip("/") else folder
                spans.append(Span(path, number, name))
    return spans


# Commands.


def commands_of(block):
    """A command of several lines goes on behind a backslash, or in lines that begin with blanks."""
    assert block.language in ("sh", "console"), block
    return list(_console(block) if block.language == "console" else _script(block))


def _script(block):
    number, so_far = block.line, ""
    for offset, line in enumerate(block.text.splitlines()):
        if not so_far:
            number = block.line + offset
        so_far += line
        if so_far.endswith("\\"):
            so_far += "\n"
        else:
            if so_far.strip() and not so_far.lstrip().startswith("#"):
                yield Command(f"{block.file.name}:{number}", so_far, None)
            so_far = ""


def _console(block):
    assert block.text.startswith("$ "), f"{block.place}: a console begins with a command"
    for found in re.finditer(r"^\$ ((?:.*\\\n)*.*)\n?((?:(?!\$ ).*\n?)*)", block.text, re.MULTILINE):
        number = block.line + block.text[: found.start()].count("\n")
        yield Command(f"{block.file.name}:{number}", found[1], found[2].rstrip("\n"))


# What is printed.

_ANY, _BLANKS = r".*?", r"\s+"
# What is another one each time.
_VALUES = [
    re.compile(value)
    for value in (
        r"\d{4}-\d\d-\d\d",  # a day
        r"\d\d:\d\d:\d\d(?:,\d{3})?",  # its time
        r"\b[0-9a-f]{8,}\b",  # a fingerprint
        r"\b\d+\.\d+\.\d+\b",  # a version
        r"(?<=:)\d+\b|\b\d+(?=:)",  # a line of a file, a port
    )
]
_UNIT = re.compile(r"(s|minutes?|hours?|days?|%)\b|%")


def pattern_of(text):
    """A regular expression for text that is shown; where its lines end does not matter."""
    words = text.split()
    patterns = [
        r"\d+" if word.isdecimal() and _UNIT.match(unit) else _pattern_of_word(word)
        for word, unit in zip(words, [*words[1:], ""])
    ]
    blanks = re.compile(rf"{re.escape(_BLANKS + _ANY)}|{re.escape(_ANY + _BLANKS)}")
    return blanks.sub(lambda _: _ANY, _BLANKS.join(patterns))


def _pattern_of_word(word):
    parts, at = [], 0
    while at < len(word):
        found = next((value for value in _VALUES if value.match(word, at)), None)
        if word[at] == "…":
            parts.append(_ANY)
            at += 1
        elif found:
            parts.append(f"(?:{found.pattern})")
            at = found.match(word, at).end()
        else:
            parts.append(re.escape(word[at]))
            at += 1
    return "".join(parts)


class Prints:
    """A command whose output is shown, and what it prints now."""

    def __init__(self, command, operator):
        self._command, self._operator, self._printed = command, operator, None

    def again(self):
        """Run it; whether it prints what is shown."""
        _, self._printed = self._operator.run(self._command.text)
        shown = self._command.output
        return not shown or re.fullmatch(pattern_of(shown), self._printed.strip(), re.DOTALL)

    def difference(self):
        place, text, shown = self._command
        return f"{place}: $ {text}\n--- shown\n{shown}\n--- printed\n{self._printed}"


def assert_logged(block, read_lines, timeout_s=20):
    """Each line comes, behind the one before."""
    at = 0
    for line in block.text.splitlines():
        pattern = re.compile(pattern_of(line), re.DOTALL)

        def find(pattern=pattern, at=at):
            for number, text in enumerate(read_lines()[at:], at + 1):
                if pattern.fullmatch(text):
                    return number
            return None

        at = wait_until(find, f"{block.place}: the log says {line!r}", timeout_s)
