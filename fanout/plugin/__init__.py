"""Everything that a plugin imports: the two contracts, the descriptors that entry points name, and the values that pass
through.

A transport's modules import this module and nothing else of `fanout` (its `simulator.py` also `fanout.testing`). An
entry point of the group `fanout.transports` or `fanout.storage` names a descriptor, which must be cheap to import: a
heavy part is named by a "module:attribute" text and imported when first needed. All of `fanout.core.records` is here,
and all of `fanout.http`.
"""

# All of `fanout.core.records` and of `fanout.http` belongs to the contract:
# ruff: noqa: F403, F405

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fanout.core import records
from fanout.core.access import Grant, GrantKind
from fanout.core.address import Address
from fanout.core.alerts import CERTIFICATE_ALERTS, certificate_alert
from fanout.core.audit import Audit
from fanout.core.compact import compact
from fanout.core.delivery import Delivery, Message
from fanout.core.duration import parse_http_date, parse_retry_after
from fanout.core.endpoint import Endpoint, EndpointState, Registration
from fanout.core.feed import (
    Audience,
    FeedChange,
    FeedItem,
    FeedPage,
    FeedPost,
    FeedQuery,
    FeedWritten,
    Subscribed,
    Subscription,
    SubscriptionRequest,
    Touched,
)
from fanout.core.fitting import fitting
from fanout.core.fleet import SharedToken, WorkerNote
from fanout.core.model import LANES, Action, Notification, Target
from fanout.core.outcome import (
    ACCEPTED,
    Accepted,
    Deferred,
    Gone,
    Misconfigured,
    Moved,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.core.policy import Policy, Retention
from fanout.core.proxy import Egress, Proxy, direct, egress_of, place_of_url, way_to
from fanout.core.records import *
from fanout.core.run import Run
from fanout.core.secret import KeyPair, Secret
from fanout.core.states import DOUBT, FINAL_STATES, RETRY, DeliveryState, NotificationState, Waiting
from fanout.core.turns import Turns
from fanout.errors import (
    AddressInvalid,
    ConfigurationError,
    ContentRefused,
    InvalidMessage,
    MessageTooLarge,
    PartAbsent,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    problem_of,
    refuse,
)
from fanout.plugin.access import Access
from fanout.plugin.allowed import AllowedHost
from fanout.plugin.base import API, OLDEST_TRANSPORT, Clock
from fanout.plugin.control import ControlPart
from fanout.plugin.directory import DirectoryPart
from fanout.plugin.feed import Feed
from fanout.plugin.fleet import Fleet
from fanout.plugin.inbox import Inbox
from fanout.plugin.queue import PutAndLease, QueuePart
from fanout.plugin.sealing import Seal, Sealer, SealRecord, new_address_key, place_of
from fanout.plugin.storage import (
    Storage,
    StorageContext,
    StoragePlugin,
    access_of,
    clock_of,
    feed_of,
    fleet_of,
    has_part,
)
from fanout.plugin.transport import Context, Diagnosis, Divided, Fleetwide, Question, Transport, TransportPlugin

if TYPE_CHECKING:
    from fanout.http import *

__all__ = [
    "ACCEPTED",
    "API",
    "CERTIFICATE_ALERTS",
    "DOUBT",
    "FINAL_STATES",
    "LANES",
    "OLDEST_TRANSPORT",
    "RETRY",
    "Accepted",
    "Access",
    "Action",
    "Address",
    "AddressInvalid",
    "AllowedHost",
    "Answers",
    "Audience",
    "Audit",
    "Clock",
    "ConfigurationError",
    "ContentRefused",
    "Context",
    "ControlPart",
    "Deferred",
    "Delivery",
    "DeliveryState",
    "Diagnosis",
    "DirectoryPart",
    "Divided",
    "Egress",
    "Endpoint",
    "EndpointState",
    "Feed",
    "FeedChange",
    "FeedItem",
    "FeedPage",
    "FeedPost",
    "FeedQuery",
    "FeedWritten",
    "Fetched",
    "Fleet",
    "Fleetwide",
    "Forwarding",
    "Gone",
    "Grant",
    "GrantKind",
    "GuardedResolver",
    "GuardedUrl",
    "H2Pool",
    "Head",
    "HostGuard",
    "HostRefused",
    "Http1Client",
    "Http1Settings",
    "Inbox",
    "InvalidMessage",
    "KeyPair",
    "Message",
    "MessageTooLarge",
    "Misconfigured",
    "Moved",
    "NotPublic",
    "Notification",
    "NotificationState",
    "Outcome",
    "PartAbsent",
    "Policy",
    "PoolSettings",
    "PoolStats",
    "Proxy",
    "PutAndLease",
    "Question",
    "QueuePart",
    "Registration",
    "Rejected",
    "RequestFailed",
    "Requests",
    "Resolver",
    "Response",
    "Retention",
    "Run",
    "RunAnswers",
    "Scope",
    "Seal",
    "SealRecord",
    "Sealer",
    "Secret",
    "SharedToken",
    "Storage",
    "StorageContext",
    "StorageError",
    "StorageFull",
    "StoragePlugin",
    "StorageRefused",
    "StorageUnavailable",
    "Subscribed",
    "Subscription",
    "SubscriptionRequest",
    "Target",
    "Throttled",
    "Token",
    "TokenError",
    "TokenSource",
    "Touched",
    "Transport",
    "TransportPlugin",
    "Turns",
    "Unavailable",
    "Waiting",
    "WorkerNote",
    "access_of",
    "certificate_alert",
    "client_tls",
    "clock_of",
    "compact",
    "direct",
    "egress_of",
    "feed_of",
    "fetch_token",
    "fitting",
    "fleet_of",
    "has_part",
    "literal",
    "new_address_key",
    "parse_http_date",
    "parse_retry_after",
    "place_of",
    "place_of_url",
    "problem_of",
    "read_token",
    "refuse",
    "unanswered",
    "way_to",
]
__all__ += records.__all__


def __getattr__(name: str) -> Any:
    """The HTTP client is imported when a transport first asks for it: descriptors import this module too."""
    if name in __all__:
        found = globals()[name] = getattr(import_module("fanout.http"), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
