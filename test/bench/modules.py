"""What the nginx modules cost.

- instructions per request, counted by callgrind, hence the same on every machine and at every load:
  a plain `return 200`, the same with a constant header as long as the channel binding, and with
  $ekm_channel_binding, once the connection has its value
- what the first request of a connection costs more, and how much of it is the exporter's own
- requests per second and CPU of the worker, in paired rounds, the constant header against itself
  as the control: one worker on one core, the load generator on another
- instructions per handshake with a live chain and without
"""

import os
import re
import socket
import ssl
import statistics
import subprocess
from pathlib import Path

import pki
from bare_nginx import BareNginx
from loopback import is_listening, wait_until

MODULES = ["ngx_http_ekm_module", "ngx_http_live_chain_module"]
CONNECTIONS = 32
ROUNDS, SECONDS = 24, 1  # of load, four times a round

SERVER = """
    ssl_certificate FOLDER/cert.pem;
    ssl_certificate_key FOLDER/key.pem;
    ssl_protocols TLSv1.3;
    ssl_session_tickets off;
    keepalive_requests 1000000000;
    ekm_secret_file FOLDER/secret;
    LIVE
    server {
        listen LISTEN ssl;
        location = /plain { return 200; }
        location = /constant { add_header X-TLS-EKM-Channel-Binding CONSTANT; return 200; }
        location = /binding { add_header X-TLS-EKM-Channel-Binding $ekm_channel_binding; return 200; }
    }
""".replace("CONSTANT", "0" * 64 + ":" + "0" * 64)


class Nginx(BareNginx):
    def __init__(self, *, live=False, **options):
        super().__init__(MODULES, **options)
        key = pki.new_key()
        for name, text in (
            ("cert.pem", pki.Authority().issue("a.test", key)),
            ("live.pem", pki.Authority().issue("a.test", key)),
            ("key.pem", pki.key_pem(key)),
            ("secret", "0" * 64),
        ):
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o644 if name in ("cert.pem", "live.pem") else 0o600)
        self.text = SERVER.replace("LIVE", "live_chain FOLDER/live.pem;" if live else "")


class Connection:
    def __init__(self, place):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(socket.create_connection(place, 60), server_hostname="a.test")

    def get(self, path):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            data = self.socket.recv(4096)
            assert data, "the server closed the connection"
            answer += data
        assert answer.startswith(b"HTTP/1.1 200"), answer

    def close(self):
        self.socket.close()


def instructions(connections, requests, path, *, live=False, within=None):
    """All that one nginx executes while it answers, or what is executed within one function."""
    with Nginx(live=live, workers=0) as nginx:
        counts = nginx.folder / "counts"
        nginx.under = ["valgrind", "--vgdb=no", "--tool=callgrind", f"--callgrind-out-file={counts}"]
        nginx.under += [f"--toggle-collect={within}"] if within else []
        nginx.start(nginx.text, "master_process off;", inherit=False)
        wait_until(lambda: is_listening(*nginx.place), "nginx listens", 60)
        for _ in range(connections):
            connection = Connection(nginx.place)
            for _ in range(requests):
                connection.get(path)
            connection.close()
        nginx.stop()
        return int(re.search(r"^(?:summary|totals): (\d+)", counts.read_text(), re.MULTILINE)[1])


def per_request(path):
    few, many = 100, 1100
    return (instructions(1, many, path) - instructions(1, few, path)) / (many - few)


def per_handshake(live):
    few, many = 10, 110
    counts = [instructions(n, 1, "/plain", live=live) for n in (few, many)]
    return (counts[1] - counts[0]) / (many - few)


def first_request():
    """What the variable executes for the first request of a connection, and its exporter in it."""
    count = 20
    return [
        instructions(count, 1, "/binding", within=name) / count
        for name in ("ngx_http_ekm_variable", "SSL_export_keying_material")
    ]


class Load:
    """One worker on one core, wrk on another."""

    def __init__(self, nginx):
        self.nginx = nginx
        self.cores = sorted(os.sched_getaffinity(0))[:2]
        (self.worker,) = nginx.workers()
        os.sched_setaffinity(self.worker, {self.cores[0]})

    def run(self, path, seconds):
        """Requests per second, and nanoseconds of the worker's CPU per request."""
        before = self.cpu_ns()
        command = ["taskset", "-c", self.cores[-1], "wrk", "-t", 1, "-c", CONNECTIONS, "-d", f"{seconds}s"]
        command.append(f"https://127.0.0.1:{self.nginx.port}{path}")
        shown = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout
        assert "Non-2xx" not in shown and "Socket errors" not in shown, shown
        requests = int(re.search(r"(\d+) requests in", shown)[1])
        return float(re.search(r"Requests/sec:\s+([\d.]+)", shown)[1]), (self.cpu_ns() - before) / requests

    def cpu_ns(self):
        return int(Path(f"/proc/{self.worker}/schedstat").read_text().split()[0])


def rounds(count, seconds):
    """For each round the results by name; `control` is the constant header again."""
    paths = {"plain": "/plain", "constant": "/constant", "binding": "/binding", "control": "/constant"}
    found = []
    with Nginx(workers=1) as nginx:
        load = Load(nginx.start(nginx.text))
        load.run("/plain", 1)
        for number in range(count):
            # Each has every place in the order, so that a drift favours none.
            names = list(paths)
            names = names[number % 4 :] + names[: number % 4]
            names = names[::-1] if number % 8 >= 4 else names
            found.append({name: load.run(paths[name], seconds) for name in names})
    return found


def measure_requests(figures):
    by_request = {path: per_request(f"/{path}") for path in ("plain", "constant", "binding")}
    plain, constant, binding = by_request.values()
    figures.add("instructions of a request, plain", plain)
    figures.add("  with a constant header", constant)
    figures.add("  with the channel binding", binding, limit=constant)
    figures.add("  binding to constant", binding / constant, most=1.05, limit=1.0)
    return constant


def measure_rates(figures):
    """Nanoseconds of the worker for a request with a constant header."""
    runs = rounds(figures.some(ROUNDS), SECONDS)

    def ratios(name):
        return [run[name][0] / run["constant"][0] for run in runs]

    figures.add("requests, with a constant header", [run["constant"][0] for run in runs], "per s")
    figures.add("  binding to constant", ratios("binding"), "", least=0.97, limit=1.0)
    figures.add("  constant to itself, as the control", ratios("control"))
    return statistics.median(run["constant"][1] for run in runs)


def measure(figures):
    figures.part("the nginx modules")
    instructions_of_request = measure_requests(figures)
    ns = measure_rates(figures) / instructions_of_request  # of an instruction of this worker
    variable, exporter = first_request()
    figures.add("first request of a connection, the exporter", exporter * ns / 1000, "us")
    figures.add("  beside it", (variable - exporter) * ns / 1000, "us", most=5, limit=0.0)
    off, on = per_handshake(False), per_handshake(True)
    figures.add("instructions of a handshake", off)
    figures.add("  with a live chain", on, limit=off)
    figures.add("  with to without", on / off, "", most=1.01, limit=1.0)
