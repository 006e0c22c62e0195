"""An answer that began and did not end: a status of success stands, and its message is not sent again."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from fanout.http import H2Pool, PoolSettings, RequestFailed, Response, literal
from fanout.http.codec import Codec
from fanout.http.frames import END_HEADERS, END_STREAM, ErrorCode, FrameType, frame, goaway, rst_stream
from fanout_kit.ports import free_port
from tests.http.gateway import HEAD, Certificates
from tests.http.test_blocks import started
from tests.http.test_external import needs, running

_TRAILER = b"\x00\x05grade\x01a"


def _block(status: int) -> bytes:
    return b"\x08\x03%d" % status


def _breaks(codec: Codec) -> None:
    codec.receive(frame(FrameType.PING, 0, 0, b"short"))


def _over_the_window(codec: Codec) -> None:
    for _ in range(6):
        codec.receive(frame(FrameType.DATA, 0, 1, b"x" * 16_384))


ENDS: dict[str, Callable[[Codec], None]] = {
    "reset": lambda codec: codec.receive(rst_stream(1, ErrorCode.INTERNAL_ERROR)),
    "reset without an error": lambda codec: codec.receive(rst_stream(1, ErrorCode.NO_ERROR)),
    "reset as refused": lambda codec: codec.receive(rst_stream(1, ErrorCode.REFUSED_STREAM)),
    "goodbye that excludes it": lambda codec: codec.receive(goaway(ErrorCode.NO_ERROR)),
    "a second head": lambda codec: codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, _block(503))),
    "an interim head": lambda codec: codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, _block(103))),
    "trailers without an end": lambda codec: codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, _TRAILER)),
    "a credit of nothing": lambda codec: codec.receive(frame(FrameType.WINDOW_UPDATE, 0, 1, b"\0\0\0\0")),
    "more than the window": _over_the_window,
    "a breach": _breaks,
    "the connection's end": lambda codec: codec.close("closed"),
    "our own end": lambda codec: codec.close("closed", code=ErrorCode.NO_ERROR, own=True),
    "its deadline": lambda codec: codec.expire(1),
}


@pytest.mark.parametrize("status", [200, 201, 204, 299, 302, 400, 410, 503])
@pytest.mark.parametrize("end", ENDS)
def test_a_status_of_success_stands_however_its_answer_ends(end: str, status: int) -> None:
    codec = started()
    codec.max_body = 1 << 20  # the body is bounded by its window, not by what is kept
    codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, _block(status)))
    codec.receive(frame(FrameType.DATA, 0, 1, b"begun"))
    ENDS[end](codec)
    codec.close("closed")
    assert not codec.streams
    assert not codec.partial
    if status < 300:
        ((token, response),) = codec.answered
        assert (token, response.status, response.body[:5]) == (0, status, b"begun")
        assert not codec.failed
    else:
        assert [token for token, _ in codec.failed] == [0]
        assert not codec.answered or end == "a breach"


@pytest.mark.parametrize("end", ["flood", "interrupted", "closed", "goodbye", "deadline"])
def test_a_status_counts_before_its_block_is_complete(end: str) -> None:
    codec = started(2)
    codec.receive(frame(FrameType.HEADERS, END_STREAM, 1, b"\x88"))
    field = b"\x00\x01x\x7f\xf1\x7e" + b"y" * 16_368  # a literal field of one name and 16,368 bytes
    if end == "flood":
        for _ in range(3):
            codec.receive(frame(FrameType.CONTINUATION, 0, 1, field[:16_384]))
    elif end == "interrupted":
        codec.receive(rst_stream(1, ErrorCode.CANCEL))
    elif end == "goodbye":
        codec.receive(goaway(ErrorCode.NO_ERROR))
    elif end == "deadline":
        codec.expire(1)
    codec.close("closed")
    assert [(token, response.status) for token, response in codec.answered] == [(0, 200)]
    assert [token for token, _ in codec.failed] == [1]


def test_an_incomplete_block_without_a_status_is_no_answer() -> None:
    for begin in (b"", b"\x08", b"\x08\x0320", b"\x08\x03103", _TRAILER):
        codec = started()
        codec.receive(frame(FrameType.HEADERS, END_STREAM, 1, begin))
        codec.close("closed")
        assert [failure.sent for _, failure in codec.failed] == ["unknown"], begin


NODE = """
const http2 = require('http2'), fs = require('fs');
const [port, key, cert] = process.argv.slice(2);
const server = http2.createSecureServer({key: fs.readFileSync(key), cert: fs.readFileSync(cert)});
server.on('session', session => session.on('error', () => {}));
server.on('stream', (stream, headers) => {
  const session = stream.session, end = headers[':path'].slice(1);
  stream.on('error', () => {});
  stream.resume().on('end', () => {
    stream.respond({':status': +headers['apns-id'], 'x-id': 'a'});
    stream.write('{');
    setTimeout(() => {
      if (session.destroyed) return;
      if (end == 'destroy') session.destroy();
      else if (end == 'goaway') { session.goaway(2, 0); session.destroy(); }
      else if (end == 'reset') stream.destroy(new Error('reset'));
    }, 20);
  });
});
server.listen(+port, '127.0.0.1');
"""


@pytest.mark.anyio
@pytest.mark.external
async def test_node_that_breaks_off_its_answers(
    certificates: Certificates, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    program, port = needs("node", "nodejs"), free_port()
    script = tmp_path / "server.js"
    script.write_text(NODE)
    async with running(program, str(script), str(port), certificates.key, certificates.cert, port=port) as url:
        for end in ("reset", "goaway", "destroy", "stall"):
            # A deadline that ends the answers has to leave the server the time to begin them.
            for limit in (0.3, 3.0, 30.0) if end == "stall" else (30.0,):
                taken, made, gone = await broken_off(url, trusting, end, limit)
                if isinstance(taken, Response) and isinstance(made, Response) and getattr(gone, "sent", "") != "no":
                    break
            assert isinstance(taken, Response), (end, taken)
            assert isinstance(made, Response), (end, made)
            assert (taken.status, taken.body, taken.header("x-id"), made.status) == (200, b"{", "a", 201), end
            assert isinstance(gone, RequestFailed), (end, gone)
            assert gone.sent == "unknown"


async def broken_off(url: str, trusting: ssl.SSLContext, end: str, limit: float) -> list[Response | BaseException]:
    """What comes of requests that the server answers with 200, 201 and 410."""
    settings = PoolSettings(tick=0.02, request_timeout=limit)
    results: list[Response | BaseException] = []
    async with H2Pool(url, ssl_context=trusting, settings=settings) as pool:
        for status in (200, 201, 410):
            asked = pool.request(HEAD, f"/{end}".encode(), literal("apns-id", str(status)), b"x")
            results += await asyncio.gather(asked, return_exceptions=True)
    return results


def literal_id(status: int) -> bytes:
    return literal("apns-id", str(status))
