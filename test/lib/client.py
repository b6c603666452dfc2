"""A client that connects to an address of its own choice, under any name."""

import http.client
import socket
import ssl
from typing import NamedTuple

from cryptography import x509

TIMEOUT_S = 10


class Answer(NamedTuple):
    status: int
    headers: dict  # names in lower case
    body: str


def get(place, path, host, tls=None, method="GET", headers=()):
    """One request on a connection of its own to `place`, an address and a port."""
    connection = http.client.HTTPConnection(*place, timeout=TIMEOUT_S)
    try:
        connection.sock = socket.create_connection(place, TIMEOUT_S)
        if tls:
            name = host.partition(":")[0]
            connection.sock = tls.wrap_socket(connection.sock, server_hostname=name)
        connection.request(method, path, headers={"Host": host} | dict(headers))
        answer = connection.getresponse()
        lowered = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, lowered, answer.read().decode())
    finally:
        connection.close()


def trusting(root_pem):
    """TLS that verifies chain and name against one root."""
    context = ssl.create_default_context(cadata=root_pem)
    # What servers here send is not required to be a strict RFC 5280 profile.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context


def leaf(place, name):
    """The leaf of one handshake, unverified, or None when there is no TLS to be had."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(place, TIMEOUT_S) as plain:
            with context.wrap_socket(plain, server_hostname=name) as secured:
                return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True))
    except (ConnectionError, ssl.SSLError):
        return None
