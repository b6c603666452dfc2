"""What the holder of an ACME account can do with it, and the program never does."""

import base64
import json
import ssl
import urllib.request

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils


def deactivate_account(directory, bundle, key, url):
    """RFC 8555 section 7.3.6."""
    context = ssl.create_default_context(cafile=bundle)
    new_nonce = json.loads(_call(context, directory).read())["newNonce"]
    nonce = _call(context, new_nonce, method="HEAD").headers["Replay-Nonce"]
    header = {"alg": "ES256", "kid": url, "nonce": nonce, "url": url}
    signed = f"{_encoded(header)}.{_encoded({'status': 'deactivated'})}"
    r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    protected, payload = signed.split(".")
    signature = _base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    body = {"protected": protected, "payload": payload, "signature": signature}
    answer = _call(context, url, data=json.dumps(body).encode())
    assert json.loads(answer.read())["status"] == "deactivated"


def _call(context, url, **options):
    request = urllib.request.Request(url, **options)
    request.add_header("Content-Type", "application/jose+json")
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    return urllib.request.build_opener(*handlers).open(request, timeout=10)


def _encoded(thing):
    return _base64url(json.dumps(thing).encode())


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
