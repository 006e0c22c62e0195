"""The settings of an FCM binding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fanout.plugin import ConfigurationError, Egress, Secret, egress_of, problem_of, refuse
from fanout_fcm.credential import GOOGLE_TOKEN_URL, PROJECT, ServiceAccount, read_service_account

__all__ = ["GATEWAY", "FcmSettings"]

GATEWAY = "https://fcm.googleapis.com"
"""Google's host (FCM v1 discovery document, revision 20261023)."""

_ORIGIN = re.compile(r"https://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FcmSettings:
    """One Firebase project. `service_account` is the text of the JSON file from the Firebase console. A process that
    only submits does without it, if `project_id` is set. Where no key is wanted, `auth` is `application_default`:
    credentials are found as Google's own libraries find them, or are those in `credentials` (the text of a file of type
    external_account, impersonated_service_account or authorized_user), and `project_id` must be given.

    `project_id` replaces the file's. `gateway` replaces Google's host and `token_url` its token endpoint, `iam_url` its
    IAM credentials API (test servers); `ca_file` is trusted besides the system's authorities. `connections` and
    `streams` (per connection) are upper limits, as Google's own may be lower; a thousand in flight are 10,000 a second
    at answers of 100 ms, and more only cost memory.

    `rate_per_minute` is the project's quota (Google's default is 600,000; 0 shapes nothing), of which this process uses
    at most all; `ramp` is in how many seconds it goes from nothing to that rate (0: at once). With `validate_only`
    Google checks every message and delivers none. `request_timeout` is in seconds; Google asks for at least 10 ("Best
    practices when sending FCM messages at scale").

    `proxy` is the egress proxy, `http://[USER:PASSWORD@]HOST:PORT`; or "environment" for the values of `HTTPS_PROXY`
    and `NO_PROXY`, or "direct" for none where the configuration has one for all.

    Raises `ConfigurationError` for settings that cannot work.
    """

    service_account: Secret | None = None
    auth: Literal["service_account", "application_default"] = "service_account"
    credentials: Secret | None = None
    project_id: str = ""
    gateway: str = GATEWAY
    token_url: str = ""
    iam_url: str = ""
    ca_file: Path | None = None
    connections: int = 10
    streams: int = 100
    rate_per_minute: int = 600_000
    ramp: float = 60.0
    validate_only: bool = False
    request_timeout: float = 15.0
    proxy: Secret | None = None

    def __post_init__(self) -> None:
        refuse(self._problems())

    def _problems(self) -> Iterator[str]:
        # A file is looked at when the transport is opened.
        if self.proxy is not None and self.proxy.at_hand and (problem := problem_of(lambda: self.egress)):
            yield problem
        yield from self._auth_problems()
        account = self.service_account
        if account is not None and account.at_hand and (problem := problem_of(self.check_account)):
            yield problem
        if self.project_id and not PROJECT.fullmatch(self.project_id):
            yield f"project_id is {self.project_id!r}: write the id shown in the Firebase console."
        if not _ORIGIN.fullmatch(self.gateway):
            yield f"gateway is {self.gateway!r}: write https://HOST or https://HOST:PORT, without a path."
        if self.iam_url and not _ORIGIN.fullmatch(self.iam_url):
            yield f"iam_url is {self.iam_url!r}: write https://HOST, or leave it out for Google's."
        origin, slash, _ = self.token_url.removeprefix("https://").partition("/")
        if self.token_url and not (slash and _ORIGIN.fullmatch(f"https://{origin}")):
            yield f"token_url is {self.token_url!r}: write https://HOST/PATH, or leave it out for Google's."
        if self.ca_file is not None and not self.ca_file.is_file():
            yield f"ca_file names no file ({self.ca_file}): put the PEM file there or correct the path."
        for name, least, most in (("connections", 1, 100), ("streams", 1, 10_000), ("rate_per_minute", 0, 10**9)):
            if not least <= getattr(self, name) <= most:
                yield f"{name} is {getattr(self, name)!r}: write a number from {least} to {most}."
        if not 0 <= self.ramp <= 86_400:
            yield f"ramp is {self.ramp!r}: write seconds from 0 to 86400."
        if not 0 < self.request_timeout <= 300:
            yield f"request_timeout is {self.request_timeout!r}: write seconds from above 0 to 300."

    @staticmethod
    def examine(values: Mapping[str, Any]) -> Iterator[str]:
        """The fault of the credential among these settings, which may be wrong otherwise
        (`TransportPlugin.settings`)."""
        from fanout_fcm.defaults import grant_of

        secret: Secret | None = values.get("credentials")
        if secret is not None and secret.at_hand:
            urls = {name: str(values.get(name) or "") for name in ("token_url", "iam_url")}
            if problem := problem_of(lambda: grant_of(secret, os.environ, **urls)):
                yield f"credentials: {problem}"

    def _auth_problems(self) -> Iterator[str]:
        if self.auth not in ("service_account", "application_default"):
            yield f"auth is {self.auth!r}: write service_account or application_default."
        if self.auth == "application_default":
            if self.service_account is not None:
                yield "auth is application_default, and service_account is set: keep one of them."
            if not self.project_id:
                yield "project_id is missing: write the project's id, which the credential may not name."
        elif self.credentials is not None:
            yield 'credentials is set: write auth = "application_default" beside it, or take it out.'
        elif self.service_account is None and not self.project_id:
            yield (
                "service_account is missing: set service_account_file to the JSON file from the Firebase console, or write "
                'auth = "application_default" to use the credentials of the machine or workload; programs that only submit need only '
                "project_id."
            )

    @property
    def egress(self) -> Egress:
        """Through which proxy a host is reached."""
        return egress_of(self.proxy, os.environ)

    @property
    def account(self) -> ServiceAccount:
        """The signer of the project, read. Raises `ConfigurationError`."""
        if self.service_account is None:
            raise ConfigurationError(
                "service_account is missing, and a program that sends needs it: set service_account_file to the JSON file from the "
                "Firebase console."
            )
        return read_service_account(self.service_account, any_token_url=bool(self.token_url))

    @property
    def project(self) -> str:
        """The project in use. Raises `ConfigurationError` where it stands in a file that cannot be read."""
        return self.project_id or self.account.project

    def check_account(self) -> None:
        """Raise `ConfigurationError` where the service account cannot be used, or names no project and `project_id`
        neither."""
        if not (self.account.project or self.project_id):
            raise ConfigurationError(
                "project_id is missing here and in the service account file: write the project's id."
            )

    @property
    def token_endpoint(self) -> str:
        """Where access tokens are fetched."""
        return self.token_url or GOOGLE_TOKEN_URL
