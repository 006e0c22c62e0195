"""Each key of a TOML file is told with the line on which it begins."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.config.places import line_of, places

TEXT = '''storage = "x"
# a comment

[policy]
attempts = 3
[apps.default.transports.apns]
key = """
-----BEGIN
[x]
y = 1
"""
hosts = [
  "a",
  { host = "b" },
]
[[service.keys]]
id = "1"
[[service.keys]]
id = "2"
"odd key" = 1
'''


def test_where_keys_stand() -> None:
    found = places(TEXT)
    assert found["storage"] == 1
    assert found["policy"] == 4
    assert found["apps.default.transports.apns.key"] == 7
    assert found["apps.default.transports.apns.hosts[1].host"] == 12
    assert (found["service.keys[0].id"], found["service.keys[1].id"]) == (17, 19)
    assert found["service.keys[1].odd key"] == 20


def test_what_a_sentence_speaks_of() -> None:
    found = places(TEXT + '[apps.shop.transports.apns]\nkey_file = "a"\n')
    for sentence, line in (
        ("storage names no scheme: write it as …", 1),
        ("policy.attempts is 0: it must be above zero.", 5),
        ("policy.attemptss is no setting: did you mean attempts?", 4),
        ("apps.default.transports.apns: key (key) is no P-256 private key", 7),
        ("apps.default.transports.apns: key_id is '': write …", 6),
        ("apps.shop.transports.apns.key_file: the file a does not exist", 22),
        ("apps.shop.transports.apns: key is no P-256 private key", 22),
        ("service.keys[1].hash is missing: write it.", 18),
        ("The environment variable FANOUT_X is no setting: correct its name.", None),
    ):
        assert line_of(sentence, found) == line, sentence


def test_what_is_no_toml_has_no_places() -> None:
    assert places("a = [") == {}
    assert places("a = 1\nb = \n") == {}


_NAME = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
_VALUE = st.sampled_from(['"x"', "3", '"""\n[a]\nb = 1\n"""', "[\n1,\n  2,\n]", "{ x = 1 }", "'''\n\n'''", "[]"])
_LINE = st.one_of(
    st.sampled_from(["", "# [no]", "  "]),
    st.builds("[{}]".format, st.lists(_NAME, min_size=1, max_size=3).map(".".join)),
    st.builds("[[{}]]".format, st.lists(_NAME, min_size=1, max_size=2).map(".".join)),
    st.builds("{} = {}".format, st.lists(_NAME, min_size=1, max_size=2).map(".".join), _VALUE),
)


@settings(max_examples=50)
@given(st.lists(_LINE, max_size=12).map("\n".join))
def test_the_places_are_those_that_a_parser_sees_line_by_line(text: str) -> None:
    """A key's line is the one after the longest beginning of the document that is valid and has not the key."""
    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = places(text)
    assert set(_paths(whole)) <= set(found)
    lines = text.split("\n")
    before, first = 0, {}
    for count in range(1, len(lines) + 1):
        try:
            seen = tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue
        for path in _paths(seen):
            first.setdefault(path, before + 1)
        before = count
    assert {path: found[path] for path in first} == first


def _paths(value: Any, before: str = "") -> list[str]:
    made = []
    if isinstance(value, dict):
        for key, part in value.items():
            path = f"{before}.{key}" if before else key
            made += [path, *_paths(part, path)]
    elif isinstance(value, list):
        for at, part in enumerate(value):
            made += [f"{before}[{at}]", *_paths(part, f"{before}[{at}]")]
    return made
