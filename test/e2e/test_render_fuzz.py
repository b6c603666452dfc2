"""No value breaks out of its place in nginx's configuration: hostile ones and legal ones at random.

What `cert-manager render` accepts must be taken by `nginx -t`, and must have the directives and
blocks that the same settings with harmless values have. What it refuses must be refused by a line
that says which setting it was, and where. RENDER_FUZZ_SEED and RENDER_FUZZ_CASES in the environment
repeat a run and prolong it.
"""

import copy
import ipaddress
import json
import os
import random
import re
import string
from pathlib import Path

import nginx_text
import pytest
from rendering import EXIT_CONFIG, SITE, Rendering, quoted, settings_file

SEED = os.environ.get("RENDER_FUZZ_SEED") or str(random.SystemRandom().getrandbits(32))
CASES = int(os.environ.get("RENDER_FUZZ_CASES", "240"))
SHARES = 4  # tests that the cases are spread over, which may run at the same time

LETTERS = string.ascii_letters + string.digits
VARIABLES = {
    "domain": "DOMAIN",
    "upstream.host": "UPSTREAM_HOST",
    "upstream.port": "UPSTREAM_PORT",
    "cors.origins": "CORS_ORIGINS",
    "nginx.max_body_size": "NGINX_MAX_BODY_SIZE",
}


# ---- harmless settings, in forms that differ in what is rendered ----


def harmless(folder):
    return {
        "domain": "app.example.test",
        "run_dir": f"{folder}/run",
        "tls.dir": f"{folder}/tls",
        "nginx.templates": f"{folder}/templates",
        "nginx.stock_templates": f"{folder}/templates",
        "nginx.webroot": f"{folder}/webroot",
        "nginx.http_port": 80,
        "nginx.https_port": 443,
        "attestation.upstream": "attestation:80",
        "auth.upstream": "auth:80",
    }


EVERYTHING = {
    "domains": ["www.example.test", "a.example"],
    "nginx.address": "127.0.0.1",
    "nginx.max_body_size": "20m",
    "nginx.hsts_days": 30,
    "nginx.proxy_protocol": True,
    "nginx.trusted_proxies": ["10.0.0.0/8", "fd00::/8"],
    "upstream.host": "app",
    "upstream.port": 8000,
    "cors.origins": [r"^https://a\.example$", "b"],
    "routes": [
        {"path": "/a", "upstream": "a:80", "auth": True, "ekm": True, "timeout": "1h"},
        {"path": "/b", "upstream": "b:80", "match": "exact", "cors": False, "websocket": False},
        {"path": "/c", "upstream": "127.0.0.1:80", "buffering": True},
    ],
    "nginx.extra_upstreams": "upstream extra { server 127.0.0.1:9; }",
    "nginx.extra_locations": "location /x { ${CORS_HEADERS} proxy_pass http://extra; }",
}

# What is rendered, and the settings beside those that are always there.
SHAPES = {
    "everything": ("full", EVERYTHING),
    "development": ("full", EVERYTHING | {"dev_mode": True, "auth.enabled": True}),
    "little": ("full", {"auth.enabled": False, "cors.origins": ["b"]}),
    "reduced": ("reduced", EVERYTHING),
    "http-only": ("http-only", EVERYTHING),
}


# ---- values ----


