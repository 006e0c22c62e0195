"""Keys that `fanout serve` makes for itself where no caller is configured: kept in memory, and left for a shell in a
file."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

from fanout.config import ApiKeySettings, ServiceSettings, Settings, UserKeySettings
from fanout.errors import ConfigurationError

if TYPE_CHECKING:
    from fanout.service.auth import ApiKey, UserKey

__all__ = ["OwnKeys"]

_FILE = "fanout-serve.sh"
_USER = "alice"
_LIFE = 86_400.0


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """A key for the app's server and one that signs users' tokens, good until the process ends. `app` is theirs."""

    app: str
    api: ApiKey
    user: UserKey

    @classmethod
    def made(cls, settings: Settings) -> Self:
        """New keys, for the app `default` or else the first that is configured."""
        from fanout.service.auth import new_api_key, new_user_key

        return cls(
            "default" if "default" in settings.apps else next(iter(settings.apps)), new_api_key(), new_user_key()
        )

    def complete(self, service: ServiceSettings) -> ServiceSettings:
        """These settings with the keys, as long as they know no caller of their own."""
        if service.authenticated:
            return service
        return replace(
            service,
            keys=(ApiKeySettings(id=self.api.id, hash=self.api.hash, app=self.app),),
            user_keys=(UserKeySettings(id=self.user.id, secret=self.user.secret, app=self.app),),
        )

    def token(self) -> str:
        """A token of the user whom the page shows, good for a day."""
        from fanout.service.auth import user_token

        return user_token(self.user.secret, self.app, _USER, ttl=_LIFE)

    def page(self, url: str) -> str:
        """The small page, for that user. The part of the URL behind the # is not sent to any server."""
        return f"{url}/client/#{urlencode({'token': self.token(), 'user': _USER})}"

    @contextmanager
    def left(self, folder: Path, url: str) -> Iterator[Path]:
        """A file that only its owner can read and a shell reads with `. FILE`, for as long as the keys are good.

        The new file replaces an earlier one in one step, so that no other user's file or link is written to. Raises
        `ConfigurationError`.
        """
        values = {
            "SERVICE": url,
            "API_KEY": self.api.key.reveal(),
            "USER_KEY": self.user.secret.reveal(),
            "USER_TOKEN": self.token(),
        }
        text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
        file = folder / _FILE
        try:
            descriptor, made = tempfile.mkstemp(prefix=f".{_FILE}.", dir=folder)  # of mode 0600
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.replace(made, file)
        except OSError as error:
            raise ConfigurationError(
                f"The keys that were made cannot be left in {file} ({error.strerror}): add [[service.keys]], which `fanout keys api` writes."
            ) from None
        try:
            yield file
        finally:
            with suppress(OSError):
                if file.read_text(encoding="utf-8") == text:
                    file.unlink()
