"""ngx_http_ekm_module in a real nginx: a client's own X-TLS-EKM-Channel-Binding reaches no backend."""

import json
import socket

import pytest
from ekm_nginx import HEADER, TIMEOUT_S, Client, Client2, OpensslClient, binding, ready_nginx, value, values
from http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_ADDED,
    GOAWAY,
    HEADERS,
    POST,
    field,
    frame,
    request,
)

SPELLINGS = [HEADER, HEADER.lower(), HEADER.upper(), "x-TLS-ekm-Channel-BINDING"]
OTHER_CHARACTERS = ["X_TLS_EKM_Channel_Binding", "x-tls_ekm-channel_binding", "X.TLS.EKM.Channel.Binding"]
OTHER_CHARACTERS += ["X-TLS~EKM-Channel!Binding"]

REPLACE = """
    SECRET_FILE
    server {
        listen TLS_PORT;
        location / { proxy_pass BACKEND; BINDING }
    }
"""
# The most that nginx lets through.
PASS_ALL = """
    underscores_in_headers on;
    ignore_invalid_headers off;
    server {
        listen TLS_PORT;
        listen PLAIN_PORT;
        location / { proxy_pass BACKEND; }
        location /own { proxy_pass BACKEND; proxy_set_header X-Own own; }
        location /echo { return 200 "[$http_x_tls_ekm_channel_binding]"; }
    }
"""
PASS_ALL_H2 = PASS_ALL.replace("_PORT;", "_PORT http2;")


@pytest.fixture(name="nginx")
def fixture_nginx():
    with ready_nginx() as nginx:
        yield nginx


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_forged_header_is_replaced(nginx, spelling):
    nginx.start(REPLACE)
    with OpensslClient(nginx.tls) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: a.test\r\n{spelling}: forged\r\n\r\n".encode())
        assert value(client.response()) == binding(client.exporter)


@pytest.mark.parametrize("path", ["/", "/own"])
@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("spelling", SPELLINGS + OTHER_CHARACTERS)
def test_forged_header_is_removed_on_every_location(nginx, path, tls, spelling):
    nginx.start(PASS_ALL)
    with Client(nginx.tls if tls else nginx.plain, tls=tls) as client:
        received = client.json(path, [("X-Before", "1"), (spelling, "forged"), ("X-After", "2")])
        assert not [pair for pair in received["headers"] if "forged" in pair]
        assert values(received, "X-Before") == ["1"] and values(received, "X-After") == ["2"]
        assert client.text("/echo", [(spelling, "forged")]) == "[]"
    assert nginx.log("removed X-TLS-EKM-Channel-Binding sent by client") and not nginx.log("forged")


@pytest.mark.parametrize(
    "name",
    ["X-TLS-EKM-Channel-Bindin", "X-TLS-EKM-Channel-Bindings", "XXTLS-EKM-Channel-Binding"]
    + ["X-TLS-EKM-Channel9Binding", "Y-TLS-EKM-Channel-Binding"],
)
def test_headers_with_a_similar_name_are_kept(nginx, name):
    nginx.start(PASS_ALL)
    with Client(nginx.plain, tls=False) as client:
        assert values(client.json(headers=[(name, "kept")]), name) == ["kept"]


# nginx keeps 20 headers to a part of its list, and Host is the first.
POSITIONS = {
    "first": {0},
    "last of a part": {18},
    "first of a part": {19},
    "around a cut": {17, 18, 19, 20},
    "whole first part": set(range(19)),
    "whole second part": set(range(19, 39)),
    "only one in the last part": {39},
    "last two parts": set(range(19, 40)),
    "every second": set(range(0, 40, 2)),
    "every other second": set(range(1, 40, 2)),
    "all": set(range(40)),
    "runs": {3, 4, 5, 9, 10, 25, 26, 38, 39},
}


@pytest.mark.parametrize("forged", POSITIONS.values(), ids=POSITIONS)
def test_forged_headers_go_and_the_others_stay_wherever_they_are(nginx, forged):
    nginx.start(PASS_ALL)
    headers = [(HEADER, f"forged-{i}") if i in forged else (f"X-Kept-{i}", str(i)) for i in range(40)]
    with Client(nginx.plain, tls=False) as client:
        for _ in range(2):
            received = client.json(headers=headers)
            assert not values(received)
            kept = [pair for pair in received["headers"] if pair[0].startswith("X-Kept")]
            assert kept == [list(pair) for i, pair in enumerate(headers) if i not in forged]


