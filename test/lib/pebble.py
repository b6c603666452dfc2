"""Pebble, the ACME test CA, on a loopback address of its own, and the DNS that it asks."""

import datetime
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import pki
from balancer import Balancer
from log import Log
from loopback import POLL_S, LoopbackAddress, is_listening, wait_until
from processes import environment, spawn, stop

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = "pebble"  # the machine's own
NEWER_PROGRAM = REPOSITORY / "build/newer-pebble/pebble"  # with renewal information and profiles

QUARTER = 90 * 24 * 3600


class Pebble:
    """A CA and its DNS, in which every name has the address that point() gave it.

    Challenges are fetched from `http_port`, whatever the address: `http_port_of` another CA for
    those that are to validate the same names. Accounts, orders and the CA's own keys are gone when
    it is stopped.

    `profiles` are names and validities in seconds, in place of one for all; an order that names
    none gets any of them. With `account_keys`, names and base64url texts, new accounts have to be
    bound to one of those (RFC 8555 section 7.3.4). Of 100 nonces `rejected_nonces` are refused,
    which clients have to live with. One that `has_door` can be shut to clients, and opened again.
    `name` is that of its host in the URLs, which only a proxy can resolve. It has as many other roots
    as `alternate_roots`, and a chain to each.
    With `usual_ports` challenges are fetched from port 80 and the DNS answers at port 53, so that a
    container can have it for its own: that needs root. An `address` is closed with it.
    """

    def __init__(
        self,
        validity_s=QUARTER,
        *,
        newer=False,
        profiles=None,
        account_keys=None,
        rejected_nonces=0,
        http_port_of=None,
        has_door=False,
        name=None,
        alternate_roots=0,
        usual_ports=False,
        address=None,
    ):
        self.address = address or LoopbackAddress()
        self.http_port = http_port_of.http_port if http_port_of else self.address.port(80 if usual_ports else 8080)
        self.validity_s, self.profiles = validity_s, profiles or {"default": validity_s}
        self.account_keys, self.rejected_nonces = account_keys or {}, rejected_nonces
        self._program = NEWER_PROGRAM if newer else PROGRAM
        self.log = Log()
        self._ca = self._dns = self._suggestions = None
        self._over = threading.Event()
        self._acme, self._management, self._resolver, self._names = (
            f"{self.address}:{self.address.port(port)}"
            for port in (14000, 15000, 53 if usual_ports else 5053, 8055)
        )
        self._door = Balancer() if has_door else None
        self._front = self._door.address if has_door else self.address
        self._port = int(self._acme.partition(":")[2])
        self.place = (self.address.host, self._port)
        self.name, self.alternate_roots = name, alternate_roots
        self.directory = f"https://{name or self._front}:{self._port}/dir"
        self.folder = Path(tempfile.mkdtemp(prefix="pebble-"))
        self.bundle = self.folder / "front.pem"  # verifies the connection to the CA itself
        self._front_key = self.folder / "front-key.pem"

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()

    def start(self):
        self.folder.chmod(0o755)
        if not self.bundle.exists():
            self._make_front_certificate()
        self._start_dns()
        configuration = self.folder / "pebble.json"
        configuration.write_text(json.dumps({"pebble": self._configuration()}))
        self._ca = spawn(
            [self._program, "-config", configuration, "-dnsserver", self._resolver],
            env=environment(
                PEBBLE_VA_NOSLEEP="1",
                PEBBLE_WFE_NONCEREJECT=str(self.rejected_nonces),
                PEBBLE_AUTHZREUSE="0",
                PEBBLE_ALTERNATE_ROOTS=str(self.alternate_roots),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.log.follow(self._ca.stdout)
        wait_until(lambda: self._is_up(self._acme), "Pebble listens")
        wait_until(lambda: self._is_up(self._management), "Pebble's management listens")
        if self._door and not self._door.is_open(self._port):
            self.open()
        return self

    def stop(self):
        """Only the CA: the DNS keeps its names."""
        if self._ca:
            self.resume()
            stop(self._ca)
            self.log.close()
            self._ca = None

    def close(self):
        """End it and its DNS, however far they have come, and remove what they wrote."""
        self._over.set()
        if self._suggestions:
            self._suggestions.join()
        try:
            self.stop()
        finally:
            if self._dns:
                stop(self._dns)
                self._dns = None
            if self._door:
                self._door.close()
            self.address.close()
            shutil.rmtree(self.folder)

    # What a test does to it, and sees of it.

    def point(self, domain, address):
        """From now on the CA resolves this name to this address alone."""
        self._tell_dns("clear-a", host=domain)
        self._tell_dns("add-a", host=domain, addresses=[str(address)])

    def shut(self):
        """Nobody can connect, until open(); unlike after stop(), nothing is forgotten."""
        self._door.refuse(self._port)

    def open(self):
        self._door.serve(self._port, [(self.address.host, self._port)])

    def pause(self):
        """It takes connections and says nothing, until resume()."""
        os.kill(self._ca.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self._ca.pid, signal.SIGCONT)

    def add_caa(self, domain, tag, value):
        """One more CAA record, which only those see who ask the DNS: the CA itself does not."""
        self._tell_dns("add-caa", host=domain, policies=[{"tag": tag, "value": value}])

    def answer_challenge(self, domain, text):
        """One more record for DNS-01 challenges of the name."""
        self._tell_dns("set-txt", host=f"_acme-challenge.{domain}.", value=text)

    def break_dns(self, domain):
        """Look-ups of the name fail (SERVFAIL), until mend_dns()."""
        self._tell_dns("set-servfail", host=domain)

    def mend_dns(self, domain):
        self._tell_dns("clear-servfail", host=domain)

    def suggest_renewal(self, leaf, start, end):
        """From now on the renewal information of this leaf has this window, aware datetimes."""
        window = {"start": start.isoformat(), "end": end.isoformat()}
        self.answer_renewal_info(leaf, json.dumps({"suggestedWindow": window}))

    def hurry(self, after_s):
        """From now on it suggests to renew each new leaf that long after it was issued."""
        self._suggestions = threading.Thread(target=self._suggest, args=(after_s,), daemon=True)
        self._suggestions.start()

    def answer_renewal_info(self, leaf, text):
        """From now on the renewal information of this leaf is this text."""
        certificate = leaf.public_bytes(Encoding.PEM).decode()
        self._call("/set-renewal-info/", {"Certificate": certificate, "ARIResponse": text})

    def root(self, number=0):
        """A root that this start of the CA made, in PEM."""
        return self._call(f"/roots/{number}")

    def status_of(self, leaf):
        """What it has in its books: "Valid" or "Revoked", and the number of the reason."""
        found = json.loads(self._call(f"/cert-status-by-serial/{leaf.serial_number:x}"))
        return found["Status"], found.get("Reason", 0)

    def orders(self, since=0):
        """How many orders have been made; `since` is a log.mark()."""
        return len(self.log.find_all(r'Added order "', since))

    def issued(self, since=0):
        return len(self.log.find_all(r"Issued certificate serial", since))

    def accounts(self, since=0):
        """How many accounts have been made: calls of newAccount for a known key do not count."""
        return len(self.log.find_all(r"There are now \d+ accounts in memory", since))

    def renewal_info_calls(self, since=0):
        return len(self.log.find_all(r"GET /\S*renewalInfo/", since))

    def account_calls(self, since=0):
        return len(self.log.find_all(r"POST /sign-me-up", since))

    # How it runs.

    def _suggest(self, after_s):
        known = self.issued()
        while not self._over.wait(POLL_S):
            serials = [found[1] for found in self.log.find_all(r"Issued certificate serial (\w+)")]
            for serial in serials[known:]:
                text = json.loads(self._call(f"/cert-status-by-serial/{serial}"))["Certificate"]
                leaf = x509.load_pem_x509_certificate(text.encode())
                start = pki.begins(leaf) + datetime.timedelta(seconds=after_s)
                self.suggest_renewal(leaf, start, start + datetime.timedelta(seconds=1))
            known = len(serials)

    def _configuration(self):
        # Releases read the parts that they know: the validity is a setting of its own before
        # profiles, which newer releases have instead.
        return {
            "listenAddress": self._acme,
            "managementListenAddress": self._management,
            "certificate": str(self.bundle),
            "privateKey": str(self._front_key),
            "httpPort": self.http_port,
            "tlsPort": self.address.port(8443),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": bool(self.account_keys),
            "externalAccountMACKeys": self.account_keys,
            "keyAlgorithm": "ecdsa",
            "retryAfter": {"authz": 1, "order": 1},
            "certificateValidityPeriod": self.validity_s,
            "profiles": {
                name: {"description": name, "validityPeriod": validity_s}
                for name, validity_s in self.profiles.items()
            },
        }

    def _make_front_certificate(self):
        names = [f"IP:{self._front}"] + ([f"DNS:{self.name}"] if self.name else [])
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650"
        subprocess.run(
            [*command.split(), "-subj", "/CN=Pebble", "-addext"]
            + [f"subjectAltName={','.join(names)}", "-keyout", self._front_key]
            + ["-out", self.bundle],
            env=environment(),
            check=True,
            capture_output=True,
        )
        self.bundle.chmod(0o644)

    def _start_dns(self):
        if self._dns:
            return
        nowhere = {"-http01": "", "-https01": "", "-tlsalpn01": ""}
        unknown = {"-defaultIPv4": "", "-defaultIPv6": ""}
        options = {"-dns01": self._resolver, "-management": self._names} | nowhere | unknown
        self._dns = spawn(
            ["pebble-challtestsrv", *(word for pair in options.items() for word in pair)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Its UDP and TCP sockets for look-ups open together.
        for place in (self._names, self._resolver):
            wait_until(lambda place=place: self._is_up(place), f"the DNS listens on {place}")

    def _is_up(self, place):
        for process in filter(None, (self._ca, self._dns)):
            assert process.poll() is None, f"{process.args} ended:\n{self.log.text()}"
        host, port = place.split(":")
        return is_listening(host, int(port))

    def _tell_dns(self, command, **arguments):
        url = f"http://{self._names}/{command}"
        _open(url, data=json.dumps(arguments).encode())

    def _call(self, path, arguments=None):
        context = ssl.create_default_context(cafile=self.bundle)
        context.check_hostname = not self._door  # the certificate is for the door
        data = None if arguments is None else json.dumps(arguments).encode()
        return _open(f"https://{self._management}{path}", data, context).decode()


def _open(url, data=None, context=None):
    handlers = [urllib.request.ProxyHandler({})]
    if context:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    with urllib.request.build_opener(*handlers).open(url, data, timeout=10) as answer:
        return answer.read()
