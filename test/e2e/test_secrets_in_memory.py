"""Who holds which key: memory, command lines, environments, mappings and descriptors of all processes.

The account key is cert-manager's and certbot's, while an order is at work. The TLS key is cert-manager's
and nginx's. The text of the EKM secret is cert-manager's alone: what nginx's module keeps of it, it keeps
in memory that core dumps leave out (test_ekm_secret.py). Where cert-manager holds one, it is in locked
memory that core dumps leave out.
"""

import os
import signal
import subprocess

import memory
import pki
import pytest
from loopback import wait_until
from preload import is_sanitized, preload
from processes import environment, is_alive, read_proc
from stack import IS_ROOT, PROGRAM
from test_resilience import kill_nginx, wait_for_another_master

pytestmark = [
    pytest.mark.skipif(not IS_ROOT, reason="needs to read the memory of others"),
    pytest.mark.skipif(is_sanitized(), reason="sanitizers map terabytes, and keep what is freed"),
]

SEED = "in memory"  # no other test's secrets
KINDS = {"cert-manager", "log prefix", "nginx", "supervisord"}


def kind_of(process):
    for kind, mark in (
        ("cert-manager", "/cert-manager run"),
        ("certbot", "certbot certonly"),
        ("nginx", "nginx: "),
        ("supervisord", "supervisord"),
        ("log prefix", "--log-prefix"),
    ):
        if mark in process.line:
            return kind
    return process.line


def may_hold(kind, use, ordering):
    if kind == "cert-manager":
        return ordering or use != "account key"
    if kind == "certbot":
        return use == "account key"
    return kind == "nginx" and use == "TLS key"


def is_guarded(kind, find):
    """cert-manager has a place for secrets, and others have none."""
    return kind != "cert-manager" or {"dd", "lo"} <= find.region.flags


class Search:
    """All finds of the secrets of a container, in all of its processes."""

    def __init__(self, stack, *, ordering=False):
        self._found = []  # kind of process, pid, use, find
        self._ordering = ordering
        pieces = [
            (f"{use}: {form}", text)
            for use, material in stack.secrets().items()
            for form, text in memory.pieces(material)
        ]
        self.kinds = set()
        for process in stack.session():
            try:
                found = memory.find(process.pid, pieces)
            except (FileNotFoundError, ProcessLookupError):
                continue
            for name in ("cmdline", "environ", "maps"):
                region = memory.Region(0, 0, name, frozenset())
                content = read_proc(process.pid, name)
                found += [memory.Find(form, region) for form, text in pieces if text in content]
            self.kinds.add(kind_of(process))
            self._found += [
                (kind_of(process), process.pid, one.form.split(":")[0], one) for one in found
            ]

    def misplaced(self):
        return [
            f"{kind} ({pid}): {find}"
            for kind, pid, use, find in self._found
            if not (may_hold(kind, use, self._ordering) and is_guarded(kind, find))
        ]

    def holders(self, use):
        return {kind for kind, _, of, _ in self._found if of == use}


def open_files(pid):
    """What its descriptors lead to, without its standard ones and what has no name of its own."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        if int(name) > 2:
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return {target for target in found - {"/dev/null"} if not target.startswith("anon_inode")}


def shared_files(stack):
    """What others have open of what the daemon has open, or of what holds a secret."""
    secret = {str(stack.key_file), str(stack.folder["run_dir"] / "ekm.secret")}
    guarded = open_files(stack.daemon().pid) | secret
    return [
        f"{kind_of(process)} ({process.pid}): {target}"
        for process in stack.session()
        if kind_of(process) != "cert-manager"
        for target in open_files(process.pid) & guarded
    ]


def say(stack, *words):
    command = [PROGRAM, *words, "--config", stack.config]
    variables = environment(**stack.variables)
    subprocess.run(command, env=variables, check=True, stdout=subprocess.PIPE, timeout=60)


def wait_for_rest(stack):
    wait_until(
        lambda: stack.status().get("activity") is None and not stack.certbot(),
        "the daemon is at rest",
        40,
    )


@pytest.fixture(name="told")
def fixture_told(new_stack):
    """A container whose daemon never uses memory again, so that nothing covers what was not wiped."""
    stack = new_stack(seed=SEED, variables={"LOG_LEVEL": "debug"})
    preload(stack, "keep_freed")
    return stack


def look_while_certbot_orders(stack, ca, mark):
    wait_until(lambda: ca.orders(mark) == 1, "certbot has ordered", 40)
    certbot = wait_until(stack.certbot, "certbot runs")
    os.kill(certbot.pid, signal.SIGSTOP)  # for as long as it takes to look
    try:
        search = Search(stack, ordering=True)
        assert search.misplaced() == [] and shared_files(stack) == []
        # A search that finds nothing anywhere is none.
        assert search.kinds >= KINDS | {"certbot"}
        assert "certbot" in search.holders("account key")
    finally:
        os.kill(certbot.pid, signal.SIGCONT)
    wait_until(lambda: not is_alive(certbot.pid), "certbot has ended")
    return search


def look_at_rest(stack):
    wait_for_rest(stack)
    search = Search(stack)
    assert search.misplaced() == [] and shared_files(stack) == []
    assert search.kinds >= KINDS
    assert search.holders("TLS key") == {"cert-manager", "nginx"}
    assert search.holders("EKM secret") == {"cert-manager"}
    assert search.holders("account key") == set()


def test_secrets_are_only_where_they_are_documented(told, ca):
    """While the first certificate is ordered, after that, in a renewal, after that, and in a life without any."""
    stack = told
    mark = ca.log.mark()
    stack.start()
    look_while_certbot_orders(stack, ca, mark)
    former = stack.wait_for_https()
    look_at_rest(stack)
    mark = ca.log.mark()
    say(stack, "renew", "--force")
    renewing = look_while_certbot_orders(stack, ca, mark)
    assert renewing.holders("TLS key") == {"cert-manager", "nginx"}
    leaf = stack.wait_for_leaf(lambda served: served != former, "another leaf is served")
    look_at_rest(stack)
    mark = ca.log.mark()
    stack.restart()
    assert stack.wait_for_https() == leaf
    look_at_rest(stack)
    assert ca.orders(mark) == 0


def test_commands_and_another_life_leave_no_secret_behind(told):
    """Settings read anew, a pair that is deployed with its key, a renewal, and another nginx.

    What starts nginx has judged the pair, and stays as the process that prefixes its lines.
    """
    stack = told
    stack.start()
    leaf = stack.wait_for_https()
    wait_for_rest(stack)
    say(stack, "reload")
    (stack.root / "key.pem").write_text(pki.key_pem(stack.tls_key))
    (stack.root / "chain.pem").write_text(stack.chain_file.read_text())
    say(stack, "deploy", "--fullchain", stack.root / "chain.pem", "--key", stack.root / "key.pem")
    say(stack, "renew", "--force", "--wait")
    stack.wait_for_leaf(lambda served: served != leaf, "another leaf is served")
    wait_for_rest(stack)
    master = stack.nginx_master()
    kill_nginx(stack)
    wait_for_another_master(stack, master)
    stack.wait_for_https()
    look_at_rest(stack)
