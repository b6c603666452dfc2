"""ngx_http_ekm_module in a real nginx with many connections: memory, descriptors, and reloads.

test/lib/ekm_clients.c are the clients: they compare each value with the exporter of their connection.
"""

import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from bare_nginx import BUILD
from ekm_nginx import HEADER, OTHER_SECRET, SECRET, Client, binding, ready_nginx, values
from loopback import wait_until

CLIENTS = BUILD / "test/ekm_clients"
CONNECTIONS = 10_000
# A run under valgrind takes a minute or two, and there may be others at the same time.
TIMEOUT_S = 900

ONE_SERVER = """
    SECRET_FILE
    keepalive_requests 100;
    server {
        listen TLS_PORT http2;
        server_name a.test;
        location / { return 200 $ekm_channel_binding; }
    }
"""
SERVERS = (
    ONE_SERVER
    + """
    server {
        listen TLS_PORT http2;
        server_name b.test;
        ekm_secret_file FOLDER/other;
        location / { return 200 $ekm_channel_binding; }
    }
"""
)
OTHERS = """
    map $ekm_channel_binding $mapped { default "mapped $ekm"; "" none; }
    server {
        listen TLS_PORT http2;
        listen PLAIN_PORT;
        server_name c.test;
        location / { proxy_pass BACKEND; BINDING }
        location /none { error_page 404 = @named; return 404; }
        location /protected { auth_request /_auth; proxy_pass BACKEND; BINDING }
        location = /_auth { internal; proxy_pass BACKEND/auth; proxy_pass_request_body off; BINDING }
        location /rewritten { rewrite ^ /target last; }
        location /redirected { error_page 418 = @named; return 418; }
        location @named { proxy_pass BACKEND; BINDING }
        location /mapped { return 200 $mapped; }
    }
"""
NAMES = ["a.test", SECRET, "b.test", OTHER_SECRET]


@pytest.fixture(scope="session", autouse=True)
def fixture_tools():
    assert CLIENTS.is_file(), f"{CLIENTS} is missing: make e2e builds it"
    assert shutil.which("valgrind"), "valgrind is missing"


@contextlib.contextmanager
def clients(nginx, *arguments, pairs):
    """Running, with a pipe as standard input, whose end can end them."""
    command = [CLIENTS, *arguments, nginx.port, *pairs]
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def result(process):
    output, complaints = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, complaints
    found = json.loads(output)
    assert found["failed"] == 0, f"{found}\n{complaints[:2000]}"
    return found


def connect(nginx, count):
    """Full handshakes and resumptions, HTTP/1.1 and HTTP/2, both servers on each connection."""
    with clients(nginx, "-c", count, "-r", 2, "-t", 4, "-2", "-s", pairs=NAMES) as process:
        found = result(process)
    assert found["connections"] == count and found["requests"] == 2 * count
    assert found["signed"] == [count, count]
    assert found["http2"] == count // 2
    assert count // 2 < found["resumed"] <= count * 2 / 3


# Ten thousand connections

IN_USE = re.compile(r"in use at exit: (.* bytes in .* blocks)")
VALGRIND = ["valgrind", "--vgdb=no", "--trace-children=yes", "--num-callers=30"]
VALGRIND += ["--leak-check=full", "--keep-debuginfo=yes"]


def valgrind_log(nginx, pid):
    return (nginx.folder / f"valgrind.{pid}").read_text()


def invalid(text):
    """The records of accesses to memory that is not there or has no value."""
    records = re.split(r"\n==\d+== \n", text)
    return [record for record in records if re.search(r"Invalid (read|write|free)|uninitialised", record)]


def test_ten_thousand_connections_leave_no_block_behind():
    """Whatever a worker still has at its exit, it has as much of it after a few connections.

    So nothing was lost, and nothing was collected. Values that were never set are for the next test:
    to look for them takes a third of the time.
    """
    with ready_nginx(workers=2) as nginx:
        nginx.write("other", OTHER_SECRET)
        nginx.under = [*VALGRIND, "--undef-value-errors=no", f"--log-file={nginx.folder}/valgrind.%p"]
        nginx.start(SERVERS)
        generations = [nginx.workers()]
        connect(nginx, 200)
        nginx.reload()
        generations.append(nginx.workers())
        connect(nginx, CONNECTIONS)
        nginx.stop()
        few, many = ([valgrind_log(nginx, pid) for pid in workers] for workers in generations)
        in_use = [{IN_USE.search(text)[1] for text in texts} for texts in (few, many)]
        assert in_use[0] == in_use[1] and len(in_use[0]) == 1
        for text in few + many:
            assert not invalid(text)
            assert "ekm" not in text.partition("HEAP SUMMARY")[2]


