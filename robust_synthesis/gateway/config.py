"""The gateway's settings, from four places: a flag counts before the environment, that before the file, that before the default.

The setting `max_steps`, say, is the flag `--max-steps`, the variable ROBUST_SYNTHESIS_MAX_STEPS, and `max_steps` in a TOML file,
which `--config` or ROBUST_SYNTHESIS_CONFIG names. deploy/gateway.toml has all of them; `robust-synthesis config` prints what each
is, and where it comes from.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from ..channel import request_bytes
from ..errors import InvalidInput, NotFound
from ..exposition import HOST
from ..imaging import MAX_BYTES, MAX_PIXELS
from ..precisions import Precision
from ..security import Endpoint
from ..specs import MAX_COUNT, MAX_STEPS
from .authentication import CONCURRENT
from .backends.remote import Credentials
from .edit import SessionLimits
from .limits import Limits
from .queue import Bounds
from .server import Options
from .uploads import UploadLimits

PREFIX = "ROBUST_SYNTHESIS_"
CONFIG = PREFIX + "CONFIG"
WITHIN_GRACE = 0.4
"""Of the grace period, what the queue may hold of the workers' time: the longest job may take as long again after all others, and
a fifth is left for what is not steps."""
HIDDEN = "(hidden)"
OTHERS = {PREFIX + name for name in ("CONFIG", "DATA", "SERVER")}
"""Variables of other commands, and the one that names the file."""
_OF_KUBERNETES = re.compile(PREFIX + r"(\w+_)?(SERVICE_(HOST|PORT)|PORT(_\d|$))")
"""Set in every pod for a service that is called robust-synthesis."""


def _listed(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Seconds = Annotated[float, Field(gt=0, le=86_400)]
List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


class Settings(BaseSettings):
    """All settings. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    listen: str = Field(Options.listen, description="HOST:PORT for callers; port 0 is any")
    metrics_port: int = Field(9465, ge=0, le=65535, description="for Prometheus; 0 is none")
    metrics_host: str = Field(HOST, min_length=1, description="where that port is; it is plaintext and asks for no key")
    health_port: int = Field(
        Options.health_port, ge=0, le=65535, description="for probes without TLS and keys, on the same host; 0 is none"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least important to log")
    log_format: Literal["text", "json"] = Field("text", description="json is one object a line, with the request id")

    backend: Literal["embedded", "torchserve", "remote"] | None = Field(
        None,
        description="who computes: embedded is this process, torchserve one below it, remote are worker agents "
        "(default: remote where there are workers, else embedded)",
    )
    models: Path | None = Field(None, description="folder of the classifiers (default: model_store)")
    default_model: str = Field("", description="of requests without one (default: the robust one of most classes)")
    device: str | None = Field(None, description="cpu, cuda or cuda:N (default: a GPU where there is one)")
    precision: Precision | None = Field(
        None,
        description="of the computation (default: auto, the fastest here)",
    )
    workers: List = Field((), description="addresses of worker agents, HOST:PORT; every address of a name is a worker")
    worker_tls: bool = Field(False, description="encrypt to workers, with the system's authorities")
    worker_tls_ca: Path | None = Field(
        None, description="encrypt to workers, which have certificates of this authority"
    )
    worker_tls_cert: Path | None = Field(
        None, description="shown to workers; read again when it changes, as are the two beside it"
    )
    worker_tls_key: Path | None = Field(None, description="of that certificate")
    worker_key: SecretStr | None = Field(None, description="key shown to workers")
    worker_key_file: Path | None = Field(None, description="file of that key; read again when it changes")

    tls_cert: Path | None = Field(None, description="certificate, PEM; read again when it changes")
    tls_key: Path | None = Field(None, description="its key, PEM")
    tls_ca: Path | None = Field(None, description="callers must show a certificate of this authority")
    keys: Path | None = Field(
        None, description="file of callers' keys, as `robust-synthesis keys` makes it; read again, too"
    )
    insecure: bool = Field(False, description="listen on the network without TLS or keys")

    rate: float | None = Field(None, gt=0, le=1e9, description="requests a minute of a caller (default: any number)")
    concurrent: int = Field(CONCURRENT, ge=1, description="requests that a caller may have open at a time")
    queue_share: float = Field(
        Bounds.share,
        gt=0,
        le=1,
        description="of the queue, of what arrives and of the sessions, at most, for one caller that has a name",
    )
    queue_seconds: Seconds | None = Field(
        None,
        description="of the workers' time that the queue may hold (default: 0.4 of `grace`, so that all is done in time)",
    )
    queue_requests: int = Field(Bounds.requests, ge=1, description="that the queue may hold")
    queue_mib: int = Field(Bounds.bytes // 2**20, ge=1, description="of images that the queue may hold")
    upload_mib: int = Field(
        UploadLimits.bytes // 2**20, ge=1, description="of requests that arrive, before they are in the queue"
    )
    sessions: int = Field(SessionLimits.sessions, ge=1, description="of edits, at a time, of all callers")

    max_image_mib: int = Field(
        MAX_BYTES // 2**20, ge=1, le=MAX_BYTES // 2**20, description="of an image's file, or a mask's"
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, le=MAX_PIXELS, description="of an image, by its header")
    max_steps: int = Field(MAX_STEPS, ge=1, le=MAX_STEPS, description="of a request")
    max_pictures: int = Field(MAX_COUNT, ge=1, le=MAX_COUNT, description="of a request")

    deadline: Seconds = Field(Options.deadline, description="of calls that have none")
    grace: float = Field(
        Options.grace, ge=0, le=86_400, description="from SIGTERM to the end; accepted requests may finish"
    )
    connection_age: Seconds = Field(
        Options.connection_age, description="after which clients are asked to connect anew, to spread load"
    )
    connection_grace: Seconds = Field(
        Options.connection_grace, description="for the calls of a connection that has reached its age"
    )
    streams: int = Field(Options.streams, ge=1, description="calls at a time on one connection")

    @property
    def computes(self) -> str:
        """The backend, chosen where none is given."""
        return self.backend or ("remote" if self.workers else "embedded")

    @property
    def options(self) -> Options:
        """How the gateway serves. Raises InvalidInput for what makes no sense together."""
        limits = Limits(self.max_image_mib * 2**20, self.max_pixels, self.max_steps, self.max_pictures)
        times = ("deadline", "grace", "connection_age", "connection_grace")
        names = ("listen", "health_port", "default_model", "streams", *times)
        return Options(
            limits=limits,
            uploads=UploadLimits(self.upload_mib * 2**20, self.queue_share),
            sessions=SessionLimits(self.sessions, self.queue_share),
            **{name: getattr(self, name) for name in names},
        )

    @property
    def endpoint(self) -> Endpoint:
        """How the gateway is reached. Raises InvalidInput for what makes no sense together."""
        names = ("listen", "tls_cert", "tls_key", "tls_ca", "keys", "insecure")
        return Endpoint(**{name: getattr(self, name) for name in names})

    @property
    def credentials(self) -> Credentials:
        """What workers are shown. Raises InvalidInput for what makes no sense together."""
        key = None if self.worker_key is None else self.worker_key.get_secret_value()
        return Credentials(
            tls_ca=self.worker_tls_ca,
            tls_cert=self.worker_tls_cert,
            tls_key=self.worker_tls_key,
            key=key,
            tls=self.worker_tls,
            key_file=self.worker_key_file,
        )

    @property
    def bounds(self) -> Bounds:
        """Of the queue."""
        seconds = max(1.0, WITHIN_GRACE * self.grace) if self.queue_seconds is None else self.queue_seconds
        return Bounds(seconds, self.queue_share, self.queue_requests, self.queue_mib * 2**20)

    def check(self) -> None:
        """Raises InvalidInput for settings that contradict each other."""
        _ = self.endpoint, self.credentials
        self.options.uploads.check(request_bytes(self.options.limits.image_bytes))
        if self.computes == "remote" and not self.workers:
            raise InvalidInput("workers", "is missing; give the addresses of worker agents, or another backend.")
        for name in _OF_REMOTE:
            if getattr(self, name) and self.computes != "remote":
                raise InvalidInput(name, f"is for remote workers, and the backend is {self.computes}; leave it out.")


_OF_REMOTE = ("workers", "worker_key", "worker_key_file", "worker_tls", "worker_tls_ca", "worker_tls_cert")


@dataclass(frozen=True)
class Config:
    """Settings, and where each that is not a default came from."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: Sequence[str] = ()
    """What was said in the environment and counts for nothing, a sentence each."""

    def lines(self) -> Iterator[str]:
        """A TOML file with every setting and its origin; secrets are hidden."""
        for name in Settings.model_fields:
            value = getattr(self.settings, name)
            shown = f"# {name} =" if value is None else f"{name} = {_toml(value)}"
            yield f"{shown}  # {self.origins.get(name, 'default')}"


def load(flags: Mapping[str, Any] | None = None, file: Path | None = None) -> Config:
    """Settings from all places. Raises InvalidInput naming the setting that is wrong and its place, and OSError for the file."""
    if file is None and os.environ.get(CONFIG):
        file = Path(os.environ[CONFIG])
    written = {} if file is None else _file(file)
    environment = EnvSettingsSource(Settings)()
    origins = dict.fromkeys(written, str(file))
    origins |= {name: PREFIX + name.upper() for name in environment}
    origins |= {name: f"--{name.replace('_', '-')}" for name in flags or {}}
    try:
        settings = Settings(**{**written, **environment, **(flags or {})})
    except ValidationError as error:
        raise _refusal(error, origins) from None
    settings.check()
    for name in ("models", "device", "precision"):
        elsewhere = name in origins and origins[name] != PREFIX + name.upper()  # the variables are other commands', too
        if settings.computes == "remote" and elsewhere:
            raise InvalidInput(name, "is the workers' own where they are remote; leave it out.")
    return Config(settings, origins, tuple(_unknown(os.environ)))


def _unknown(environment: Iterable[str]) -> Iterator[str]:
    """Warnings, and no refusals: whoever runs us may have variables of such names, too."""
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in names | OTHERS and not _OF_KUBERNETES.match(name):
            yield f"{name} counts for nothing: {NotFound('', name, names, kind='setting').message}"


def _file(path: Path) -> Mapping[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("config", f"{path} is not TOML ({error}); see deploy/gateway.toml.") from error
    for name in found:
        if name not in Settings.model_fields:
            raise NotFound("config", name, Settings.model_fields, kind=f"setting in {path} called")
    return found


def _refusal(error: ValidationError, origins: Mapping[str, str]) -> InvalidInput:
    """The first mistake, in a sentence. Nothing of a secret is shown."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    secret = Settings.model_fields[name].annotation == SecretStr | None
    shown = HIDDEN if secret else repr(first["input"])
    reason = first["msg"].removeprefix("Value error, ")
    return InvalidInput(name, f"is {shown} ({origins.get(name, 'default')}); {reason[0].lower()}{reason[1:]}.")


def _toml(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = HIDDEN
    return json.dumps(value if isinstance(value, (bool, int, float, tuple)) else str(value), ensure_ascii=False)
