"""Seeds that are not texts, or hold keys: made when they are needed, into a folder for each target.

    make_seeds.py FOLDER

Certificates are valid at the time that the targets take for now (FUZZ_NOW in support/fuzz.h).
"""

import datetime
import hashlib
import ipaddress
import json
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import pki  # noqa: E402
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402
from cryptography.x509.oid import NameOID  # noqa: E402

NOW = datetime.datetime.fromtimestamp(1795459747, datetime.timezone.utc)
DOMAIN = "app.example.org"
BOUNDARY = b"====\n"


# ---- certificates ----


def certificate(subject, issuer, key, issuer_key, *, names=(), life=90, authority=False):
    day = datetime.timedelta(days=1)
    hash_algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - day)
        .not_valid_after(NOW - day + life * day)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hash_algorithm)


def chains():
    """By name: the certificates, leaf first, and the key of the leaf."""
    key, root_key, middle_key = pki.DEVELOPMENT_KEY, pki.new_key(), pki.new_key()
    root, middle, leaf = (pki.name_of(name) for name in ("Root X1", "(STAGING) Middle", DOMAIN))
    names = [x509.DNSName(DOMAIN), x509.DNSName("*.example.org")]
    root_certificate = certificate(root, root, root_key, root_key, authority=True, life=3650)
    of_middle = certificate(middle, root, middle_key, root_key, authority=True, life=365)
    mixed = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ä\u202e\x1b[31m", _type=None),
            x509.NameAttribute(NameOID.COMMON_NAME, 'quo"te, and\\comma'),
        ]
    )
    rsa_key = rsa.generate_private_key(65537, 2048)
    edwards_key = ed25519.Ed25519PrivateKey.generate()
    wide_key = ec.generate_private_key(ec.SECP384R1())
    more = [
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.RFC822Name("a@example.org"),
        x509.DirectoryName(mixed),
    ]

    def under_root(key, subject=leaf, **options):
        return [certificate(subject, root, key, root_key, **options), root_certificate]

    of_leaf = certificate(leaf, middle, key, middle_key, names=names)
    return {
        "whole": ([of_leaf, of_middle, root_certificate], key),
        "unsorted": ([of_leaf, root_certificate, of_middle], key),
        "short": (under_root(key, names=names), key),
        "expired": (under_root(key, names=names, life=1), key),
        "without-names": (under_root(key), key),
        "rsa": (under_root(rsa_key, names=names), rsa_key),
        "p-384": (under_root(wide_key, names=names), wide_key),
        "self-signed": ([certificate(leaf, leaf, key, key, names=names)], key),
        "odd-names": ([certificate(mixed, mixed, key, key, names=more)], key),
        "ed25519": ([certificate(leaf, leaf, edwards_key, edwards_key, names=names)], edwards_key),
    }


def key_forms(key):
    form, plain = serialization.PrivateFormat, serialization.NoEncryption()
    return {
        "sec1": key.private_bytes(pki.PEM, form.TraditionalOpenSSL, plain),
        "encrypted": key.private_bytes(
            pki.PEM, form.PKCS8, serialization.BestAvailableEncryption(b"x")
        ),
        "public": key.public_key().public_bytes(
            pki.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    }


def request(chain, key):
    body = json.dumps({"fullchain": chain, "key": key, "timeout_s": 60})
    return f"POST /v1/deploy HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


# ---- event logs ----


def event_log(version):
    """One that holds, and names the leaf that the target asks for."""
    leaf = "9b1f6d3a7c5e2840bd917f06e3c2a8547d60fe9128b3ca45f7061e9d8c3b2a10"
    entries, register = [], bytes(48)
    for name, payload in (("app-id", b"\0\1\2"), ("New TLS Certificate", leaf.encode())):
        canonical = {"name": name, "payload": payload.hex(), "type": 0x08000001}
        hashed = {
            1: struct.pack("<I", 0x08000001) + b":" + name.encode() + b":" + payload,
            2: json.dumps(canonical, separators=(",", ":"), sort_keys=True).encode(),
        }[version]
        digest = hashlib.sha384(hashed).digest()
        register = hashlib.sha384(register + digest).digest()
        entry = {"imr": 3, "event_type": 0x08000001, "digest": digest.hex(), "event": name}
        entries.append(entry | {"event_payload": payload.hex(), "version": version})
    return json.dumps({"rtmr3": register.hex(), "event_log": entries}).encode()


# ---- answers of DNS servers ----


def dns_name(name):
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def dns_record(name, kind, data):
    return name + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


def caa(tag, value, flags=0):
    return bytes([flags, len(tag)]) + tag.encode() + value.encode()


def dns_answer(*records, code=0):
    head = struct.pack(">HHHHHH", 1, 0x8180 | code, 1, len(records), 0, 0)
    return head + dns_name(DOMAIN) + struct.pack(">HH", 257, 1) + b"".join(records)


def dns_answers():
    asked = b"\xc0\x0c"  # a pointer to the question's name
    far = dns_name("cdn.example.net")
    method = "letsencrypt.org; validationmethods=http-01; accounturi=https://ca.example/acct/1"
    return {
        "permits": dns_answer(dns_record(asked, 257, caa("issue", "letsencrypt.org"))),
        "forbids": dns_answer(dns_record(asked, 257, caa("issue", ";"))),
        "parameters": dns_answer(dns_record(asked, 257, caa("issue", method))),
        "wildcards": dns_answer(
            dns_record(asked, 257, caa("issuewild", "other.example")),
            dns_record(asked, 257, caa("iodef", "mailto:a@example.org")),
        ),
        "critical": dns_answer(dns_record(asked, 257, caa("tbs", "x", 128))),
        "alias": dns_answer(dns_record(asked, 5, far), dns_record(far, 257, caa("issue", "a"))),
        "alias-alone": dns_answer(dns_record(asked, 5, far)),
        "pointer-loop": dns_answer(dns_record(asked, 5, b"\xc0\x0c")),
        "none": dns_answer(),
        "no-such-name": dns_answer(code=3),
        "server-failure": dns_answer(code=2),
        "many": dns_answer(*[dns_record(asked, 257, caa("issue", "a"))] * 40),
    }


def main(folder):
    files = {("caa", name): message for name, message in dns_answers().items()}
    for name, (certificates, key) in chains().items():
        chain, key_pem = pki.certificate_pem(*certificates), pki.key_pem(key)
        files["chain", name] = b"".join(part.public_bytes(pki.DER) for part in certificates)
        files["pair", name] = chain.encode() + BOUNDARY + key_pem.encode()
        files["control", f"deploy-{name}"] = request(chain, key_pem)
    chain = files["pair", "short"].partition(BOUNDARY)[0]
    for name, key in key_forms(pki.DEVELOPMENT_KEY).items():
        files["pair", f"key-{name}"] = chain + BOUNDARY + key
    for version in 1, 2:
        files["events", f"holds-{version}.json"] = event_log(version)
    for (target, name), content in files.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        (folder / target / name).write_bytes(content)


main(Path(sys.argv[1]))
