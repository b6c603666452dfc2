"""Whatever is put in the place of our files: nothing hangs, nothing else is changed, HTTPS comes up.

On the volume and in the webroot others may write; run_dir is root's, and its files are tried all the same.
A victim is a file or folder of somebody else that a link leads to. It must be as it was in the end: its
bytes, mode and owner.
"""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess

import pki
import pytest
from commands import command
from conftest import logs_of
from loopback import wait_until
from rotation import serve
from stack import IS_ROOT, Stack

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="makes devices, and files of others")

UNUSABLE_SETTING = 78
SECRET_TEXT = "what nobody may see 7f3a\n"
STATE = (
    "account.json",
    "renewal.json",
    "intent.json",
    "applied.json",
    "forced-removal",
    "staged-cert.pem",
    "staged-key.pem",
    "previous-cert.pem",
    "previous-key.pem",
    "promotion",
    "set-aside",
)
RUN = (
    "control.sock",
    "metrics.sock",
    "status.json",
    "ekm.secret",
    "nginx-http.conf",
    "hooks.json",
    "refused.conf",
    "account.thumbprint",
    "evidences",
    "nginx-test",
    "certbot",
)


class Hostile:
    """Puts things of one kind in place of others, and knows whether victims are as they were."""

    def __init__(self, folder, kind):
        self.folder, self.kind, self.victims, self.sockets = folder, kind, {}, []

    def put(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        getattr(self, f"_{self.kind}")(path)

    def _victim(self):
        victim = self.folder / f"victim-{len(self.victims)}"
        victim.write_text(SECRET_TEXT)
        victim.chmod(0o640)
        os.chown(victim, 4711, 4712)
        self.victims[victim] = self._facts(victim)
        return victim

    @staticmethod
    def _facts(path):
        status = path.lstat()
        return status.st_mode, status.st_uid, status.st_gid, status.st_ino, path.read_bytes()

    def _link(self, path):
        path.symlink_to(self._victim())

    def _dangling_link(self, path):
        path.symlink_to(self.folder / f"nothing-{path.name}")

    def _hard_link(self, path):
        os.link(self._victim(), path)

    def _fifo(self, path):
        os.mkfifo(path, 0o666)

    def _device(self, path):
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # zeros without end

    def _socket(self, path):
        self.sockets.append(socket.socket(socket.AF_UNIX))
        short = self.folder / "s"
        self.sockets[-1].bind(str(short))
        short.rename(path)

    def _folder(self, path):
        (path / "deep/er").mkdir(parents=True)
        (path / "deep/file").write_text(SECRET_TEXT)

    def _large(self, path):
        with path.open("wb") as file:
            file.truncate(1 << 32)

    def _of_others(self, path):
        path.write_text(SECRET_TEXT)
        os.chown(path, 4711, 4712)
        path.chmod(0o666)

    def remove(self, path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        self.close()

    def close(self):
        for one in self.sockets:
            one.close()

    def check(self, stack):
        for victim, facts in self.victims.items():
            assert self._facts(victim) == facts, victim
        left = {path.name for path in self.folder.iterdir()} - {one.name for one in self.victims}
        assert not left, "made through a dangling link"
        assert SECRET_TEXT.strip() not in stack.log.text()


KINDS = ("link", "dangling_link", "hard_link", "fifo", "device", "socket", "folder", "large", "of_others")


@pytest.fixture(name="hostile", params=KINDS)
def fixture_hostile(request, tmp_path):
    hostile = Hostile(tmp_path, request.param)
    yield hostile
    hostile.close()


def assert_ours(path, mode):
    status = path.lstat()
    assert stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == mode
    assert status.st_uid == os.getuid() and status.st_nlink == 1


def test_in_place_of_our_files(stack, hostile):
    """All at once, so that each has to be got over: the state on the volume, the pair, and run_dir."""
    run_dir = stack.folder["run_dir"]
    # Root alone can put a folder into run_dir, and is told that it is in the way.
    names = () if hostile.kind == "folder" else RUN
    for name in STATE:
        hostile.put(stack.state / name)
    stack.state.chmod(0o777)
    os.chown(stack.state, 4711, 4712)
    hostile.put(stack.chain_file)
    hostile.put(stack.key_file)
    stack.alter_image = lambda: [hostile.put(run_dir / name) for name in names]
    stack.start()
    leaf = stack.wait_for_https()
    wait_until(lambda: stack.status().get("certificate"), "the status says what is served")
    hostile.check(stack)
    assert stat.S_IMODE(stack.state.stat().st_mode) == 0o700
    assert stack.state.stat().st_uid == os.getuid()
    assert_ours(stack.chain_file, 0o644)
    assert_ours(stack.key_file, 0o600)
    assert_ours(run_dir / "ekm.secret", 0o600)
    assert stack.agent.measured() == [pki.sha256(leaf)]
    # Nothing but a socket is removed for the control socket.
    if hostile.kind == "socket" or not names:
        assert stat.S_ISSOCK((run_dir / "control.sock").lstat().st_mode)
    else:
        stack.log.wait_for("control.sock is there, and is no socket")


@pytest.fixture(name="stored", scope="module")
def fixture_stored(request, ca):
    """A container that has served, and has stopped."""
    with Stack(ca) as stack:
        logs_of(request.node)["a container that is started again"] = stack.log
        serve(stack)
        stack.stop()
        yield stack


@pytest.mark.parametrize(("mode", "user"), [(0o644, 0), (0o666, 0), (0o600, 4711), (0o777, 4711)])
def test_good_key_that_others_could_read_becomes_ours(stored, mode, user):
    former, orders, mark = stored.stored_chain()[0], stored.ledger_outcomes(), stored.log.mark()
    stored.key_file.chmod(mode)
    os.chown(stored.key_file, user, user)
    try:
        assert stored.start().wait_until_settled(mark) == former
        stored.log.wait_for(f"key.pem has mode {mode:04o} and belongs to user {user}, .*ours and 0600")
        assert_ours(stored.key_file, 0o600)
        assert stored.key_file.read_text() == pki.key_pem(stored.tls_key)
    finally:
        stored.stop()
    assert stored.ledger_outcomes() == orders


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*STATE, "rtmr-intent.json"])
def test_in_place_of_one_file_of_the_state_beside_good_ones(stored, tmp_path, name, kind):
    hostile, path = Hostile(tmp_path, kind), stored.state / name
    former, orders = stored.stored_chain()[0], stored.ledger_outcomes()
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    hostile.put(path)
    mark = stored.log.mark()
    try:
        assert stored.start().wait_until_settled(mark) == former == stored.stored_chain()[0]
        hostile.check(stored)
        assert stored.agent.measured() == [pki.sha256(former)]
    finally:
        stored.stop()
        hostile.close()
    assert stored.ledger_outcomes() == orders


