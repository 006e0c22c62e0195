"""Deliveries of a run to one host: encrypted in slices, and begun together when the last slice ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fanout.plugin import Deferred, Outcome, RequestFailed, Requests, Response, Run
from fanout_webpush.address import take_apart
from fanout_webpush.hosts import Host
from fanout_webpush.payload import WebPushMessage, ttl_field
from fanout_webpush.vapid import VapidTokens

__all__ = ["HostRun"]

_BROKEN = Deferred("a run could not be begun", sent="unknown")

Encrypt = Callable[[bytes, bytes, bytes], bytes]
Judge = Callable[[Host, VapidTokens, str, Response, Run, int], "Outcome | None"]
Fail = Callable[[Host, RequestFailed], "Outcome | None"]


class HostRun:
    """The deliveries (`indices`) of a `run` whose subscriptions were made with one VAPID key (`tokens`).

    `judge` makes an outcome of an answer other than 201, and `fail` of a failure; `left` is called when the host has
    become idle. A delivery to an older browser, to another host or without room is left to `send`.
    """

    __slots__ = ("_fail", "_host", "_judge", "_left", "_now", "_run", "_sealed", "_tokens", "_unanswered", "_waiting")

    def __init__(
        self,
        run: Run,
        indices: Sequence[int],
        host: Host,
        tokens: VapidTokens,
        *,
        now: Callable[[], float],
        judge: Judge,
        fail: Fail,
        left: Callable[[], None],
    ) -> None:
        self._run = run
        self._host = host
        self._tokens = tokens
        self._now = now
        self._judge = judge
        self._fail = fail
        self._left = left
        self._waiting = [*reversed(indices)]  # for encryption
        self._sealed: list[tuple[int, bytes, bytes]] = []
        """Deliveries that are encrypted and not sent yet: index, path and body."""
        self._unanswered = {*indices}
        host.runs[self] = None

    @property
    def idle(self) -> bool:
        """Whether no answer is waited for any more."""
        return all(map(self._run.over, self._unanswered))

    def go_on(self, encrypt: Encrypt, clock: Callable[[], float], until: float, most: int) -> int:
        """Encrypt at most `most` deliveries, until the time `until` by `clock`; their number. With the last one the
        requests of all are sent: a call, a write and a read for each slice would cost a sixth of the whole."""
        run, waiting, sealed, path_of = self._run, self._waiting, self._sealed, self._host.path_of
        record, before, addresses = run.message.record, len(sealed), run.addresses  # type: ignore[attr-defined]
        while waiting:
            index = waiting.pop()
            if run.over(index):
                self._end((index,))
                continue
            try:
                endpoint, p256dh, auth, older = take_apart(addresses[index])
                path = path_of(endpoint).encode()
                body = encrypt(record, p256dh, auth) if record and not older else b""
            except Exception:  # `send` names the fault; other deliveries go on
                self._leave((index,))
                continue
            if older and record:
                self._leave((index,))
                continue
            sealed.append((index, path, body))
            if len(sealed) - before == most or clock() >= until:
                break
        count = len(sealed) - before
        if sealed and not waiting:
            self._sealed = []
            self._end([index for index, _, _ in sealed if run.over(index)])  # since they were encrypted
            sealed = [each for each in sealed if each[0] in self._unanswered]
            try:
                if sealed:
                    self._begin(sealed)
            except Exception:
                indices = [index for index, _, _ in sealed]
                self._end(indices)
                for index in indices:
                    run.answer(index, _BROKEN)
                raise
        return count

    @property
    def over(self) -> bool:
        """Whether all deliveries are encrypted."""
        return not self._waiting

    def give_up(self) -> None:
        """Deliveries that are not sent yet are left to `send`."""
        waiting = [*self._waiting, *(index for index, _, _ in self._sealed)]
        self._waiting, self._sealed = [], []
        self._leave(waiting)

    def _begin(self, sealed: list[tuple[int, bytes, bytes]]) -> None:
        indices, paths, bodies = ([*each] for each in zip(*sealed, strict=True))
        run, host, pool = self._run, self._host, self._host.pool
        if pool is None:
            self._leave(indices)
            return
        message, now = run.message, self._now()
        assert isinstance(message, WebPushMessage)
        coding = "aes128gcm" if message.record else ""
        head = host.head(self._tokens, coding, message.content_type, now)
        common = ttl_field(host.ttl(run.ttl)) + message.fields
        requests = Requests(head, paths, common, [b""] * len(paths), bodies)
        answers = _Answers(self, indices, self._tokens.header(host.origin, now))
        unsent = pool.start(answers, requests, run.fresh)
        if unsent:
            self._leave([indices[number] for number in unsent])

    def _leave(self, indices: Sequence[int]) -> None:
        self._end(indices)
        for index in indices:
            self._run.answer(index, None)

    def _end(self, indices: Sequence[int]) -> None:
        unanswered, host = self._unanswered, self._host
        unanswered.difference_update(indices)
        if not unanswered and host.runs.pop(self, self) is None and host.idle:
            self._left()


class _Answers:
    """The answers to the requests, by their numbers."""

    __slots__ = ("_authorization", "_indices", "_of")

    created = True
    """See `Answers`."""

    def __init__(self, of: HostRun, indices: list[int], authorization: str) -> None:
        self._of = of
        self._indices = indices
        self._authorization = authorization

    def accepted(self, indices: list[int]) -> None:
        of, every = self._of, self._indices
        taken = every if len(indices) == len(every) else [every[number] for number in indices]
        of._host.accepted += len(taken)
        of._end(taken)
        of._run.accept(taken)

    def answered(self, index: int, response: Response) -> None:
        of, place = self._of, self._indices[index]
        of._end((place,))
        of._run.answer(place, of._judge(of._host, of._tokens, self._authorization, response, of._run, place))

    def failed(self, index: int, failure: RequestFailed) -> None:
        of, place = self._of, self._indices[index]
        of._end((place,))
        of._run.answer(place, of._fail(of._host, failure))

    def over(self, index: int) -> bool:
        return self._of._run.over(self._indices[index])
