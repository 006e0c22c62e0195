"""The HTTP/1.1 client against a server that is not Python: Node's https module, slow, with more requests than
connections."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fanout.plugin import Http1Client, Http1Settings, client_tls
from fanout.testing.simulator import Authority

pytestmark = [pytest.mark.anyio, pytest.mark.external]

_SLOW = """
const fs = require('fs');
const options = {key: fs.readFileSync(process.argv[1]), cert: fs.readFileSync(process.argv[2])};
let under = 0, most = 0;
const server = require('https').createServer(options, (request, response) => {
  most = Math.max(most, ++under);
  request.resume().on('end', () => setTimeout(() => { under--; response.end(String(most)); }, 300));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""


@asynccontextmanager
async def node(script: str, *arguments: str) -> AsyncIterator[str]:
    """Its URL."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not there: install Node.js")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program, "-e", script, *arguments, stdout=pipe)
    assert process.stdout is not None
    try:
        yield f"https://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.communicate()


async def test_a_slow_server_with_more_requests_than_connections_fails_none(tmp_path: Path) -> None:
    """Two connections, five rounds of 0.3 s: each request waits for one longer than a connection may take to come
    about."""
    authority = Authority(tmp_path)
    tls = client_tls(ca_file=str(authority.ca_file), alpn=("http/1.1",))
    limits = Http1Settings(connections=2, connect_timeout=0.9, request_timeout=60.0)
    async with (
        node(_SLOW, *map(str, reversed(authority.server()))) as url,
        Http1Client(ssl_context=tls, settings=limits) as client,
    ):
        answers = await asyncio.gather(*[client.request("POST", f"{url}/{n}", {}, b"x") for n in range(10)])
    assert {answer.status for answer in answers} == {200}
    assert max(int(answer.body) for answer in answers) <= 2
