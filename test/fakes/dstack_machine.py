"""The machine behind the simulated guest agent: keys, registers, event log, and its answers.

What a client can observe is real: keys depend only on seed, epoch and path, and RTMR3 is the hash
chain over the logged events. What only hardware could give (signatures, the quote's certification)
is deterministic filler.
"""

import functools
import hashlib
import json
import os
import re

RUNTIME_EVENT = 0x08000001  # event type of everything dstack itself puts into RTMR3
DIGESTS = {"v1": 1, "v2": 2}  # forms of the digest of such an event, and their number in the log
ALGORITHMS = ("", "secp256k1", "k256", "ed25519")
EMIT_EVENT_REMOVED = "EmitEvent was removed: RTMR3 belongs to the system, apps cannot extend it"

# Measurements by firmware and kernel: register, TCG event type, name, payload.
FIRMWARE_EVENTS = (
    (0, 0x80000001, "", b"SecureBoot"),
    (0, 10, "acpi-tables", b"ACPI DATA"),
    (0, 4, "", bytes(4)),
    (1, 0x80000003, "", b"kernel"),
    (2, 13, "", b"console=ttyS0"),
)
# What dstack puts into RTMR3 while it boots: name, and the Machine attribute that is the payload.
SYSTEM_EVENTS = (
    ("system-preparing", None),
    ("app-id", "app_id"),
    ("compose-hash", "compose_hash"),
    ("instance-id", "instance_id"),
    ("boot-mr-done", None),
    ("os-image-hash", "os_image_hash"),
    ("system-ready", None),
)


