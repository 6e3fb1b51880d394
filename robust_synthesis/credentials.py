"""How we show a server who we are, and know who it is: the same for callers of a gateway and for a gateway that calls workers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from .errors import InvalidInput


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

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidInput("tls_cert", "needs a tls_key, and a tls_key needs it.")

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
