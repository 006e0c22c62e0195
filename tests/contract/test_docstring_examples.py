"""The examples of the docstrings: there where users call, compiled, and run on a storage in memory where no network is
needed."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import textwrap
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import fanout
import fanout.client
import fanout.sync
from fanout.core.model import Notification, Target
from fanout.service.auth.user_token import new_user_key, user_token
from fanout.testing import Pushes, ScriptedTransport, Subject, VirtualClock, check_transport

from .public_names import is_property, public, public_classes

CALLED = re.compile(
    r"fanout\.(open|Engine\..*|Receipt\..*|Target\..*)|fanout\.client\.(AppClient|UserClient|ClientCredentials|OnBehalfOf)\..*|"
    r"fanout\.sync\..*|fanout\.testing\.(Pushes\..*|VirtualClock\.(advance|step)|check_.*)|fanout\.service\.(create_app|from_config)|"
    r"fanout\.service\.auth\.user_token|fanout\.metrics\.(render|listen_address)"
)
"""The functions that users of the library call, and so those with an example: all of these names."""
COMPILED = {
    "fanout.Engine.failed": "it waits until the engine fails",
    "fanout.sync.enqueue": "it needs PostgreSQL",
    "fanout.service.create_app": "FastAPI takes seconds to import",
    "fanout.service.from_config": "FastAPI takes seconds to import",
    "fanout.metrics.render": "the test of the metrics reads its text",
    "fanout.metrics.listen_address": "its module imports a server of HTTP",
}
"""Examples that are compiled and not run, and why."""
_FENCE = re.compile(r"^( *)```python\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)

FUNCTIONS = {each.path: each for each in public() if not is_property(each.node)}


def examples(text: str) -> list[str]:
    return [textwrap.dedent(code) for _, code in _FENCE.findall(text)]


TEXTS = {path: each.text for path, each in FUNCTIONS.items()}
TEXTS |= {path: ast.get_docstring(each.node) or "" for path, each in public_classes() if path not in TEXTS}
EXAMPLES = {path: code for path, text in TEXTS.items() if (code := "\n".join(examples(text)))}


def ran(*paths: str) -> Iterator[tuple[str, str]]:
    for path, code in EXAMPLES.items():
        if re.fullmatch("|".join(paths), path) and path not in COMPILED:
            yield path, code


def test_the_functions_that_users_call_have_an_example() -> None:
    assert not [path for path in FUNCTIONS if CALLED.fullmatch(path) and path not in EXAMPLES]
    assert COMPILED.keys() <= EXAMPLES.keys()


def test_every_example_is_python_in_short_lines() -> None:
    for path, code in EXAMPLES.items():
        compile(code, path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        assert max(map(len, code.splitlines())) <= 108, path


async def run(path: str, code: str, **names: Any) -> None:
    """Run an example, with what its lines before it would have made."""
    scope = {
        "fanout": fanout,
        "Notification": Notification,
        "Target": Target,
        "ScriptedTransport": ScriptedTransport,
        **names,
    }
    try:
        made = eval(compile(code, path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), scope)
        if inspect.isawaitable(made):
            await made
    except BaseException as error:
        error.add_note(f"in the example of {path}:\n{code}")
        raise


OPEN: dict[str, Any] = {"storage": "memory:"}


def binding() -> dict[str, Any]:
    return {"transports": {"pigeon": ScriptedTransport()}}


def test_the_examples_of_the_engine_run() -> None:
    async def main() -> None:
        async with fanout.open(**OPEN, **binding()) as engine:
            for path, code in ran(r"fanout\.(Engine|Receipt|Target)\..*"):
                await engine.resume_binding("pigeon")
                endpoint = await engine.endpoints.register(user="alice", binding="pigeon", address="phone")
                receipt = await engine.send(Notification(title="Hi"), "user:alice")
                await run(path, code, engine=engine, endpoint=endpoint, receipt=receipt, cursor=0)
        for path, code in ran(r"fanout\.open"):
            await run(path, code)

    asyncio.run(main())


def test_the_examples_of_the_blocking_engine_run() -> None:
    with fanout.sync.open(**OPEN, **binding()) as engine:
        for path, code in sorted(ran(r"fanout\.sync\..*"), key=lambda each: each[0].endswith(".close")):
            engine.resume_binding("pigeon")
            endpoint = engine.endpoints.register(user="alice", binding="pigeon", address="phone")
            receipt = engine.send(Notification(title="Hi"), "user:alice")
            try:
                exec(
                    compile(code, path, "exec"),
                    {**globals(), "engine": engine, "endpoint": endpoint, "receipt": receipt},
                )
            except BaseException as error:
                error.add_note(f"in the example of {path}")
                raise


def test_the_examples_of_the_test_kit_run() -> None:
    async def main() -> None:
        for path, code in ran(r"fanout\.testing\.Pushes\..*"):
            with Pushes() as pushes:
                async with fanout.open(**OPEN, **binding()) as engine:
                    await engine.endpoints.register(user="alice", binding="pigeon", address="phone")
                    await engine.send(Notification(title="Hi"), "user:alice")
                    await run(path, code, pushes=pushes)
        names = {
            "VirtualClock": VirtualClock,
            "asynccontextmanager": asynccontextmanager,
            "Subject": Subject,
            "pytest": pytest,
        }
        names |= {"check_transport": check_transport, "user_token": user_token, "new_user_key": new_user_key}
        for path, code in ran(r"fanout\.testing\.(VirtualClock\..*|check_.*)", r"fanout\.service\.auth\..*"):
            await run(path, code, **names)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["AppClient", "UserClient"])
def test_the_examples_of_a_client_call_what_it_has(kind: str) -> None:
    """Against the signatures: the client's own tests call each method over a network."""
    client = getattr(fanout.client, kind)
    calls = 0
    for path, code in EXAMPLES.items():
        if not path.startswith(f"fanout.client.{kind}."):
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("client."):
                method = getattr(client, ast.unparse(node.func).removeprefix("client."))
                inspect.signature(method).bind(
                    client, *node.args, **{each.arg: each for each in node.keywords if each.arg}
                )
                calls += 1
    assert calls > 10
