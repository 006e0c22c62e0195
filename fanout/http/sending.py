"""Flow control towards the peer (RFC 9113, section 5.2): the windows, and the bodies that wait for them. Pure."""

from __future__ import annotations

from fanout.http.frames import END_STREAM, LARGEST_WINDOW, SMALLEST_FRAME_LIMIT, FrameType, frame

__all__ = ["Outflow"]

_DATA = int(FrameType.DATA)


class _Body:
    """A request body that is not out yet. `window` may be negative (section 6.9.2)."""

    __slots__ = ("data", "offset", "window")

    def __init__(self, data: bytes, window: int) -> None:
        self.data = data
        self.offset = 0
        self.window = window


class Outflow:
    """The frames that may be sent.

    Only streams whose body still waits have a window here: once END_STREAM is out, the stream's window no longer
    matters. `fits` is the largest body that goes out at once as one DATA frame on a new stream, the connection's
    `window` permitting.
    """

    __slots__ = ("_initial", "fits", "max_frame", "waiting", "window")

    def __init__(self) -> None:
        self.window = 65_535
        self._initial = 65_535
        self.max_frame = SMALLEST_FRAME_LIMIT
        self.waiting: dict[int, _Body] = {}
        self.fits = SMALLEST_FRAME_LIMIT

    def add(self, stream: int, data: bytes) -> list[bytes]:
        """A body that did not fit: the part of it that can go now."""
        self.waiting[stream] = _Body(data, self._initial)
        return self.flow()

    def flow(self) -> list[bytes]:
        """The DATA frames that the windows now allow, oldest stream first."""
        out: list[bytes] = []
        done: list[int] = []
        for stream, body in self.waiting.items():
            if self.window <= 0:
                break
            while True:
                rest = len(body.data) - body.offset
                size = min(rest, self.window, body.window, self.max_frame)
                if size <= 0:
                    break
                out.append(
                    frame(
                        _DATA,
                        END_STREAM if size == rest else 0,
                        stream,
                        body.data[body.offset : body.offset + size],
                    )
                )
                body.offset += size
                body.window -= size
                self.window -= size
                if size == rest:
                    done.append(stream)
                    break
        for stream in done:
            del self.waiting[stream]
        return out

    def drop(self, stream: int) -> bool:
        """Forget the rest of a body; whether there was any."""
        return self.waiting.pop(stream, None) is not None

    def credit(self, increment: int) -> bool:
        """WINDOW_UPDATE for the connection. False if it exceeds the largest window, a connection error (section
        6.9.1)."""
        self.window += increment
        return self.window <= LARGEST_WINDOW

    def credit_stream(self, stream: int, increment: int) -> bool:
        """WINDOW_UPDATE for a stream. False if it exceeds the largest window, a stream error (section 6.9.1)."""
        body = self.waiting.get(stream)
        if body is None:
            return True
        body.window += increment
        return body.window <= LARGEST_WINDOW

    def set_initial_window(self, size: int) -> bool:
        """SETTINGS_INITIAL_WINDOW_SIZE: moves every open stream's window by the difference (section 6.9.2).

        False if that takes one over the largest window, a connection error.
        """
        difference = size - self._initial
        self._initial = size
        self.fits = min(size, self.max_frame)
        for body in self.waiting.values():
            body.window += difference
        return all(body.window <= LARGEST_WINDOW for body in self.waiting.values())

    def set_max_frame(self, size: int) -> None:
        """SETTINGS_MAX_FRAME_SIZE, already checked."""
        self.max_frame = size
        self.fits = min(self._initial, size)
