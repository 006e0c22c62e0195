"""The contract of a transport: one gateway, for one binding."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from fanout.core.address import Address
from fanout.core.delivery import Delivery, Message
from fanout.core.fleet import SharedToken
from fanout.core.model import Notification
from fanout.core.outcome import Outcome
from fanout.core.policy import Policy
from fanout.core.secret import KeyPair
from fanout.plugin.base import API, Clock

__all__ = ["Context", "Diagnosis", "Divided", "Fleetwide", "Question", "Transport", "TransportPlugin"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of `check`. `problem` is empty when all is well, else one sentence that names the change to make.

    `warning` is a state that will become a problem unless it is changed, in one sentence.
    """

    problem: str = ""
    detail: str = ""
    warning: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem


class Divided(Protocol):
    """The part of a transport that keeps to a share of a rate. It is asked and told about once a second, and never for
    a delivery."""

    def demand(self) -> float:
        """The share that it could use at present, in the unit of the rate. Asked before each `grant`.

        Returns:
            Infinite for all there is; less where it is nearly idle, so that busier processes get the rest.
        """
        ...

    def grant(self, share: float) -> None:
        """Use so much from now on.

        Args:
            share: The share of the rate, in the unit of the rate; 0.0 for nothing.
        """
        ...


class Fleetwide(Protocol):
    """The state that a transport shares with those of the same account in all processes that use the database.

    Nothing of it is for the path of a delivery: each is a question to storage, or is answered by one within a second or
    so.
    """

    def divide(self, name: str, rate: float, part: Divided) -> Callable[[], None]:
        """Have a rate divided among all processes that name it so, by the part that each could use: never more than all
        of it is out.

        The part is granted 0.0 at once, and its share while an engine delivers in this process; it is not kept alive by
        this. Name the account, so that two of them are two.

        Args:
            name: The name of the account's rate, the same in all processes.
            rate: The whole rate, such as a number of requests per second.
            part: The receiver of this process's share.

        Returns:
            A function that asks for more without waiting for the next round; a call costs next to nothing.
        """
        ...

    async def token(self, name: str, *, offer: SharedToken | None = None, spacing: float = 0.0) -> SharedToken | None:
        """The token that stands under that name for all processes.

        It is stored, so it must be worth little for long: keep to tokens that end within an hour, and never store a
        key. The name must tell nothing, and be another for another credential.

        Args:
            name: The name of the token.
            offer: A token that this process has made, which takes the standing one's place; None only reads.
            spacing: The least time between two tokens, in seconds: an offer that comes sooner is passed over.

        Returns:
            The token; None where there is none.

        Raises:
            StorageError: The database cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The context of a transport, besides its settings. It draws time and chance from here and nowhere else.

    `fleet` is None where no other process can share the work: a transport then has all of its rate, and tokens of its
    own.
    """

    app: str
    binding: str
    clock: Clock
    rng: random.Random
    policy: Policy = field(default_factory=Policy)
    fleet: Fleetwide | None = None