@pytest.mark.parametrize("forged", POSITIONS.values(), ids=POSITIONS)
def test_subrequests_have_the_same_headers(nginx, forged):
    """A subrequest shares parts of the list of its main request."""
    protected = "location /_auth { proxy_pass BACKEND; } location / { auth_request /_auth;"
    nginx.start(PASS_ALL.replace("location / {", protected))
    headers = [(HEADER, f"forged-{i}") if i in forged else (f"X-Kept-{i}", str(i)) for i in range(40)]
    with Client(nginx.plain, tls=False) as client:
        received = client.json(headers=headers)
    (subrequest,) = nginx.backend.to("/_auth")
    for one in (received, subrequest):
        assert not values(one)
        kept = [pair for pair in one["headers"] if pair[0].startswith("X-Kept")]
        assert kept == [list(pair) for i, pair in enumerate(headers) if i not in forged]


def test_hundreds_of_forged_headers_go(nginx):
    """About as many as nginx takes by default."""
    nginx.start(PASS_ALL)
    with Client(nginx.plain, tls=False) as client:
        for _ in range(3):
            received = client.json(headers=[(HEADER, "forged"), ("X-Kept", "kept")] * 450)
            assert not values(received) and values(received, "X-Kept") == ["kept"] * 450


def test_known_headers_after_a_forged_one_still_mean_what_they_say(nginx):
    nginx.start(PASS_ALL.replace("[$http", "$http_user_agent $http_cookie $cookie_two $http_x_forwarded_for [$http"))
    headers = [("User-Agent", "agent"), ("Cookie", "one=1; two=2"), ("X-Forwarded-For", "192.0.2.1")]
    mixed = [pair for known in headers for pair in ((HEADER, "forged"), known)]
    with Client(nginx.plain, tls=False) as client:
        assert client.text("/echo", [*mixed, (HEADER, "forged")]) == "agent one=1; two=2 2 192.0.2.1 []"


def test_no_module_gets_to_see_a_forged_header(nginx):
    """Not even the one that looks first."""
    trusting = f"set_real_ip_from 127.0.0.1; real_ip_header {HEADER};"
    nginx.start(PASS_ALL.replace("[$http", "$remote_addr [$http").replace("server {", "server { " + trusting))
    with Client(nginx.plain, tls=False) as client:
        assert client.text("/echo", [(HEADER, "192.0.2.1")]) == "127.0.0.1 []"


# What nginx does not take for a header


def exchange(place, data):
    """All that comes back until the end of the connection."""
    with socket.create_connection(place, TIMEOUT_S) as client:
        client.sendall(data)
        answer = b""
        while received := client.recv(65536):
            answer += received
    return answer