class Values:
    """Values of each setting: legal ones, which must be accepted, and hostile ones."""

    nasty = [
        *('"', "'", ";", "{", "}", "\\", "$", "#", " ", "\t", "\n", "\r\n", "\0", "\x7f", "\x85"),
        *("$host", "${TLS_DIR}", "${DOMAIN}", "${EXTRA_LOCATIONS}", '\\"', "\\\\", "\\n", "*"),
        *('"; return 200 "', "'; return 200; '", "; return 200;", "\n    return 200;\n", "# "),
        *("} location /y { return 200; ", '") { return 200; } if ("', "@", "^~ ", "~", "=", "%00"),
        *("\u2028", "\ufeff", "é", "\U0001f511", "unix:/run/x", "http://", ":", "::", "[", "]"),
        *("/", "//", "..", "/../", "-", "a" * 300, "a" * 1100, "a" * 5000, "9" * 25),
    ]

    def __init__(self, chance, folder):
        self._chance, self._folder = chance, folder
        self._legal = {
            "domain": self._domain,
            "domains": self._domain,
            "nginx.address": self._address,
            "nginx.http_port": lambda: chance.randint(1, 400),
            "nginx.https_port": lambda: chance.randint(401, 65535),
            "nginx.max_body_size": self._size,
            "nginx.hsts_days": lambda: chance.randint(1, 3650),
            "nginx.trusted_proxies": self._network,
            "upstream.host": self._host,
            "upstream.port": lambda: chance.randint(1, 65535),
            "cors.origins": self._expression,
            "path": self._route_path,
            "timeout": lambda: f"{chance.randint(1, 24)}h",
            "match": lambda: "exact",
        } | dict.fromkeys(["upstream", "attestation.upstream", "auth.upstream"], self._place)

    def legal(self, place, old):
        """For a place in the settings, in which something else is now."""
        if isinstance(old, bool):
            return old
        key = next(part for part in reversed(place) if isinstance(part, str))
        return self._legal.get(key, self._path)()

    def hostile(self, value):
        """A text that has something nasty in it. What is legal otherwise gets further inside."""
        chance, text = self._chance, str(value)
        nasty = chance.choice(self.nasty)
        at = chance.randrange(len(text) + 1)
        return chance.choice(
            [
                text[:at] + nasty + text[at:],
                text + nasty,
                nasty + text,
                nasty,
                f'"{text}"',
                "",
                "".join(chance.choices(string.punctuation + " \n", k=chance.randint(1, 20))),
            ]
        )

    def _text(self, alphabet, low=1, high=12):
        return "".join(self._chance.choices(alphabet, k=self._chance.randint(low, high)))

    def _domain(self):
        labels = self._chance.randint(2, 5)
        return ".".join(f"a{self._text(LETTERS + '-', 0, 40)}z" for _ in range(labels))

    def _ip(self):
        if self._chance.random() < 0.5:
            return f"10.{self._chance.randrange(256)}.{self._chance.randrange(256)}.1"
        address = ipaddress.IPv6Address((0xFD << 120) + self._chance.getrandbits(100))
        return self._chance.choice([address.compressed, address.exploded.upper()])

    def _address(self):
        return self._chance.choice(["0.0.0.0", "127.0.0.1", "::", "::1", self._ip()])

    def _host(self):
        name = self._text(LETTERS) + self._text(LETTERS + "._-", 0, 60)
        return self._chance.choice([name, self._ip()])

    def _place(self):
        host = self._host()
        return f"[{host}]:80" if ":" in host else f"{host}:{self._chance.randint(1, 65535)}"

    def _network(self):
        address = ipaddress.ip_address(self._ip())
        bits = self._chance.randint(0, address.max_prefixlen)
        return str(ipaddress.ip_network((address, bits), strict=False))

    def _size(self):
        size = self._chance.choice(["0", "10737418240", "9223372036854775807", "8589934591", "1"])
        return size + (self._chance.choice("kKmMgG") if len(size) <= 10 else "")

    def _path(self):
        letters = [chr(code) for code in range(0x21, 0x17F) if not 0x7F <= code <= 0xA0]
        allowed = [letter for letter in letters if letter not in "\"'\\;{}$#/"]
        return f"{self._folder}/{self._text(allowed)}/{self._text(allowed)}"

    def _route_path(self):
        segment = LETTERS + "._~!&'()*+,=:@-"
        return f"/r/{self._text(segment)}x/x{self._text(segment, 0)}" + self._chance.choice("/x")

    def _expression(self):
        """Any text can be matched as it is; what means nothing to PCRE stands for itself."""
        quiet = ['"', "'", ";", "}", "#", "{", "${DOMAIN}", r"\"", r"\x22"]
        meaning = ["(a|b)?", r"\\", "[^\"';{]+", "(?:x)", "é", "$", r"\z"]
        parts = self._chance.choices(quiet, k=3) + self._chance.choices(meaning, k=2)
        parts.append(re.escape(self._text([chr(code) for code in range(0x20, 0x7F)], 0, 20)))
        self._chance.shuffle(parts)
        return "^" + "".join(parts)


# ---- cases ----


class Case:
    """A shape, some of whose values are replaced, and how it is told to the program."""

    def __init__(self, chance, folder):
        values = Values(chance, folder)
        self.shape = chance.choice(list(SHAPES))
        self.settings, self.variables, self.replaced = settings_of(self.shape, folder), {}, {}
        self.is_legal = chance.random() < 0.4
        for place in chance.sample(list(places(self.settings)), chance.randint(1, 4)):
            old = value_at(self.settings, place)
            new = values.legal(place, old)
            if not self.is_legal and chance.random() < 0.7:
                new = values.hostile(chance.choice([old, new]))
            value_at(self.settings, place[:-1])[place[-1]] = self.replaced[place] = new
        self.values = dict(self.settings)
        for key in sorted(VARIABLES):
            if key in self.settings and chance.random() < 0.5:
                self._move_to_environment(key)
        self.yaml, self.owners = settings_file(self.settings)

    def _move_to_environment(self, key):
        value = self.settings[key]
        # A variable cannot have a zero byte in it, and an empty one says nothing.
        if value != "" and "\\u0000" not in quoted(value):
            text = quoted(value) if isinstance(value, list) else str(value)
            self.variables[VARIABLES[key]] = text
            del self.settings[key]

    def names(self, line, config):
        """Whether a line of the log says which of the replaced values it is about, and where."""
        return any(line.startswith(self._beginnings(key, config)) for key, *_ in self.replaced)

    def _beginnings(self, key, config):
        if key in VARIABLES and VARIABLES[key] in self.variables:
            return (f"{VARIABLES[key]}: ",)
        numbers = [number for number, owner in enumerate(self.owners, 1) if owner == key]
        # Only when templates are read does it turn out that they are not there.
        known_later = (f"{key}: ",) if key.endswith("templates") else ()
        return tuple(f"{config}:{number}:" for number in numbers) + known_later