def each_with_some(names, kinds, count):
    """Of each name `count` kinds, and of each kind some names."""
    chosen = [(name, kinds[(3 * at + k * 2) % len(kinds)]) for at, name in enumerate(names) for k in range(count)]
    assert {kind for _, kind in chosen} == set(kinds)
    return chosen


@pytest.mark.parametrize(("name", "kind"), each_with_some(RUN, [kind for kind in KINDS if kind != "folder"], 3))
def test_in_place_of_one_file_of_run_dir(stored, tmp_path, name, kind):
    hostile, path = Hostile(tmp_path, kind), stored.folder["run_dir"] / name
    former, mark = stored.stored_chain()[0], stored.log.mark()
    stored.alter_image = lambda: hostile.put(path)
    try:
        assert stored.start().wait_until_settled(mark) == former
        hostile.check(stored)
    finally:
        stored.stop()
        stored.alter_image = lambda: None
        hostile.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
def test_in_place_of_one_file_of_the_pair(stored, tmp_path, name, kind):
    hostile, path, mark = Hostile(tmp_path, kind), stored.tls / name, stored.log.mark()
    hostile.put(path)
    try:
        leaf = stored.start().wait_until_settled(mark)
        hostile.check(stored)
        assert_ours(stored.chain_file, 0o644)
        assert_ours(stored.key_file, 0o600)
        assert stored.stored_chain()[0] == leaf and stored.agent.measured()[-1] == pki.sha256(leaf)
    finally:
        stored.stop()
        hostile.close()


def assert_https_waits_for(stack, ca, hostile, path, says=""):
    """Nothing is ordered until it is no more in the way; the mark of the CA's log from before."""
    mark = ca.log.mark()
    stack.start().wait_for_http()
    stack.log.wait_for(f"ERROR - .*{re.escape(str(path))}{says}")
    hostile.check(stack)
    assert ca.orders(mark) == 0 and stack.served_leaf() is None
    hostile.remove(path)
    return mark


@pytest.mark.parametrize("kind", ["dangling_link", "fifo", "device", "socket", "large", "of_others"])
@pytest.mark.parametrize("name", ["tls", "webroot"])
def test_in_place_of_a_folder_https_waits(stack, ca, tmp_path, name, kind):
    path = stack.tls if name == "tls" else stack.folder[name]
    hostile = Hostile(tmp_path, kind)

    def put():
        shutil.rmtree(path)
        hostile.put(path)

    stack.alter_image = put
    assert_https_waits_for(stack, ca, hostile, path)
    path.mkdir()
    stack.wait_for_https()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("link", "dangling_link", "folder")])
def test_in_place_of_the_site_https_comes_up(stack, tmp_path, kind):
    """Links are followed: sites that are enabled by one are usual, and the folder is root's."""
    hostile = Hostile(tmp_path, kind)
    path = stack.folder["sites"] / "default.conf"
    stack.alter_image = lambda: hostile.put(path)
    stack.start().wait_for_https()
    hostile.check(stack)


@pytest.mark.parametrize("kind", KINDS)
def test_in_place_of_the_ledger_one_order_is_left(stack, tmp_path, kind):
    hostile = Hostile(tmp_path, kind)
    hostile.put(stack.state / "ledger.json")
    stack.start().wait_for_https()
    hostile.check(stack)
    stack.log.wait_for("what a CA allows counts as used up but for one order")
    assert os.path.lexists(stack.state / "ledger.json.damaged")
    assert stack.ledger_outcomes() == ["issued"]


