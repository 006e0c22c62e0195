"""One OpenTelemetry span for each sampled attempt, by wrapping a transport's `send` at start-up.

Only the API of OpenTelemetry is used: where the spans go is the SDK's configuration, in the program that embeds the
engine or by `opentelemetry-instrument fanout work`. Without traces in the configuration nothing of this is imported.

Names and attributes follow the semantic conventions for messaging
(https://opentelemetry.io/docs/specs/semconv/messaging/) where they fit: a span `send BINDING` of kind producer with
`messaging.system`, `messaging.operation.name`, `messaging.operation.type`, `messaging.destination.name`,
`messaging.message.id` (the delivery's id), `messaging.message.body.size` and, where the gateway did not accept,
`error.type`. Our own are `fanout.app`, `fanout.attempt`, `fanout.outcome`, `fanout.reason` and `fanout.ttl`. Never the
address or the user.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self, cast

from fanout.errors import ConfigurationError
from fanout.plugin import (
    Accepted,
    Context,
    Delivery,
    Message,
    Misconfigured,
    Moved,
    Outcome,
    Run,
    Throttled,
    Transport,
    Unavailable,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["Traced", "traced"]

_REASON_LIMIT = 64
_MOST_CHOSEN = 10_000
"""Sampled deliveries that may be on their way from `start` to `send`."""


def traced(transport: Transport, ratio: float, *, context: Context, system: str) -> Transport:
    """The transport with a span for the share `ratio` of its attempts; itself where that is 0.

    `context` is the context that the transport was made with, `system` its name. Raises `ConfigurationError` where
    opentelemetry-api is not installed.
    """
    if ratio <= 0:
        return transport
    try:
        from opentelemetry import trace
    except ImportError:
        raise ConfigurationError(
            "telemetry.traces needs OpenTelemetry's API, which is not installed: pip install opentelemetry-api, "
            "and an SDK that sends the spans somewhere."
        ) from None
    tracer = trace.get_tracer("fanout", version("fanout-push"))
    return cast(Transport, Traced(transport, tracer, ratio, context, system))


class Traced:
    """A transport that another one does the work of. Attempts that are not sampled cost one draw and one call."""

    def __init__(self, transport: Transport, tracer: Tracer, ratio: float, context: Context, system: str) -> None:
        self._transport = transport
        self._send = transport.send
        self._tracer = tracer
        self._ratio = ratio
        self._name = f"send {context.binding}"
        self._attributes = {
            "messaging.system": system,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": context.binding,
            "fanout.app": context.app,
        }
        self._draw = context.rng.random
        self._chosen: set[tuple[int, int]] = set()
        """The sampled deliveries of runs that are to come by `send`, by message and endpoint."""
        if getattr(transport, "start", None) is not None:
            self.start = self._start

    def __getattr__(self, name: str) -> Any:
        """The transport's own methods: the rest of the contract, and its methods beside that, such as `stats`."""
        return getattr(self._transport, name)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._transport.__aexit__(*exc)

    def _start(self, run: Run) -> Sequence[int]:
        """The transport's own `start`; sampled attempts are left to `send`."""
        start: Callable[[Run], Sequence[int]] = self._transport.start  # type: ignore[attr-defined]
        sampled = [index for index in range(len(run)) if self._draw() < self._ratio]
        if not sampled:
            return start(run)
        if len(self._chosen) > _MOST_CHOSEN:
            self._chosen.clear()  # deliveries that were never sent after all: their notification was cancelled, say
        self._chosen.update((id(run.message), run.rows[index].id) for index in sampled)
        others = [index for index in range(len(run)) if index not in set(sampled)]
        part = run.part(others)
        return [*sampled, *(part.of_whole(start(part)) if others else ())]

    def send(self, message: Message, delivery: Delivery) -> Coroutine[Any, Any, Outcome]:
        """The transport's own coroutine, or for a sampled attempt one with a span around it."""
        key = (id(message), delivery.endpoint)
        if key in self._chosen:
            self._chosen.discard(key)
        elif self._draw() >= self._ratio:
            return self._send(message, delivery)
        return self._sampled(message, delivery)

    async def _sampled(self, message: Message, delivery: Delivery) -> Outcome:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        attributes: dict[str, str | int] = {
            **self._attributes,
            "messaging.message.id": delivery.id,
            "messaging.message.body.size": message.size,
            "fanout.attempt": delivery.attempt,
            "fanout.ttl": delivery.ttl,
        }
        # The text of an exception may hold an address: its type alone is kept.
        with self._tracer.start_as_current_span(
            self._name,
            kind=SpanKind.PRODUCER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                outcome = await self._send(message, delivery)
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise
            name = type(outcome).__name__.lower()
            span.set_attribute("fanout.outcome", name)
            if isinstance(outcome, Accepted):
                return outcome
            span.set_attribute("fanout.reason", outcome.reason[:_REASON_LIMIT])
            if not isinstance(outcome, Moved):
                span.set_attribute("error.type", name)
            if isinstance(outcome, (Throttled, Unavailable, Misconfigured)):
                # A device that is gone, or a message that will not pass, is an answer and no failure of the exchange.
                span.set_status(Status(StatusCode.ERROR))
            return outcome
