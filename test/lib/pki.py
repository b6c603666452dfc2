"""Keys as the guest agent derives them, certificates of our own making, and reading both."""

import base64
import datetime
import hashlib
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER
DAY = datetime.timedelta(days=1)
MINUTE = datetime.timedelta(minutes=1)
# Known to everybody: 32 bytes of 1.
DEVELOPMENT_KEY = ec.derive_private_key(int.from_bytes(b"\1" * 32, "big"), ec.SECP256R1())


def derived_material(seed, path):
    """What the simulated agent answers to GetKey."""
    return hashlib.sha256((seed + path).encode()).digest()


def derived_key(seed, path):
    return private_key(derived_material(seed, path))


def private_key(material):
    """The key that 32 bytes are."""
    return ec.derive_private_key(int.from_bytes(material, "big"), ec.SECP256R1())


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key):
    return key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def certificate_pem(*certificates):
    return "".join(certificate.public_bytes(PEM).decode() for certificate in certificates)


def read_chain(pem):
    """The certificates of a PEM text, in their order."""
    end = "-----END CERTIFICATE-----\n"
    return [x509.load_pem_x509_certificate((part + end).encode()) for part in pem.split(end)[:-1]]


def sha256(certificate):
    """As the event's payload has it: lowercase hex of the SHA-256 of the DER."""
    return hashlib.sha256(certificate.public_bytes(DER)).hexdigest()


def same_key(certificate_or_key, key):
    return _public(certificate_or_key) == _public(key)


def _public(thing):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return thing.public_key().public_bytes(DER, form)


def names(certificate):
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.DNSName)


def issuer_name(certificate):
    return certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


def begins(certificate):
    if hasattr(certificate, "not_valid_before_utc"):  # cryptography 42 and later
        return certificate.not_valid_before_utc
    return certificate.not_valid_before.replace(tzinfo=datetime.timezone.utc)


def expires(certificate):
    if hasattr(certificate, "not_valid_after_utc"):  # cryptography 42 and later
        return certificate.not_valid_after_utc
    return certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)


def name_of(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Authority:
    """A CA in memory that signs whatever a test wants to find on a volume."""

    def __init__(self, common_name="Test Authority"):
        self.key, self.name = new_key(), name_of(common_name)
        self.certificate = self._sign(self.name, self.key, -DAY, 365 * DAY, is_authority=True)

    def issue(self, domain, key, *, more=(), start=-DAY, life=90 * DAY, names_issuer=False):
        """A chain for `domain` and more names, leaf first, in PEM; `start` is relative to now.

        One that names its issuer's key may be asked about at a CA (RFC 9773).
        """
        names = [domain, *more]
        leaf = self._sign(
            name_of(domain), key, start, life, domains=names, names_issuer=names_issuer
        )
        return certificate_pem(leaf, self.certificate)

    def _sign(
        self, subject, key, start, life, *, domains=(), is_authority=False, names_issuer=False
    ):
        now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start)
            .not_valid_after(now + start + life)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if domains:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in domains])
            builder = builder.add_extension(alternatives, critical=False)
        if names_issuer:
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
            builder = builder.add_extension(issuer, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def self_signed(domain, key, life=90 * DAY):
    """A certificate in PEM that is its own issuer."""
    authority = Authority.__new__(Authority)
    authority.key, authority.name = key, name_of(domain)
    return certificate_pem(authority._sign(name_of(domain), key, -DAY, life, domains=[domain]))


def thumbprint(key):
    """RFC 7638."""
    point = key.public_key().public_numbers()
    x, y = (_base64url(number.to_bytes(32, "big")) for number in (point.x, point.y))
    jwk = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    return _base64url(hashlib.sha256(json.dumps(jwk, separators=(",", ":")).encode()).digest())


def _base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def traces(material):
    """How 32 secret bytes would look wherever they must not be, each as text."""
    number = int.from_bytes(material, "big")
    found = {material.hex(), material.hex().upper()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found.add(encode(material).decode().rstrip("="))
    if number > 0:
        # The first two lines of the body: the third has nothing but the public key.
        found |= set(key_pem(ec.derive_private_key(number, ec.SECP256R1())).splitlines()[1:3])
    return found
