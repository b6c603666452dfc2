"""What can go wrong with a call to the guest agent: the fields of a fault, and named faults."""

import string
from dataclasses import dataclass, field

from dstack_machine import EMIT_EVENT_REMOVED
from http_sockets import http_answer

P256_ORDER = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"


@dataclass
class Fault:
    """What goes wrong with which calls; whatever is not mentioned goes right."""

    # Which calls: those of this method ("*": of all), but not the first `skip` of them, and only
    # `times` of them (None: until cleared).
    method: str = "*"
    skip: int = 0
    times: int | None = None

    # When: after a pause, or when the fault is cleared. `perform` says when the call has its
    # effect: "first" (before the pause), "last" (after it) or "never"; unless given, "never" when
    # the answer is replaced and "last" otherwise.
    delay_s: float = 0
    hang: bool = False
    perform: str | None = None

    # The answer replaced: by an HTTP status, with {"error": error} or with a body (text as it is,
    # anything else as JSON); or by bytes that are not HTTP, given as Latin-1 text; or by nothing,
    # the connection just closes.
    status: int | None = None
    error: str | None = None
    body: object = None
    raw: str | None = None
    close: bool = False

    # The answer changed: members set (in a text, $name stands for the right value of a member), and
    # members left out.
    edit: dict = field(default_factory=dict)
    drop: list = field(default_factory=list)

    # Its way over the wire: so many blanks behind the body (JSON stays valid), a pause before each
    # byte of the body, so many bytes missing at the end.
    pad: int = 0
    drip_s: float = 0
    cut: int = 0

    def __post_init__(self):
        if self.status is not None and self.error is None and self.body is None:
            self.error = "simulated failure"
        if self.error is not None and self.status is None:
            self.status = 500
        if self.perform is None:
            replaced = (self.status, self.body, self.raw, self.close or None) != (None,) * 4
            self.perform = "never" if replaced else "last"
        if self.perform not in ("first", "last", "never"):
            raise ValueError(f"perform: {self.perform!r} is none of first, last, never")
        self.cleared = False

    @property
    def ends_connection(self):
        return self.close or self.raw is not None or self.cut > 0

    def shape(self, status, document):
        """The HTTP status, if there is one, and the bytes to send instead of this right answer."""
        if self.close:
            return None, b""
        if self.raw is not None:
            return None, self.raw.encode("latin-1")
        if self.body is not None:
            document = self.body
        elif self.error is not None:
            document = {"error": self.error}
        elif self.edit or self.drop:
            edited = {name: fill_in(value, document) for name, value in self.edit.items()}
            document = {k: v for k, v in (document | edited).items() if k not in self.drop}
        status = status if self.status is None else self.status
        data = http_answer(status, document, self.pad)
        return status, data[: len(data) - self.cut]


def fill_in(value, document):
    return string.Template(value).safe_substitute(document) if isinstance(value, str) else value


NO_FAULT = Fault()

PRESETS = {
    # any method
    "slow": {"delay_s": 1.0},
    "hang": {"hang": True},
    "drip": {"drip_s": 0.5},
    "server-error": {"status": 500, "error": "internal error"},
    "unavailable": {"status": 503, "body": "try again later"},
    "unknown-method": {"status": 404, "error": "Service not found"},
    "closed": {"close": True},
    "lost-answer": {"close": True, "perform": "first"},
    "late-answer": {"hang": True, "perform": "first"},
    "not-http": {"raw": "SSH-2.0-simulator\r\n"},
    "not-json": {"body": "<html>not JSON</html>"},
    "not-object": {"body": ["not", "an", "object"]},
    "empty-body": {"body": ""},
    "truncated": {"cut": 1},
    "oversized": {"pad": 32 << 20},
    # GetKey
    "key-0x": {"method": "GetKey", "edit": {"key": "0x$key"}},
    "key-not-hex": {"method": "GetKey", "edit": {"key": "zz" * 32}},
    "key-odd": {"method": "GetKey", "edit": {"key": "1" * 63}},
    "key-short": {"method": "GetKey", "edit": {"key": "11" * 31}},
    "key-long": {"method": "GetKey", "edit": {"key": "${key}00"}},
    "key-empty": {"method": "GetKey", "edit": {"key": ""}},
    "key-number": {"method": "GetKey", "edit": {"key": 17}},
    "key-missing": {"method": "GetKey", "drop": ["key"]},
    "key-zero": {"method": "GetKey", "edit": {"key": "00" * 32}},
    "key-order": {"method": "GetKey", "edit": {"key": P256_ORDER}},
    "chain-missing": {"method": "GetKey", "drop": ["signature_chain"]},
    # EmitEvent
    "emit-removed": {"method": "EmitEvent", "status": 400, "error": EMIT_EVENT_REMOVED},
    "emit-ignored": {"method": "EmitEvent", "body": {}},
    "emit-empty-body": {"method": "EmitEvent", "body": "", "perform": "first"},
    # Info
    "tcb-info-object": {"method": "Info", "edit": {"tcb_info": {"event_log": []}}},
    "tcb-info-not-json": {"method": "Info", "edit": {"tcb_info": "{not JSON"}},
    "tcb-info-empty": {"method": "Info", "edit": {"tcb_info": ""}},
    "tcb-info-missing": {"method": "Info", "drop": ["tcb_info"]},
    "event-log-missing": {"method": "Info", "edit": {"tcb_info": "{}"}},
    "event-log-text": {"method": "Info", "edit": {"tcb_info": '{"event_log": "text"}'}},
}