def test_no_invalid_access_and_no_value_that_was_never_set():
    """All that the module does, under valgrind with all that it finds: also without its code in the end."""
    with ready_nginx(workers=1) as nginx:
        nginx.write("other", OTHER_SECRET)
        nginx.under = [*VALGRIND, f"--log-file={nginx.folder}/valgrind.%p"]
        nginx.start(SERVERS + OTHERS)
        pids = {nginx.process.pid}
        for _ in range(2):
            pids.update(nginx.workers())
            connect(nginx, 100)
            with Client(nginx.tls, name="c.test") as client:
                for path in ("/none", "/protected", "/rewritten", "/redirected", "/mapped"):
                    client.answer(path, [(HEADER, "forged"), ("X-Kept", "kept")] * 30, "c.test")
            with Client(nginx.tls, max_version=ssl.TLSVersion.TLSv1_2) as client:
                assert client.text() == ""
            with Client(nginx.plain, tls=False) as client:
                assert not values(client.json("/", [(HEADER, "forged")] * 30, "c.test"))
            nginx.reload()
        pids.update(nginx.workers())
        nginx.modules = []
        nginx.reload("server { listen TLS_PORT; location / { return 200 without; } }")
        pids.update(nginx.workers())
        with Client(nginx.tls) as client:
            assert client.text() == "without"
        nginx.stop()
        assert len(pids) == 5
        for pid in pids:
            text = valgrind_log(nginx, pid)
            assert not invalid(text)
            assert "ekm" not in text.partition("HEAP SUMMARY")[2]


def resident_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_ten_thousand_connections_leave_memory_and_descriptors_as_they_were():
    """What a pool that lives longer than the connection would collect is freed at a worker's exit."""
    with ready_nginx(workers=1) as nginx:
        nginx.write("other", OTHER_SECRET)
        nginx.start(SERVERS)
        (worker,) = nginx.workers()
        with Client(nginx.tls) as client:
            client.text()
            at_rest = descriptors(worker) - 1
        connect(nginx, CONNECTIONS // 5)
        wait_until(lambda: descriptors(worker) == at_rest, "all connections are closed")
        before = resident_kb(worker)
        connect(nginx, CONNECTIONS * 4 // 5)
        wait_until(lambda: descriptors(worker) == at_rest, "all connections are closed")
        assert nginx.workers() == [worker]
        # 32 bytes of each connection would be 250 kB.
        assert resident_kb(worker) - before < 200


# Reloads

RELOADS = 40


def test_reloads_under_load_fail_no_request_and_mix_no_secrets():
    """New connections, busy ones and idle ones, while every second reload brings the other secret."""
    secrets = [SECRET, OTHER_SECRET]
    pairs = ["a.test", SECRET, "a.test", OTHER_SECRET]
    endless = 10**9
    with ready_nginx(workers=2) as nginx, contextlib.ExitStack() as cleanup:
        nginx.start(ONE_SERVER)
        loads = [
            cleanup.enter_context(clients(nginx, *arguments, pairs=pairs))
            for arguments in (
                ["-t", 2, "-2"],
                ["-t", 2, "-2", "-r", endless],
                ["-t", 8, "-2", "-r", endless, "-p", 5],
            )
        ]
        for number in range(1, RELOADS + 1):
            current = secrets[number // 2 % 2]
            nginx.write("secret", current)
            nginx.reload()
            with Client(nginx.tls) as client:
                assert client.text() == binding(client.exporter, current)
        new, busy, idle = map(result, loads)
        for one in (new, busy, idle):
            assert min(one["signed"]) > RELOADS
        for one in (busy, idle):
            assert one["noticed"] + one["crossed"] >= RELOADS