class Refused(Exception):
    """The agent answers with this HTTP status and {"error": text}."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def event_preimage(name, payload, digests="v1"):
    """The bytes whose SHA-384 is the digest of a runtime event; v2 is canonical JSON (RFC 8785)."""
    if digests == "v1":
        return RUNTIME_EVENT.to_bytes(4, "little") + b":" + name.encode() + b":" + payload
    members = {"name": name, "payload": payload.hex(), "type": RUNTIME_EVENT}
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


def event_digest(name, payload, digests="v1"):
    return hashlib.sha384(event_preimage(name, payload, digests)).digest()


def extend(register, digest):
    return hashlib.sha384(register + digest).digest()


def replay(event_log, imr=3):
    """The value that a verifier computes for a register from the digests in the log."""
    digests = (bytes.fromhex(entry["digest"]) for entry in event_log if entry["imr"] == imr)
    return functools.reduce(extend, digests, bytes(48))


def parse_text(request, member, default=None):
    text = request.get(member, default)
    if not isinstance(text, str):
        raise Refused(400, f"{member}: expected a string")
    return text


def parse_hex(request, member):
    """A bytes member as the agent reads it: hex of either case, an 0x in front is ignored."""
    match = re.fullmatch("(?:0x)?((?:[0-9a-fA-F]{2})*)", parse_text(request, member))
    if not match:
        raise Refused(400, f"{member}: expected hexadecimal digits in pairs")
    return bytes.fromhex(match[1])


class Machine:
    """A confidential virtual machine. With a state file its boot outlives the agent's process."""

    def __init__(self, seed, app_name, *, version, event_digests, key_epoch="", state_file=None):
        self.seed, self.key_epoch, self.state_file = seed, key_epoch, state_file
        self.install(version, event_digests)
        self.app_name = app_name
        self.app_compose = json.dumps({"manifest_version": 2, "name": app_name})
        self.compose_hash = hashlib.sha256(self.app_compose.encode()).digest()
        self.app_id = self.filler("app-id", 20)
        self.instance_id = self.filler("instance-id", 20)
        self.device_id = self.filler("device-id", 32)
        self.os_image_hash = self.filler("os-image-hash", 32)
        self.mrtd = self.filler("mrtd", 48)
        if state_file and os.path.exists(state_file):
            self.load()
        else:
            self.boot()

    def install(self, version=None, event_digests=None):
        """Become another release of dstack, or one with the other kind of event digests."""
        if version is not None:
            self.version, self.release = version, tuple(int(part) for part in version.split("."))
        if event_digests is not None:
            self.event_digests, self.log_version = event_digests, DIGESTS[event_digests]

    def filler(self, label, size):
        """Bytes that only have to look right, the same for the same seed."""
        return hashlib.shake_256(f"{self.seed}|{label}".encode()).digest(size)

    def boot(self):
        self.rtmr, self.event_log = [bytes(48)] * 4, []
        for imr, event_type, name, payload in FIRMWARE_EVENTS:
            self.measure(imr, event_type, name, payload, hashlib.sha384(payload).digest())
        for name, attribute in SYSTEM_EVENTS:
            self.emit(name, getattr(self, attribute) if attribute else b"")

    def emit(self, name, payload):
        digest, extra = event_digest(name, payload, self.event_digests), {}
        if self.log_version > 1:
            preimage = event_preimage(name, payload, self.event_digests)
            extra = {"version": self.log_version, "preimage": preimage.hex()}
        self.measure(3, RUNTIME_EVENT, name, payload, digest, **extra)

    def measure(self, imr, event_type, name, payload, digest, **extra):
        self.rtmr[imr] = extend(self.rtmr[imr], digest)
        entry = {"imr": imr, "event_type": event_type, "digest": digest.hex(), "event": name}
        self.event_log.append(entry | {"event_payload": payload.hex()} | extra)
        self.save()

    def save(self):
        if not self.state_file:
            return
        rtmr = [register.hex() for register in self.rtmr]
        state = {"key_epoch": self.key_epoch, "rtmr": rtmr, "event_log": self.event_log}
        with open(f"{self.state_file}.new", "w", encoding="utf-8") as file:
            json.dump(state, file)
        os.replace(f"{self.state_file}.new", self.state_file)

    def load(self):
        with open(self.state_file, encoding="utf-8") as file:
            state = json.load(file)
        self.key_epoch, self.event_log = state["key_epoch"], state["event_log"]
        self.rtmr = [bytes.fromhex(register) for register in state["rtmr"]]

    # Methods of the agent: a request in, an answer out, or Refused.

    def get_key(self, request):
        path, purpose = parse_text(request, "path"), parse_text(request, "purpose", "")
        if parse_text(request, "algorithm", "") not in ALGORITHMS:
            raise Refused(400, "algorithm: expected secp256k1, k256 or ed25519")
        key = hashlib.sha256((self.seed + self.key_epoch + path).encode()).hexdigest()
        links = (f"{purpose}:{key}", "kms")  # as long as the real ones: r, s, one byte recovery id
        signatures = [self.filler(link, 64).hex() + "01" for link in links]
        return {"key": key, "signature_chain": signatures}

    def emit_event(self, request):
        if self.release >= (0, 6):
            raise Refused(400, EMIT_EVENT_REMOVED)
        self.emit(parse_text(request, "event"), parse_hex(request, "payload"))
        return {}

    def info(self, _request):
        hashes = {
            "device_id": self.device_id.hex(),
            "os_image_hash": self.os_image_hash.hex(),
            "compose_hash": self.compose_hash.hex(),
            "mr_aggregated": hashlib.sha256(self.mrtd + b"".join(self.rtmr)).hexdigest(),
        }
        registers = {f"rtmr{imr}": register.hex() for imr, register in enumerate(self.rtmr)}
        tcb_info = {"mrtd": self.mrtd.hex()} | registers | hashes
        tcb_info |= {"event_log": self.event_log, "app_compose": self.app_compose}
        return hashes | {
            "app_id": self.app_id.hex(),
            "instance_id": self.instance_id.hex(),
            "app_name": self.app_name,
            "app_cert": "",
            "key_provider_info": json.dumps({"name": "simulator", "id": ""}),
            "tcb_info": json.dumps(tcb_info, indent=2),
            "vm_config": self.vm_config(),
        }

    def get_quote(self, request):
        """Header and TD report at the offsets of a version 4 TDX quote, without a signature."""
        report_data = parse_hex(request, "report_data")
        if len(report_data) > 64:
            raise Refused(400, f"report_data: {len(report_data)} bytes, at most 64 allowed")
        report_data = report_data.ljust(64, b"\0")
        header = bytes.fromhex("0400020081000000").ljust(48, b"\0")
        report = bytes(136) + self.mrtd + bytes(144) + b"".join(self.rtmr) + report_data
        event_log = self.event_log
        if self.release >= (0, 5, 6):  # digests of RTMR3 are left for the verifier to compute
            event_log = [e | {"digest": ""} if e["imr"] == 3 else e for e in event_log]
        return {
            "quote": (header + report).hex(),
            "event_log": json.dumps(event_log),
            "report_data": report_data.hex(),
            "vm_config": self.vm_config(),
        }

    def get_version(self, _request):
        return {"version": self.version, "rev": self.filler("rev", 20).hex()}

    def vm_config(self):
        return json.dumps({"os_image_hash": self.os_image_hash.hex(), "cpu_count": 2})

    def answer(self, method, request):
        """Answer a call by the name it has on the wire."""
        if self.release >= (0, 6):
            method = method.removeprefix("v0/")
        handler, since = METHODS.get(method, (None, ()))
        if handler is None or self.release < since:
            raise Refused(404, f"Service not found: {method}")
        return handler(self, request)


# Name on the wire: what answers, and the first release that has it.
METHODS = {
    "GetKey": (Machine.get_key, (0, 3)),
    "GetQuote": (Machine.get_quote, (0, 3)),
    "Info": (Machine.info, (0, 3)),
    "EmitEvent": (Machine.emit_event, (0, 5)),
    "Version": (Machine.get_version, (0, 5, 7)),
}
