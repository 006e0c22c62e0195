"""What is a request, in bytes: each that two programs could read in two ways is refused, and nothing of it is done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from edgerig import APP_KEY, BEARER, OTHER_KEY, POST, Rig, answers, request, running
from proxies import PROXIES

pytestmark = pytest.mark.anyio

AUTH = f"Authorization: {BEARER}"
JSON = "Content-Type: application/json"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(POST), POST)


def post(*lines: str, body: bytes = POST, **more: str) -> bytes:
    return request("POST", "/v1/notifications", AUTH, JSON, *lines, body=body, **more)


GOOD = {
    "plain": request("GET", "/v1/endpoints", AUTH),
    "HTTP/1.0 with Host": request("GET", "/v1/endpoints", AUTH, version="1.0"),
    "absolute form of the same host": request("GET", "http://SERVICE/v1/endpoints", AUTH),
    "a list in two lines": request("GET", "/v1/endpoints", AUTH, "Accept: text/html", "Accept: */*"),
    "cookies in two lines": request("GET", "/v1/endpoints", AUTH, "Cookie: a=1", "Cookie: b=2"),
    "marks of a proxy from nobody who is trusted": request(
        "GET", "/v1/endpoints", AUTH, "X-Forwarded-For: nonsense", 'Forwarded: for="'
    ),
    "a host with a port": request("GET", "/v1/endpoints", AUTH, host="[2001:db8::1]:8080"),
    "blanks and tabs around values (httptools leaves those behind them)": request("GET", "/v1/endpoints", f"Authorization: \t{BEARER} \t", host="service "),
    "a length of 0 and a blank": request("GET", "/v1/endpoints", AUTH, "Content-Length: 0 "),
    "a header with an underscore is another header": request("GET", "/v1/endpoints", AUTH, "Authoriza_tion: x", "X_UNS_ID: y"),
}  # fmt: skip

BAD = {
    "no Host": (400, request("GET", "/v1/endpoints", AUTH, host=None)),
    "no Host in HTTP/1.0": (400, request("GET", "/v1/endpoints", AUTH, host=None, version="1.0")),
    "no Host on a public path": (400, request("GET", "/health", host=None)),
    "an empty Host": (400, request("GET", "/v1/endpoints", AUTH, host="")),
    "a Host that is none": (400, request("GET", "/v1/endpoints", AUTH, host="service/evil")),
    "a Host with a port that is none": (400, request("GET", "/health", host="service:65536")),
    "a Host with an IPv6 address that is none": (400, request("GET", "/health", host="[::1::]")),
    "a Host with an empty label": (400, request("GET", "/health", host="a..b")),
    "absolute form of a port that is none": (400, request("GET", "http://service:99999/health", host="service:99999")),
    "a Host with a user": (400, request("GET", "/v1/endpoints", AUTH, host="x@service")),
    "two Hosts": (400, request("GET", "/v1/endpoints", AUTH, "Host: other")),
    "two Hosts that are the same": (400, request("GET", "/v1/endpoints", AUTH, "host: service")),
    "two credentials": (400, request("GET", "/v1/endpoints", AUTH, f"Authorization: Bearer {OTHER_KEY.key.reveal()}")),
    "two credentials that are the same": (400, request("GET", "/v1/endpoints", AUTH, f"AUTHORIZATION: {BEARER}")),
    "two UNSIDs": (400, request("GET", "/v1/endpoints", AUTH, "X-UNS-ID: a", "X-UNS-ID: b")),
    "two idempotency keys": (400, post("Idempotency-Key: a", "Idempotency-Key: b")),
    "two content types": (400, post("Content-Type: text/plain")),
    "two of a header that nobody knows": (400, request("GET", "/health", "X-Unknown: a", "X-Unknown: a")),
    "two Origins on a request that a browser asks beforehand": (
        400,
        request("OPTIONS", "/v1/notifications", "Origin: https://app.example.com", "Origin: https://evil.example"),
    ),
    "absolute form of another host": (400, request("GET", "http://other/v1/endpoints", AUTH)),
    "absolute form with a user": (400, request("GET", "http://x@service/v1/endpoints", AUTH)),
    "absolute form without Host": (400, request("GET", "http://service/v1/endpoints", AUTH, host=None)),
    "another scheme": (400, request("GET", "ftp://service/v1/endpoints", AUTH)),
    "CONNECT": (400, request("CONNECT", "service:80", AUTH)),
    "a fragment in the target": (400, request("GET", "/v1/endpoints#x", AUTH)),
    "obs-fold": (400, request("GET", "/v1/endpoints", "Authorization: Bearer", f" {APP_KEY.key.reveal()}")),
    "a space before the colon": (400, request("GET", "/v1/endpoints", f"Authorization : {BEARER}")),
    "bare LF": (400, request("GET", "/v1/endpoints", AUTH).replace(b"\r\n", b"\n")),
    "bare LF after one line": (400, request("GET", "/v1/endpoints", AUTH).replace(b"service\r\n", b"service\n")),
    "bare CR": (400, request("GET", "/v1/endpoints", AUTH).replace(b"service\r\n", b"service\r")),
    "NUL": (400, request("GET", "/v1/endpoints", AUTH, "X: a\0b")),
    "HTTP/0.9": (400, b"GET /health\r\n\r\n"),
    "gzip": (501, post("Transfer-Encoding: gzip")),
    "gzip, chunked": (501, post("Transfer-Encoding: gzip, chunked", body=CHUNKED)),
    "gzip and chunked in two lines": (501, post("Transfer-Encoding: gzip", "Transfer-Encoding: chunked", body=CHUNKED)),
    "identity": (501, post("Transfer-Encoding: identity")),
    "xchunked": (501, post("Transfer-Encoding: xchunked", body=CHUNKED)),
    "chunked in HTTP/1.0": (400, post("Transfer-Encoding: chunked", body=CHUNKED, version="1.0")),
    "chunked twice": (400, post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=CHUNKED)),
    "a length and chunked": (400, post(f"Content-Length: {len(POST)}", "Transfer-Encoding: chunked", body=CHUNKED)),
    "chunked and a length": (400, post("Transfer-Encoding: chunked", f"Content-Length: {len(POST)}", body=CHUNKED)),
    "two lengths": (400, post(f"Content-Length: {len(POST)}", f"Content-Length: {len(POST) - 1}")),
    "two lengths that are the same": (400, post(f"Content-Length: {len(POST)}", f"Content-Length: {len(POST)}")),
    "a list of lengths": (400, post(f"Content-Length: {len(POST)}, {len(POST)}")),
    "a length with a sign": (400, post(f"Content-Length: +{len(POST)}")),
    "bare LF in a chunk": (400, post("Transfer-Encoding: chunked", body=CHUNKED.replace(b"\r\n", b"\n", 1))),
}


async def test_what_is_clear_is_answered(rig: Rig) -> None:
    for name, said in GOOD.items():
        assert [found.status for found in await rig.say(said)] == [200], name
    assert (await rig.one(post("Transfer-Encoding: chunked", body=CHUNKED))).status == 202


async def test_absolute_form_without_a_path_means_the_root(rig: Rig) -> None:
    """Direct, these bytes had no answer at all, and haproxy made a 502 of that."""
    for query in ("", "?x=1"):
        alike = [request("GET", f"{start}{query}", AUTH) for start in ("/", "http://service", "http://service/")]
        assert [(await rig.one(said)).status for said in alike] == [404, 404, 404]


async def test_a_tab_behind_a_length_is_none_of_it(rig: Rig) -> None:
    for end in (" ", "\t", " \t "):
        assert (await rig.one(post(f"Content-Length: {len(POST)}{end}", body=POST))).status == 202


async def test_what_is_ambiguous_is_refused_and_ends_the_connection(rig: Rig) -> None:
    behind = request("GET", "/health")
    for name, (status, said) in BAD.items():
        heard = await rig.say(said.replace(b"Connection: close\r\n", b"") + behind)
        assert [found.status for found in heard] == [status], name
    assert (await rig.engine.storage.outstanding()) == {}


async def test_origins_are_not_asked_about_a_request_that_is_none() -> None:
    async with running(origins=("https://app.example.com",)) as rig:
        status, said = BAD["two Origins on a request that a browser asks beforehand"]
        found = await rig.one(said)
        assert (found.status, "access-control-allow-origin" in found.headers) == (status, False)


async def test_pipelined_requests_are_each_asked_for_a_credential(rig: Rig) -> None:
    first = request("GET", "/v1/endpoints", AUTH, "Connection: keep-alive")
    found = await rig.say(first + request("GET", "/v1/endpoints"))
    assert [each.status for each in found] == [200, 401]


async def test_what_comes_behind_a_request_to_change_protocols_is_no_request(rig: Rig) -> None:
    """The parser takes the body of such a request for the new protocol: on a proxy's shared connection it would be the
    next request."""
    inner = request("DELETE", "/v1/users/alice", AUTH)
    outer = post("Connection: Upgrade", "Upgrade: h2c", body=inner)
    head, body = outer[: -len(inner)], inner
    reader, writer = await asyncio.open_connection(*rig.address)
    async with asyncio.timeout(120):
        writer.write(head)
        heard = await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        heard += await reader.read()
    writer.close()
    assert len(answers(heard)) == 1


MENDED = {
    "nginx": {
        "no Host in HTTP/1.0",
        "a Host with a user",
        "a Host with a port that is none",
        "a Host with an IPv6 address that is none",
        "absolute form of a port that is none",
        "absolute form of another host",
        "another scheme",
        "bare LF",
        "bare LF after one line",
        "chunked in HTTP/1.0",
        "bare LF in a chunk",
    },
    "haproxy": {
        "two Hosts that are the same",
        "obs-fold",
        "bare LF",
        "bare LF after one line",
        "a length and chunked",
        "chunked and a length",
        "two lengths that are the same",
        "a list of lengths",
        "bare LF in a chunk",
    },
}
"""What each program (Debian's) sends on as one clear request of its own making, so that nothing is left to be read in
two ways."""


@pytest.mark.external
@pytest.mark.parametrize("name", PROXIES)
async def test_behind_a_proxy_it_is_refused_by_one_of_the_two(name: str, tmp_path: Path, rig: Rig) -> None:
    """In its default configuration. A credential that stands twice is refused in any case."""
    async with PROXIES[name](tmp_path, rig.address) as address:
        for case, said in GOOD.items():
            assert (await rig.one(said, address=address)).status == 200, case
        for case, (_, said) in BAD.items():
            if case == "HTTP/0.9":
                continue  # whose answers have no status
            heard = await rig.say(said, address=address)
            assert case in MENDED[name] or all(found.status >= 400 for found in heard), case
