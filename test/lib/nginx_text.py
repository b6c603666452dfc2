"""nginx's configuration language, read as nginx reads it (ngx_conf_read_token).

    structure(parse("server { listen 80; }")) == [("server", 0, [("listen", 1, None)])]

Written from the rules of the language and not from the program that is tested with it.
"""

from typing import NamedTuple

BLANKS = " \t\r\n"
QUOTES = "\"'"
ESCAPES = {"t": "\t", "r": "\r", "n": "\n", '"': '"', "'": "'", "\\": "\\"}
TOKEN_MAX_BYTES = 4096


class Directive(NamedTuple):
    name: str
    arguments: list
    block: list  # of directives, or None


class Unreadable(Exception):
    """nginx would refuse the text."""


def parse(text):
    """The directives of the outermost level."""
    tokens = _tokens(text)
    directives = list(_directives(tokens))
    if next(tokens, None):
        raise Unreadable("a brace too many")
    return directives


def structure(directives):
    """Names, numbers of arguments and blocks; the values of arguments are left out."""
    return [
        (name, len(arguments), None if block is None else structure(block))
        for name, arguments, block in directives
    ]


def _directives(tokens):
    words = []
    for kind, word in tokens:
        if kind == "word":
            words.append(word)
        elif kind == "}":
            if words:
                raise Unreadable(f"{words[0]} ends with a brace")
            return
        elif not words:
            raise Unreadable(f"{kind} without a word before it")
        else:
            block = list(_directives(tokens)) if kind == "{" else None
            yield Directive(words[0], words[1:], block)
            words = []
    if words:
        raise Unreadable(f"{words[0]} does not end")


def _tokens(text):
    at = 0
    while at < len(text):
        letter = text[at]
        if letter in BLANKS:
            at += 1
        elif letter == "#":
            while at < len(text) and text[at] != "\n":
                at += 1
        elif letter in ";{}":
            yield letter, None
            at += 1
        elif letter in QUOTES:
            end = _end_of_quoted(text, at + 1, letter)
            yield "word", _unescaped(text[at + 1 : end])
            at = end + 1
            # A parenthesis begins a word of its own: if ($name ~ "text").
            if text[at : at + 1] not in ("", ")", ";", "{", *BLANKS):
                raise Unreadable(f"{text[at]} right behind a quote")
        else:
            end = _end_of_plain(text, at)
            yield "word", _unescaped(text[at:end])
            at = end


def _end_of_quoted(text, at, quote):
    while at < len(text) and text[at] != quote:
        at += 2 if text[at] == "\\" else 1
    if at >= len(text):
        raise Unreadable("a quote that is not closed")
    return at


def _end_of_plain(text, at):
    """Quotes mean nothing inside a word, and the brace of ${ opens no block."""
    while at < len(text) and text[at] not in ";{" + BLANKS:
        at += 2 if text[at] == "\\" or text.startswith("${", at) else 1
    return min(at, len(text))


def _unescaped(word):
    if len(word.encode()) > TOKEN_MAX_BYTES:
        raise Unreadable("a word that is too long")
    out, letters = [], iter(word)
    for letter in letters:
        if letter == "\\":
            escaped = next(letters, "")
            out.append(ESCAPES.get(escaped, letter + escaped))
        else:
            out.append(letter)
    return "".join(out)