@pytest.mark.parametrize(
    "lines",
    {
        "folded": "X-Kept: 1\r\n {}: forged",
        "tab": "X-Kept: 1\r\n\t{}: forged",
        "bare return": "X-Kept: 1\r{}: forged",
        "space before the colon": "{} : forged",
        "space in front": " {}: forged",
        "zero": "X-Kept: 1\0\r\n{}: forged",
        "no name": ":\r\n{}: forged",
        "bare newline": "X-Kept: 1\n{}: forged",
        "empty value": "{}:",
        "twice": "{0}: forged\r\n{0}: forged",
        "in the value": "{0}: {0}: forged",
    }.items(),
    ids=lambda item: item[0],
)
def test_odd_lines_do_not_hide_a_forged_header(nginx, lines):
    """They make the request a bad one, or nginx reads them as the backend would."""
    nginx.start(PASS_ALL)
    text = lines[1].format(HEADER)
    answer = exchange(nginx.plain, f"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{text}\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
    assert len(nginx.backend.seen) == answer.startswith(b"HTTP/1.1 200")
    for received in nginx.backend.seen:
        assert not values(received) and "forged" not in json.dumps(received)


def test_pipelined_requests_lose_their_forged_headers(nginx):
    nginx.start(PASS_ALL)
    post = "POST /{0} HTTP/1.1\r\nHost: a.test\r\n{1}: forged\r\nX-Kept: {0}\r\nContent-Length: 6\r\n\r\nbody{0:02}"
    get = "GET /last HTTP/1.1\r\nHost: a.test\r\n{0}: forged\r\nConnection: close\r\n\r\n"
    data = "".join(post.format(i, HEADER) for i in range(10)) + get.format(HEADER)
    answer = exchange(nginx.plain, data.encode())
    assert answer.count(b"HTTP/1.1 200") == 11
    assert [received["path"] for received in nginx.backend.seen] == [f"/{i}" for i in range(10)] + ["/last"]
    for i, received in enumerate(nginx.backend.seen[:-1]):
        assert values(received, "X-Kept") == [str(i)] and received["body"] == f"body{i:02}"
    assert not [received for received in nginx.backend.seen if values(received)]


@pytest.mark.parametrize(
    "framing", ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: 5\r\nContent-Length: 6"]
)
def test_request_of_two_lengths_is_refused(nginx, framing):
    """What the second length leaves over could be a request of its own to a backend."""
    nginx.start(PASS_ALL)
    smuggled = f"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n{HEADER}: forged\r\n\r\n"
    answer = exchange(nginx.plain, f"POST / HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n{smuggled}".encode())
    assert answer.startswith(b"HTTP/1.1 400") and not nginx.backend.seen


def test_forged_trailer_is_dropped(nginx):
    nginx.start(PASS_ALL)
    body = f"4\r\nbody\r\n0\r\n{HEADER}: forged\r\n\r\n"
    head = f"POST / HTTP/1.1\r\nHost: a.test\r\nTrailer: {HEADER}\r\n"
    head += "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert exchange(nginx.plain, (head + body).encode()).startswith(b"HTTP/1.1 200")
    (received,) = nginx.backend.seen
    assert received["body"] == "body" and not values(received)


# Requests that are refused before their first phase

BAD = ["", "Host: a.test\r\nHost: b.test\r\n", "Host: a.test\r\nContent-Length: x\r\n"]


@pytest.mark.parametrize("error_page", ["error_page 400 = /error;", "error_page 400 = @error;"])
@pytest.mark.parametrize("bad", BAD)
def test_forged_header_of_a_refused_request_does_not_reach_the_error_page(nginx, error_page, bad):
    """nginx refuses such a request before its first phase, and yet may pass it on."""
    nginx.start(f"""
        server {{
            listen PLAIN_PORT;
            {error_page}
            set $seen "$http_x_tls_ekm_channel_binding";
            proxy_set_header X-Seen $seen;
            location = /error {{ proxy_pass BACKEND; }}
            location @error {{ proxy_pass BACKEND; }}
            location / {{ return 204; }}
        }}
    """)
    exchange(nginx.plain, f"GET / HTTP/1.1\r\n{HEADER}: forged\r\nX-Kept: kept\r\n{bad}\r\n".encode())
    (received,) = nginx.backend.seen
    assert not values(received) and values(received, "X-Kept") == ["kept"]
    assert not values(received, "X-Seen")


@pytest.mark.parametrize("bad", BAD)
def test_forged_header_of_a_refused_request_does_not_reach_a_subrequest(nginx, bad):
    """An error page of nginx's own can be completed by SSI."""
    nginx.start("""
        server {
            listen PLAIN_PORT;
            ssi on;
            sub_filter "</body>" "<!--# include virtual='/included' --></body>";
            location /included { proxy_pass BACKEND; }
        }
    """)
    kept = "".join(f"X-Kept: {i}\r\n{HEADER}: forged\r\n" for i in range(30))
    exchange(nginx.plain, f"GET / HTTP/1.1\r\n{HEADER}: forged\r\n{kept}{bad}\r\n".encode())
    (received,) = nginx.backend.to("/included")
    assert not values(received) and values(received, "X-Kept") == [str(i) for i in range(30)]


def passed_on(status, text):
    """With a backend for what nginx would answer with `status` itself."""
    error = f"error_page {status} = @error; location @error {{ proxy_pass BACKEND; }}"
    return text.replace("location / {", error + " location / {")


def test_forged_header_of_a_request_in_plain_text_to_a_tls_port(nginx):
    nginx.start(passed_on(497, PASS_ALL))
    exchange(nginx.tls, f"GET / HTTP/1.1\r\nHost: a.test\r\n{HEADER}: forged\r\n\r\n".encode())
    (received,) = nginx.backend.seen
    assert not values(received)


# HTTP/2


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("first", [0, 16, 64], ids=["without indexing", "never indexed", "with indexing"])
def test_http2_forged_headers_are_removed(nginx, tls, first):
    nginx.start(PASS_ALL_H2)
    with Client2(nginx.tls if tls else nginx.plain, tls) as client:
        for stream in (1, 3):
            names = [HEADER.lower(), *(name.lower() for name in OTHER_CHARACTERS)]
            block = request() + b"".join(field(name, "forged", first) for name in names * 10)
            block += field("x-kept", "kept")
            client.send(HEADERS, END_STREAM | END_HEADERS, stream, block)
            received = json.loads(client.answer(stream))
            assert not [pair for pair in received["headers"] if "forged" in pair]
            assert values(received, "X-Kept") == ["kept"]


def test_http2_forged_header_is_replaced(nginx):
    nginx.start(REPLACE.replace("TLS_PORT;", "TLS_PORT http2;"))
    with Client2(nginx.tls) as client:
        received = client.json(1, headers=[(HEADER.lower(), "forged")] * 3)
        assert value(received) == binding(client.exporter)


def test_http2_forged_header_from_the_dynamic_table_is_removed(nginx):
    nginx.start(PASS_ALL_H2)
    with Client2(nginx.plain, tls=False) as client:
        client.send(HEADERS, END_STREAM | END_HEADERS, 1, request() + field(HEADER.lower(), "forged", 64))
        assert not values(json.loads(client.answer(1)))
        client.send(HEADERS, END_STREAM | END_HEADERS, 3, request() + FIRST_ADDED * 3 + field("x-kept", "kept"))
        received = json.loads(client.answer(3))
        assert not values(received) and values(received, "X-Kept") == ["kept"]


def test_http2_forged_header_in_pieces_is_removed(nginx):
    """Each byte in a frame of its own."""
    nginx.start(PASS_ALL_H2)
    block = request() + field(HEADER.lower(), "forged") + field("x-kept", "kept")
    frames = [frame(HEADERS, END_STREAM, 1, block[:1])]
    frames += [frame(CONTINUATION, 0, 1, block[i : i + 1]) for i in range(1, len(block) - 1)]
    frames.append(frame(CONTINUATION, END_HEADERS, 1, block[-1:]))
    with Client2(nginx.plain, tls=False) as client:
        client.transport.sendall(b"".join(frames))
        received = json.loads(client.answer(1))
        assert not values(received) and values(received, "X-Kept") == ["kept"]


@pytest.mark.parametrize("name", [HEADER, ":" + HEADER.lower(), HEADER.lower() + " ", HEADER.lower() + ":"])
def test_http2_name_that_is_none_ends_the_request(nginx, name):
    nginx.start(PASS_ALL_H2)
    with Client2(nginx.plain, tls=False) as client:
        client.ask(1, headers=[(name, "forged")])
        client.until(lambda kind, _flags, stream, _payload: stream == 1 or kind == GOAWAY)
        assert not nginx.backend.seen


def test_http2_forged_trailer_is_dropped(nginx):
    nginx.start(PASS_ALL_H2)
    with Client2(nginx.plain, tls=False) as client:
        client.send(HEADERS, END_HEADERS, 1, request(method=POST))
        client.send(DATA, 0, 1, b"body")
        client.send(HEADERS, END_STREAM | END_HEADERS, 1, field(HEADER.lower(), "forged"))
        client.until(lambda kind, _flags, stream, _payload: stream == 1 or kind == GOAWAY)
    for received in nginx.backend.seen:
        assert not values(received) and "forged" not in json.dumps(received)


def test_http2_forged_header_of_a_refused_request_does_not_reach_the_error_page(nginx):
    nginx.start(passed_on(400, PASS_ALL_H2))
    with Client2(nginx.plain, tls=False) as client:
        client.ask(1, authority=None, headers=[("x-kept", "kept"), (HEADER.lower(), "forged")] * 20)
        received = json.loads(client.answer(1))
        assert not values(received) and values(received, "X-Kept") == ["kept"] * 20
