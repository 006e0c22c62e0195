"""`/v1/me/subscriptions`: a user's devices, each with its UNSID."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Response
from pydantic import BaseModel, Field

from fanout.core.feed import Subscription
from fanout.service.call import UserCall
from fanout.service.docs import errors
from fanout.service.feed import FeedService
from fanout.service.v1.models import In

__all__ = ["router"]

router = APIRouter(prefix="/v1/me/subscriptions", tags=["subscriptions"])


class SubscriptionIn(In):
    """One device. Sent again by the same user, app and device, it renews the subscription, which keeps its UNSID."""

    device_id: str = Field(
        min_length=1,
        max_length=256,
        description="Stays the same for an installation of the client; the user's own name for it.",
    )
    binding: str | None = Field(None, min_length=1, max_length=128, description="None for a device that only polls.")
    address: str | dict[str, Any] | None = Field(None, description="The address that the platform hands the client.")
    receive: Literal["push", "signal", "none"] = Field(
        "push", description="Pushes with content, bare signals to come and fetch, or nothing."
    )
    platform: str = Field("", max_length=64, description="Such as ios; otherwise the binding's.")
    expires_in: float | None = Field(None, gt=0, description="Seconds; the longest if left out.")


class SubscriptionOut(BaseModel):
    """A subscription. Any UNSID that has not expired addresses the whole user of its app."""

    id: int
    unsid: str
    device_id: str
    binding: str | None
    platform: str
    receive: Literal["push", "signal", "none"]
    state: Literal["active", "expiring", "expired", "unreachable"] = Field(
        description="Renew in the state expiring or expired; unreachable wants a new address."
    )
    created_at: float
    renewed_at: float
    expires_at: float


class SubscriptionList(BaseModel):
    """All of a user's."""

    subscriptions: list[SubscriptionOut]


_UNSTORED = {"cache-control": "no-store"}
"""Of answers that hold an UNSID, which addresses all of a user's devices."""

Former = Annotated[
    str,
    Header(
        alias="X-UNS-ID",
        max_length=128,
        description="The UNSID that the device had under another user, whose subscription ends. A Web Push device needs it where its keys have "
        "changed; every other address proves the device by itself.",
    ),
]
Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.post(
    "",
    status_code=201,
    response_model=SubscriptionOut,
    summary="Subscribe a device, or renew it",
    responses={
        200: {"model": SubscriptionOut, "description": "Renewed"},
        **errors(400, 403, 409, 413, 415, 429, 503, 507),
    },
)
async def _subscribe(call: UserCall, wanted: SubscriptionIn, response: Response, former: Former = "") -> dict[str, Any]:
    call.charge("changes")
    feed = call.service.feed
    subscription, renewed = await feed.subscribe(
        *call.owner,
        device=wanted.device_id,
        binding=wanted.binding,
        address=wanted.address,
        receive=wanted.receive,
        platform=wanted.platform,
        expires_in=wanted.expires_in,
        former=former,
    )
    response.status_code = 200 if renewed else 201
    response.headers.update(_UNSTORED)
    response.headers["location"] = f"{call.base}/v1/me/subscriptions/{subscription.id}"
    return _shown(feed, subscription)


@router.get("", response_model=SubscriptionList, summary="The user's subscriptions", responses=errors(403))
async def _list(call: UserCall, response: Response) -> dict[str, Any]:
    response.headers.update(_UNSTORED)
    feed = call.service.feed
    return {"subscriptions": [_shown(feed, each) for each in await feed.subscriptions(*call.owner)]}


@router.get("/{id}", response_model=SubscriptionOut, summary="One subscription", responses=errors(403, 404))
async def _get(call: UserCall, id: Id, response: Response) -> dict[str, Any]:
    response.headers.update(_UNSTORED)
    feed = call.service.feed
    return _shown(feed, await feed.subscription(*call.owner, id))


@router.delete(
    "/{id}", status_code=204, response_model=None, summary="End it, on sign-out", responses=errors(403, 404, 429)
)
async def _delete(call: UserCall, id: Id) -> None:
    call.charge("changes")
    await call.service.feed.unsubscribe(*call.owner, id)


def _shown(feed: FeedService, subscription: Subscription) -> dict[str, Any]:
    return {
        "id": subscription.id,
        "unsid": subscription.unsid,
        "device_id": subscription.device,
        "binding": subscription.binding or None,
        "platform": subscription.platform,
        "receive": subscription.receive,
        "state": feed.state_of(subscription),
        "created_at": subscription.created_at,
        "renewed_at": subscription.renewed_at,
        "expires_at": subscription.expires_at,
    }
