"""How a server of ours is reached, and what it demands of who reaches it: the same for the gateway and for a worker's agent."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from .channel import DEFAULT_PORT
from .errors import InvalidInput
from .keys import KeyFile
from .watched import Watched

HEALTH = "/grpc.health.v1.Health/"
"""How methods begin that need no key: probes cannot show one."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Address, TLS and keys. On the network both TLS and a way to know callers are demanded, unless `insecure`.

    Raises InvalidInput for what would be open by accident, or makes no sense.
    """

    listen: str = "127.0.0.1:50061"
    """HOST:PORT; port 0 is any."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    """Callers must show a certificate of this authority."""
    keys: Path | None = None
    """Callers must show one of the keys of this file."""
    insecure: bool = False

    def __post_init__(self) -> None:
        host = self.host
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidInput("tls_cert", "needs --tls-key, and --tls-key needs it.")
        if self.tls_ca is not None and self.tls_cert is None:
            raise InvalidInput("tls_ca", "needs --tls-cert and --tls-key.")
        if on_loopback(host) or self.insecure:
            return
        if self.tls_cert is None:
            raise InvalidInput(
                "listen", f"{host} is open to the network; give --tls-cert and --tls-key, or --insecure."
            )
        if self.tls_ca is None and self.keys is None:
            raise InvalidInput("listen", f"{host} is open to the network; give --keys or --tls-ca, or --insecure.")

    @property
    def host(self) -> str:
        """Where it listens, a name or an address."""
        return host_and_port(self.listen)[0]

    @property
    def transport(self) -> str:
        """What calls travel over, for the log."""
        return "plaintext" if self.tls_cert is None else "mTLS" if self.tls_ca else "TLS"

    def key_file(self) -> KeyFile | None:
        """The keys, followed while the file changes. Raises InvalidInput and OSError."""
        return None if self.keys is None else KeyFile(self.keys)

    def credentials(self) -> grpc.ServerCredentials | None:
        """None for plaintext. A handshake after the files have changed uses them as they are then; connections stay.

        Raises InvalidInput for files that are not what they should be, which gRPC would only notice at a handshake, and OSError.
        """
        if self.tls_cert is None or self.tls_key is None:
            return None
        cert, key, ca = self.tls_cert, self.tls_key, self.tls_ca
        paths = [cert, key] if ca is None else [cert, key, ca]
        files = Watched(paths, lambda: _certificates(cert, key, ca))
        return grpc.dynamic_ssl_server_credentials(files.value, lambda: files.value, ca is not None)


def host_and_port(listen: str) -> tuple[str, int]:
    """Of HOST:PORT, where the host is in brackets if it has colons. Raises InvalidInput."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput("listen", f"is {listen!r}; give HOST:PORT, such as 0.0.0.0:{DEFAULT_PORT}.")
    return host.strip("[]"), int(port)


def on_loopback(host: str) -> bool:
    """Whether only this machine reaches a server there: 127.0.0.0/8, ::1 and localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> int:
    """Have the server listen at HOST:PORT; the port, which is a free one for port 0. Raises InvalidInput."""
    try:
        port = server.add_insecure_port(listen) if credentials is None else server.add_secure_port(listen, credentials)
    except RuntimeError:
        port = 0
    if not port:
        raise InvalidInput("listen", f"cannot listen on {listen}; is the port taken, or the host not ours?")
    return port


def _certificates(cert: Path, key: Path, ca: Path | None) -> grpc.ServerCertificateConfiguration:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput("tls_cert", f"{cert} and {key} are no PEM pair ({error}).") from error
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError as error:
            raise InvalidInput("tls_ca", f"{ca} has no PEM certificate ({error}).") from error
    return grpc.ssl_server_certificate_configuration(
        [(key.read_bytes(), cert.read_bytes())], None if ca is None else ca.read_bytes()
    )