class Transport(Protocol):
    """One gateway, for one binding. Opened and closed as an async context manager; closing twice is harmless.

    The engine calls `parse_address` and `prepare` in processes that never send, which do not open it and may not be
    able to read its secrets: so neither may need a connection or a credential, and neither may block. A secret is
    revealed when it is opened. `send` is called concurrently, up to `capacity` at a time per group.

    A transport may also have `stats() -> Mapping[str, int]`, read at each scrape of metrics: `connections` that take
    requests and `requests` under way, as they stand now, and under other names (few, the same ever after, in lower
    case: `opened`, `lost`) how often something happened since the opening. `H2Pool.figures` makes such a mapping; one
    over several pools adds them up.

    And `ways() -> Mapping[str, str]`: by which way each host is reached that is known before anything is sent
    (`way_to`), for `fanout doctor`. A setting `proxy: Secret | None = None` is given the proxy of the whole
    configuration where the binding names none (`egress_of`).

    `one_gateway = True` says that all its groups are answered by one gateway under one credential: an acceptance in
    one of them vouches for uncertain deaths (`Gone.certain`) in all. Without it each group has to be accepted by
    itself.

    And `start(run: Run) -> Sequence[int]`, which begins deliveries together without a coroutine for each: deliveries
    that can be sent at this moment are sent, and answered by `run.accept` and `run.answer` when the gateway has
    answered, within the request deadline. It returns the indices that have to wait (for a connection, a token, a turn):
    those go by `send`. It neither blocks nor answers the indices that it returned. An answer may come in any thread,
    and during `start`; it is settled behind it. A delivery without an answer is given up after twice the deadline, and
    its later answer counts in `fanout_late_answers_total`. A delivery that is over by `run.over` has no
    waiter any more: its request is to end soon. `H2Pool.start` does all of this, and reports to an `Answers`.

    And `fits(notification: Notification, size: int) -> bool`: True says that `prepare` cannot refuse it. `size` is the
    length of its content as JSON, in bytes: all that the caller gave, each value once. It is then prepared only where a
    device of the binding is found, when its delivery begins; without `fits`, or where that answers False, at each
    `send`, so that the caller hears a refusal. An upper bound is enough, and has to be cheap: content without
    overrides, so small that it fits however it is escaped. A delivery of content that `prepare` refuses nevertheless
    ends as rejected.
    """

    async def __aenter__(self) -> Self:
        """Get ready, in a process that sends, or for `check`. No connection is made yet. Raises `ConfigurationError`
        for a credential that cannot be read or used."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Close every connection and end every task. Pending sends resolve."""
        ...

    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        """The canonical form of an address.

        Args:
            raw: The text or object that the platform hands the client.

        Returns:
            The address.

        Raises:
            AddressInvalid: It is none of this platform. The text does not have the address.
        """
        ...

    def prepare(self, notification: Notification) -> Message:
        """Encode a notification once for all endpoints. Pure.

        Args:
            notification: The notification, as it was accepted.

        Returns:
            The message.

        Raises:
            MessageTooLarge: It is over the gateway's limit.
            InvalidMessage: It cannot be put into the gateway's form.
        """
        ...

    def capacity(self, group: str) -> int:
        """The number of sends of this group that may be under way at once, as its connections stand now.

        Args:
            group: The group, as `Address.group` names it.

        Returns:
            0 makes the group wait, with the reason `limiter`: where connections are open and the gateway allows no
            request at present. At least 1 where there is no connection yet, for the first send opens it.
        """
        ...

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        """Try once. Cancelling it harms no other send.

        Where `delivery.fresh` is set, try over a new connection, or over one that answered a request within the last
        second.

        Args:
            message: The value that `prepare` made.
            delivery: The endpoint, the attempt, and the remaining time to live.

        Returns:
            The outcome, within the request deadline.
        """
        ...

    async def check(self) -> Diagnosis:
        """Prove the credentials without pushing to a user.

        Returns:
            The result.
        """
        ...

    # A transport may also have `mended()`: called, on the loop, when an operator says that the fault that kept it from
    # sending is mended (`fanout resume`), and when the clock was set. A credential that the gateway has refused, a
    # token say, is not presented again. And `woke()`: called after the machine was suspended. Connections from before
    # it are replaced, or proven, before anything is sent over them.


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The question of `fanout init` for one setting of a binding.

    `setting` is a key of the binding's table, or NAME_file for the path of a file with the secret NAME; `ask` names
    the value and the place where it is found, in a line. An empty answer means `default`; where that is empty too, the
    setting is left out.
    """

    setting: str
    ask: str
    default: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportPlugin:
    """The descriptor that an entry point of the group `fanout.transports` names.

    `settings` is a frozen dataclass: each field is a key of the binding's table, a field of type `Secret` may also be
    given as NAME_file or through the environment. Faults are raised as one `ConfigurationError` (`refuse` takes all at
    once, a sentence each that begins with its key). It may have `examine(values)`, a static method that yields the
    faults of credentials among the values of fields that could be read: `fanout doctor` asks it even where something
    else is wrong. `factory` makes the transport from (settings, context): a callable or "module:attribute". `extra` is
    the extra to install for it (`pip install 'fanout-push[EXTRA]'`). `simulator` makes a stand-in for the gateway
    ("module:attribute" of a class with the interface of `fanout.testing.simulator.Simulator`), or is None. `keys` are
    the credentials that need no provider to be made, by the word that `fanout keys` knows them under. `browser` serves
    a page on loopback that subscribes the user's own browser, for a transport whose `keys` have one kind: called with
    (engine, application_server_key=…, binding=…, user=…, port=…), an async context manager of something with a `url`.
    `questions` are those that `fanout init` asks for a binding; a credential of `keys` it makes itself.
    """

    name: str
    settings: type
    factory: str | Callable[[Any, Context], Transport]
    api: int = API
    extra: str = ""
    simulator: str | Callable[..., Any] | None = None
    keys: Mapping[str, str | Callable[[], KeyPair]] = field(default_factory=dict)
    browser: str | Callable[..., Any] | None = None
    questions: Sequence[Question] = ()
