#!/usr/bin/env python3
"""What stands in for vLLM, the authentication and the attestation service in development.

usage: mock_services.py vllm | auth-service | attestation-service

Nothing but Python's own library, so that it runs in the cert-manager image. Each listens on the
port of the service that it stands for.
"""

import hashlib
import hmac
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "mock"
TOKEN = "Bearer development"
BINDING = "X-TLS-EKM-Channel-Binding"
SECRET = os.environ.get("EKM_SHARED_SECRET") or "dev-mode-ekm-placeholder-not-for-production"


class Service(BaseHTTPRequestHandler):
    """One request after the other on each connection, a thread for each of them."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mock", ""

    @property
    def route(self):
        return self.path.partition("?")[0]

    def answer(self, status, document, content_type="application/json"):
        text = document if isinstance(document, str) else json.dumps(document) + "\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_not_found(self):
        self.answer(404, {"error": f"{self.command} {self.route}: a mock does not know that"})

    def log_message(self, template, *values):
        print(f"{self.address_string()} {template % values}", flush=True)


class Vllm(Service):
    """Repeats what the user said, word by word when a stream is asked for."""

    port = 8000

    def do_GET(self):
        if self.route.startswith("/metrics"):
            self.answer(200, "vllm:num_requests_running 0.0\n", "text/plain")
        elif self.route == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        elif self.route == "/health":
            self.answer(200, "", "text/plain")
        else:
            self.answer_not_found()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.route != "/v1/chat/completions":
            self.answer_not_found()
            return
        try:
            question = json.loads(body)
            said = str(question["messages"][-1]["content"])
        except (ValueError, LookupError, TypeError):
            self.answer(400, {"error": "expected JSON with messages, and content in the last one"})
            return
        if question.get("stream"):
            self._stream(said.split())
        else:
            message = {"role": "assistant", "content": said}
            self.answer(200, self._completion("chat.completion", message=message))

    def _stream(self, words):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in words:
            event = self._completion("chat.completion.chunk", delta={"content": f"{word} "})
            self._write_chunk(f"data: {json.dumps(event)}\n\n")
        self._write_chunk("data: [DONE]\n\n")
        self._write_chunk("")

    def _write_chunk(self, text):
        self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())

    @staticmethod
    def _completion(kind, **choice):
        return {"id": "mock", "object": kind, "model": MODEL, "choices": [{"index": 0} | choice]}


class AuthService(Service):
    """Knows one token."""

    port = 8081

    def do_GET(self):
        if self.route != "/auth":
            self.answer_not_found()
        elif self.headers.get("Authorization") == TOKEN:
            self.answer(200, {})
        else:
            self.answer(401, {"error": f"a mock lets {TOKEN!r} through"})


class AttestationService(Service):
    """No quote, but it says whether the channel binding is nginx's own, as the real one would find out."""

    port = 8080

    def do_GET(self):
        if self.route not in ("/tdx_quote", "/debug/ekm"):
            self.answer_not_found()
            return
        binding = self.headers.get(BINDING, "")
        answer = {"quote": None, "channel_binding": binding, "is_signed_by_nginx": is_signed(binding)}
        self.answer(200, answer)


def is_signed(binding):
    """64 hexadecimal digits of the TLS exporter, and of its HMAC by the secret, a colon between."""
    exporter, _, signature = binding.partition(":")
    try:
        right = hmac.new(SECRET.encode(), bytes.fromhex(exporter), hashlib.sha256).hexdigest()
    except ValueError:
        return False
    return len(exporter) == 64 and hmac.compare_digest(right, signature)


SERVICES = {"vllm": Vllm, "auth-service": AuthService, "attestation-service": AttestationService}


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in SERVICES:
        sys.exit(f"usage: mock_services.py {' | '.join(SERVICES)}")
    service = SERVICES[sys.argv[1]]
    # The first process of a container has no default action: without this it would not end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"{sys.argv[1]} is a mock, at port {service.port}", flush=True)
    ThreadingHTTPServer(("", service.port), service).serve_forever()


if __name__ == "__main__":
    main()
