"""How we show a server who we are, and know who it is: the same for callers of a gateway and for a gateway that calls workers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from .errors import InvalidInput
from .watched import Watched


@dataclass(frozen=True)
class Shown:
    """Credentials as their files have them now."""

    channel: grpc.ChannelCredentials | None
    """None for plaintext."""
    metadata: tuple[tuple[str, str], ...]
    """Of every call: the bearer key, where there is one."""


@dataclass(frozen=True)
class Credentials:
    """Shown to a server, and demanded of it."""

    tls_ca: Path | None = None
    """Authority of the server's certificate; without it, and without a certificate, connections are plaintext."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    """With them the caller shows a certificate (mTLS)."""
    key: str | None = None
    """Bearer key."""
    tls: bool = False
    """Encrypt, with the system's authorities where there is no `tls_ca`."""
    key_file: Path | None = None
    """Of the bearer key, where it is not given itself."""

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidInput("tls_cert", "needs a tls_key, and a tls_key needs it.")
        if self.key is not None and self.key_file is not None:
            raise InvalidInput("key_file", "has a key, and another one is given; leave one of them out.")

    @property
    def encrypts(self) -> bool:
        return self.tls or self.tls_ca is not None or self.tls_cert is not None

    def channel(self) -> grpc.ChannelCredentials | None:
        """Raises InvalidInput for files that are no PEM, OSError for those that cannot be read."""
        if not self.encrypts:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert is not None:
                context.load_cert_chain(self.tls_cert, self.tls_key, password="")
        except (ssl.SSLError, ValueError) as error:
            raise InvalidInput("tls_ca", f"the certificates or the key cannot be used ({error}).") from error
        ca, key, cert = (
            None if path is None else path.read_bytes() for path in (self.tls_ca, self.tls_key, self.tls_cert)
        )
        return grpc.ssl_channel_credentials(ca, key, cert)

    def bearer(self) -> str | None:
        """The key, from its file where it is in one. Raises InvalidInput and OSError."""
        if self.key_file is None:
            return self.key
        try:
            return self.key_file.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise InvalidInput(
                "key_file", f"{self.key_file} is not text; give the file with the key itself."
            ) from error

    def follow(self) -> Watched[Shown]:
        """What is shown, also after the files have changed. Raises InvalidInput and OSError."""
        paths = [path for path in (self.tls_ca, self.tls_cert, self.tls_key, self.key_file) if path is not None]
        return Watched(paths, self._shown)

    def _shown(self) -> Shown:
        key = self.bearer()
        return Shown(self.channel(), (("authorization", f"Bearer {key}"),) if key else ())
