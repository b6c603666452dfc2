"""What documentation shows, found in its own text, and a shell that runs it in a container.

Blocks of Markdown say by their language what they are:

    sh       commands that do what they say they do
    console  `$ command`, and below it what it prints
    log      lines of the log, in this order, others between them
    yaml     settings

In what is printed, `…` stands for any text of a line, and for any lines where it stands alone. A
number, fingerprint or time may be another one than it was when the text was written.
"""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from processes import environment, spawn, stop
from stack import BUILD, PROGRAM, REPOSITORY

TIMEOUT_S = 60

MARKDOWN = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


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

_VALUES = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?)?(?: ?(?:UTC|Z)\b)?"  # a time
    r"|[0-9a-f]{8,}"  # a fingerprint, or what begins one
    r"|\d+(?:\.\d+)?"  # a number
)


def pattern_of(line):
    """A regular expression for a line that is shown."""
    parts = []
    for text in line.split("…"):
        at, pattern = 0, ""
        for value in _VALUES.finditer(text):
            pattern += re.escape(text[at : value.start()]) + f"(?:{_VALUES.pattern})"
            at = value.end()
        parts.append(pattern + re.escape(text[at:]))
    return ".*".join(parts)


def pattern_of_output(text):
    lines = [line.rstrip() for line in text.splitlines()]
    return "".join(r"(?:.*\n)*?" if line == "…" else pattern_of(line) + r" *\n" for line in lines)


def prints(expected, actual):
    """Whether a command's output is what is shown of it."""
    actual = "".join(f"{line}\n" for line in actual.splitlines())
    return re.fullmatch(pattern_of_output(expected), actual) is not None


def assert_prints(command, actual):
    if not prints(command.output, actual):
        raise AssertionError(
            f"{command.place}: $ {command.text}\n--- shown\n{command.output}\n--- printed\n{actual}"
        )


def assert_logged(block, log):
    """Each line is there, behind the one before."""
    at, lines = 0, log.lines()
    for line in block.text.splitlines():
        if line.strip() == "…":
            continue
        pattern = pattern_of(line)
        found = next((i for i in range(at, len(lines)) if re.fullmatch(pattern, lines[i])), None)
        assert found is not None, f"{block.place}: not in the log behind line {at}: {line}"
        at = found + 1


