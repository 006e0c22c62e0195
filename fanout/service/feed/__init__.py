"""The feed's logic: posting into it, carrying changes to a user's other devices, and the streams of open clients.

`FeedService` is the door, for the routes of `service.v1` and of the Graph facade. `plan` decides on the pushes and
their targets, without I/O; `streams` and `hub` hand changes to open event streams. It stands on the engine and on the
storage's feed facet.
"""

from fanout.service.feed.errors import FeedError
from fanout.service.feed.plan import Fallback, NewItem, PushPart
from fanout.service.feed.service import FeedService, Posted
from fanout.service.feed.settings import FeedSettings

__all__ = ["Fallback", "FeedError", "FeedService", "FeedSettings", "NewItem", "Posted", "PushPart"]