def settings_of(shape, folder):
    return copy.deepcopy(harmless(folder) | SHAPES[shape][1])


def places(settings):
    """Where a value can be replaced: a key, and what leads to a value inside."""
    for key, value in settings.items():
        if key == "routes":
            for number, route in enumerate(value):
                yield from ((key, number, name) for name in route)
        elif isinstance(value, list):
            yield from ((key, number) for number in range(len(value)))
        elif not isinstance(value, bool) and not key.startswith("nginx.extra"):
            yield (key,)


def value_at(settings, place):
    for part in place:
        settings = settings[part]
    return settings


# ---- what must hold ----


@pytest.fixture(scope="module", name="rendering")
def fixture_rendering():
    with Rendering() as rendering:
        yield rendering


def skeleton(text):
    """The structure, whether or not backends have addresses and there is a certificate."""

    def lasting(directives):
        for name, arguments, block in directives:
            kept = [word for word in arguments if (name, word) != ("server", "down")]
            inside = None if block is None else list(lasting(block))
            if name != "live_chain":
                yield nginx_text.Directive(name, kept, inside)

    return nginx_text.structure(lasting(nginx_text.parse(text)))


def skeleton_of(rendering, shape, cache={}):
    if (rendering, shape) not in cache:
        yaml, _ = settings_file(settings_of(shape, rendering.folder))
        shown = rendering.render("--level", SHAPES[shape][0], yaml=yaml)
        assert shown.code == 0, shown.lines
        cache[rendering, shape] = skeleton(shown.out)
    return cache[rendering, shape]


def words(directives):
    for name, arguments, block in directives:
        yield from (name, *arguments, *words(block or []))


def words_of(case):
    """What nginx must read exactly as it was set."""
    settings = case.values
    found = {f"{settings['nginx.webroot']}"}
    if case.shape != "http-only":
        found |= {f"{settings['tls.dir']}/cert.pem", f"{settings['run_dir']}/ekm.secret"}
        found |= set(settings["cors.origins"])
    if case.shape in ("everything", "development"):
        found |= {route["path"] for route in settings["routes"]}
    return found


def put_what_is_named(rendering, settings):
    """Whether everything that nginx opens could be put where the settings say that it is."""
    puts = {
        "tls.dir": rendering.put_pair,
        "run_dir": rendering.put_secret,
        "nginx.templates": rendering.put_templates,
        "nginx.stock_templates": rendering.put_templates,
    }
    done = True
    for key, put in puts.items():
        folder = str(settings[key])
        if not os.path.normpath(folder).startswith(f"{rendering.folder}/"):
            done = False
            continue
        try:
            put(Path(folder))
        except (OSError, ValueError):
            done = False
    return done


def check(rendering, case):
    is_there = put_what_is_named(rendering, case.settings)
    level = SHAPES[case.shape][0]
    shown = rendering.render("--level", level, yaml=case.yaml, variables=case.variables)
    if shown.code != 0:
        assert shown.code == EXIT_CONFIG, f"exit code {shown.code}"
        assert not case.is_legal, f"legal values are refused: {shown.fatal}"
        assert shown.fatal, "refused without a reason"
        for line in shown.fatal:
            assert case.names(line, rendering.config), f"names none of the settings: {line}"
        return
    assert skeleton(shown.out) == skeleton_of(rendering, case.shape), "a value broke out"
    lost = words_of(case) - set(words(nginx_text.parse(shown.out)))
    assert not lost, f"nginx does not read what was meant: {lost}"
    if is_there:
        (rendering.output / SITE).write_text(shown.out, errors="surrogateescape")
        assert rendering.complaint() == ""


@pytest.mark.parametrize("share", range(SHARES))
def test_no_value_breaks_out_of_its_place(rendering, share):
    print(f"RENDER_FUZZ_SEED={SEED}")
    for number in range(share, CASES, SHARES):
        case = Case(random.Random(f"{SEED}-{number}"), str(rendering.folder))
        try:
            check(rendering, case)
        except (AssertionError, nginx_text.Unreadable) as problem:
            pytest.fail(
                f"{problem}\nRENDER_FUZZ_SEED={SEED}, case {number}, {case.shape}\n"
                f"replaced: {case.replaced}\nenvironment: {case.variables}\n{case.yaml}"
            )
