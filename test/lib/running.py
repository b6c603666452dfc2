"""What tests see of a container that runs, whether it is made of an image or laid out in a folder."""

import json
import re

import client
import pki
from loopback import is_listening, wait_until
from processes import all_processes, descendants

# What must never be in a log: crashes, findings of sanitizers, and nginx in trouble.
TROUBLE = re.compile(
    r"AddressSanitizer|LeakSanitizer|runtime error:|Assertion .* failed|exited on signal"
    r"|^\[nginx\] .*\[(alert|emerg)\]|; not expected\)|Traceback"
)

SETTLED = r"HTTPS serves .*: issuer "


class Running:
    """To be told by what it is mixed into: `domain`, `seed` of the agent, `variables`, `ca`, `log`;
    `http` and `https`, an address and a port each; `pid` of its first process and `is_running`;
    folders `tls` and `run_dir`, as this machine reaches them.
    """

    expected_trouble = None  # pattern of lines that a test brings about itself

    # How it looks from outside.

    def http_get(self, path="/", host=None, **options):
        return client.get(self.http, path, host or self.domain, **options)

    def https_get(self, path="/", host=None, *, root=None, **options):
        """Chain and name are verified, against the CA's root unless another one is given."""
        tls = client.trusting(root or self.ca.root())
        return client.get(self.https, path, host or self.domain, tls, **options)

    def served_leaf(self):
        """The leaf that a client gets now, or None while there is no HTTPS."""
        return client.leaf(self.https, self.domain)

    def wait_for_http(self, timeout=20.0):
        wait_until(lambda: is_listening(*self.http), f"{self.http} listens", timeout)

    def wait_for_https(self, timeout=40.0):
        """The leaf, as soon as one is served."""

        def look():
            assert self.is_running, "the container has ended"
            return self.served_leaf()

        return wait_until(look, f"{self.https} serves a certificate", timeout)

    def wait_until_settled(self, since=0, timeout=40.0):
        """The leaf, as soon as one is served and nothing of that is left to be done: the log and the
        status name it too, and port 80 redirects."""
        leaf = self.wait_for_https(timeout)
        self.log.wait_for(SETTLED, timeout, since)
        wait_until(lambda: self.http_get().status == 301, "HTTP redirects")
        wait_until(lambda: self.status().get("certificate"), "the status names the certificate")
        return leaf

    def wait_for_leaf(self, accepted, what, timeout=40.0):
        """The leaf, as soon as one is served that is accepted."""

        def look():
            leaf = self.served_leaf()
            return leaf if leaf is not None and accepted(leaf) else None

        return wait_until(look, what, timeout)

    # Its programs.

    def processes(self):
        return descendants(self.pid) if self.is_running else []

    def session(self):
        """All of its processes: also supervisord itself, and those whose parent has ended."""
        below = self.processes()
        known = {process.pid for process in below}
        return below + [one for one in all_processes() if one.session == self.pid and one.pid not in known]

    def find_process(self, pattern):
        """The first process whose command line matches, or None."""
        return next((one for one in self.processes() if re.search(pattern, one.line)), None)

    def nginx_master(self):
        return self.find_process("^nginx: master")

    def nginx_workers(self):
        return [one for one in self.processes() if one.line.startswith("nginx: worker process")]

    def daemon(self):
        return self.find_process(r"/cert-manager run\b")

    def certbot(self):
        return self.find_process(r"certbot certonly\b")

    # Its files.

    @property
    def chain_file(self):
        return self.tls / "cert.pem"

    @property
    def key_file(self):
        return self.tls / "key.pem"

    @property
    def state(self):
        return self.tls / ".cert-manager"

    def put(self, name, text, mode=0o644):
        """A file on the volume, as somebody else would leave it."""
        path = self.tls / name
        path.write_bytes(text.encode("latin-1"))
        path.chmod(mode)
        return path

    def put_pair(self, chain, key):
        self.put("cert.pem", chain)
        self.put("key.pem", key if isinstance(key, str) else pki.key_pem(key), 0o600)

    def status(self):
        """What the daemon says about itself; an empty one before it has said anything."""
        try:
            return json.loads((self.run_dir / "status.json").read_text())
        except FileNotFoundError:
            return {}

    def ledger_outcomes(self):
        """What became of each try at a CA, oldest first."""
        ledger = json.loads((self.state / "ledger.json").read_text())
        return [entry["outcome"] for entry in ledger["entries"]]

    def stored_chain(self):
        return pki.read_chain(self.chain_file.read_text())

    def set_aside(self):
        """The pairs that have been moved away, oldest first: name of the file to its bytes."""
        folders = sorted(self.state.glob("set-aside/*"))
        return [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]

    # What it must keep to itself.

    def secrets(self):
        """The key material that the agent derives for it, by what it is for."""
        version = self.variables.get("LETSENCRYPT_ACCOUNT_VERSION", "v1")
        paths = {
            "TLS key": f"cert/letsencrypt/{self.domain}/v1",
            "account key": f"letsencrypt-account/{self.domain}/{version}",
            "EKM secret": "ekm/hmac-key/v1",
        }
        return {use: pki.derived_material(self.seed, path) for use, path in paths.items()}

    @property
    def tls_key(self):
        return pki.derived_key(self.seed, f"cert/letsencrypt/{self.domain}/v1")

    # What it says.

    def assert_no_trouble(self):
        trouble = [line for line in self.log.lines() if TROUBLE.search(line)]
        if self.expected_trouble:
            trouble = [line for line in trouble if not re.search(self.expected_trouble, line)]
        assert not trouble, "in the log:\n" + "\n".join(trouble)
