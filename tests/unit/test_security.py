"""Certificates over real connections: who gets in, and what happens when the files change under an open channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from robust_synthesis.errors import InvalidInput
from robust_synthesis.security import Endpoint, bind


class Authority:
    """A certificate authority with its files."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.ca_file, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)
        self.issue()

    def issue(self) -> None:
        server = self.ca.issue_cert("127.0.0.1", "localhost")
        server.private_key_pem.write_to_path(self.key)
        server.cert_chain_pems[0].write_to_path(self.cert)

    def caller(self, name: str) -> grpc.ChannelCredentials:
        """A caller's certificate of this authority."""
        own = self.ca.issue_cert(name, common_name=name)
        return grpc.ssl_channel_credentials(
            self.ca_file.read_bytes(), own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
        )

    @property
    def trusting(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca_file.read_bytes())


@contextlib.asynccontextmanager
async def serving(endpoint: Endpoint) -> AsyncIterator[str]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)  # type: ignore[attr-defined]
    port = bind(server, endpoint.listen, endpoint.credentials())
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def served(channel: grpc.aio.Channel) -> bool:
    reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


async def gets_in(target: str, credentials: grpc.ChannelCredentials) -> bool:
    alone = [("grpc.use_local_subchannel_pool", 1)]  # else channels with equal credentials share a connection
    async with grpc.aio.secure_channel(target, credentials, options=alone) as channel:
        try:
            return await served(channel)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return False
            raise


def test_a_replaced_certificate_counts_for_new_connections_and_disturbs_no_open_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("robust_synthesis.watched.INTERVAL", 0)
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    endpoint = Endpoint(listen="127.0.0.1:0", tls_cert=old.cert, tls_key=old.key)

    async def main() -> None:
        async with serving(endpoint) as target, grpc.aio.secure_channel(target, old.trusting) as open_channel:
            assert await served(open_channel)
            old.cert.write_bytes(new.cert.read_bytes())  # half of the change: not a pair yet
            assert await gets_in(target, old.trusting)
            assert "are no PEM pair" in caplog.text
            old.key.write_bytes(new.key.read_bytes())
            assert await gets_in(target, new.trusting)
            assert not await gets_in(target, old.trusting)
            assert await served(open_channel)

    asyncio.run(main())


def test_with_an_authority_of_callers_only_their_certificates_get_in_and_it_can_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robust_synthesis.watched.INTERVAL", 0)
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    callers = tmp_path / "callers.pem"
    callers.write_bytes(ours.ca_file.read_bytes())
    endpoint = Endpoint(listen="127.0.0.1:0", tls_cert=ours.cert, tls_key=ours.key, tls_ca=callers)
    foreign = theirs.ca.issue_cert("stranger")
    stranger = grpc.ssl_channel_credentials(
        ours.ca_file.read_bytes(), foreign.private_key_pem.bytes(), foreign.cert_chain_pems[0].bytes()
    )

    async def main() -> None:
        async with serving(endpoint) as target:
            assert await gets_in(target, ours.caller("studio"))
            assert not await gets_in(target, ours.trusting)
            assert not await gets_in(target, stranger)
            callers.write_bytes(theirs.ca_file.read_bytes())
            assert await gets_in(target, stranger)
            assert not await gets_in(target, ours.caller("studio"))

    asyncio.run(main())


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.1.2.3:1", "localhost:1", "[::1]:1"])
def test_loopback_needs_neither_certificates_nor_keys(listen: str) -> None:
    assert Endpoint(listen=listen).transport == "plaintext"


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "128.0.0.1:1", "localhost.example:1"])
def test_every_other_address_needs_them(listen: str) -> None:
    with pytest.raises(InvalidInput, match="is open to the network; give --tls-cert") as error:
        Endpoint(listen=listen)
    assert error.value.field == "listen"