def test_in_place_of_templates_our_own_serve(stack, hostile):
    names = ("base.conf.tmpl", "https.conf.tmpl")
    stack.alter_image = lambda: [hostile.put(stack.folder["templates"] / name) for name in names]
    stack.start().wait_for_https()
    assert stack.https_get("/health").status == 200
    stack.log.wait_for("port 80 is served by our own template")
    hostile.check(stack)


def ask_for_a_reload_of_nginx(stack):
    stack.config.write_text(stack.config.read_text().replace("nginx:", "nginx:\n  hsts_days: 3", 1))
    os.kill(stack.daemon().pid, signal.SIGHUP)
    stack.log.wait_for("with other settings")


def go_on_with_the_pid_of_nginx(stack, timeout=20.0):
    stack.pid_file.write_text(f"{stack.nginx_master().pid}\n")
    header = "strict-transport-security"
    wait_until(lambda: header in stack.https_get("/health").headers, "nginx has been reloaded", timeout)


def test_the_pid_file_cannot_turn_signals_on_others(stack):
    stack.start().wait_for_https()
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        stack.pid_file.write_text(f"{bystander.pid}\n")
        ask_for_a_reload_of_nginx(stack)
        go_on_with_the_pid_of_nginx(stack)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_in_place_of_the_pid_file_nginx_is_waited_for(stack, tmp_path, kind):
    hostile = Hostile(tmp_path, kind)
    leaf = stack.start().wait_for_https()
    hostile.put(stack.pid_file)
    ask_for_a_reload_of_nginx(stack)
    hostile.check(stack)
    hostile.remove(stack.pid_file)
    go_on_with_the_pid_of_nginx(stack, 40.0)
    assert stack.served_leaf() == leaf


def test_a_link_in_the_webroot_shows_no_secret(served):
    """Of whoever may write there, such as a certbot that has been taken over: nginx's workers follow it.

    They are not root, and can read none of it.
    """
    folder = served.folder["webroot"] / ".well-known/acme-challenge"
    secrets = (served.key_file, served.folder["run_dir"] / "ekm.secret", served.state / "account.json")
    os.mkfifo(folder / "shown-fifo")
    names = ["shown-fifo"]
    for path in secrets:
        assert path.exists()
        (folder / f"shown-{path.name}").symlink_to(path)
        names.append(f"shown-{path.name}")
    (folder / "shown-state").symlink_to(served.state)
    for name in (*names, "shown-state/account.json"):
        answer = served.http_get(f"/.well-known/acme-challenge/{name}")
        assert answer.status in (403, 404), name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("link", "folder")])
@pytest.mark.parametrize("name", [".well-known", ".well-known/acme-challenge"])
def test_in_place_of_the_challenge_folder_orders_wait(stack, ca, tmp_path, name, kind):
    """Links to a folder: test_resilience.py."""
    hostile, path = Hostile(tmp_path, kind), stack.folder["webroot"] / name
    stack.alter_image = lambda: hostile.put(path)
    mark = assert_https_waits_for(stack, ca, hostile, path, ".*not a folder")
    stack.wait_for_https()
    assert ca.orders(mark) == 1


@pytest.mark.parametrize("mode", [0o777, 0o700, 0])
def test_challenge_folder_of_others_serves_all_the_same(stack, mode):
    folder = stack.folder["webroot"] / ".well-known/acme-challenge"

    def put():
        folder.mkdir(parents=True)
        for path in (folder, folder.parent):
            os.chown(path, 4711, 4712)
            path.chmod(mode)

    stack.alter_image = put
    stack.start().wait_for_https()


def test_in_place_of_the_settings_file_the_start_is_refused(stack, tmp_path, hostile):
    hostile.folder = tmp_path / "victims"
    hostile.folder.mkdir()
    path = tmp_path / "config.yaml"
    hostile.put(path)
    said = command(stack.prepare(), "run", "--config", path)
    is_read = hostile.kind in ("link", "hard_link", "of_others")
    says = f"{path}:1:1: found a text" if is_read else f"settings file {path}"
    assert said.code == UNUSABLE_SETTING and says in said.out
    assert SECRET_TEXT.split()[-1] not in said.out + said.err
    hostile.check(stack)


@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "folder", "large"])
def test_in_place_of_the_secret_file_of_development_https_waits(new_stack, tmp_path, kind):
    hostile = Hostile(tmp_path / "victims", kind)
    hostile.folder.mkdir()
    path = tmp_path / "ekm"
    hostile.put(path)
    stack = new_stack(variables={"DEV_MODE": "true"}, settings={"ekm.secret_file": path})
    stack.start(with_agent=False).wait_for_http()
    stack.log.wait_for(f"ERROR.*{path}")
    assert stack.served_leaf() is None
    hostile.remove(path)
    path.write_text("a secret of development\n")
    stack.wait_for_https()
