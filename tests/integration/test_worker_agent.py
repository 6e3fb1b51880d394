"""`robust-synthesis worker` as an operator runs it: a process of its own, with a real TorchServe, harmed in every way."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from robust_synthesis import imaging, wire
from robust_synthesis.archive import build
from robust_synthesis.bundle import Bundle, BundleError, JobPart, Output, Reply
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.requests import Request
from robust_synthesis.specs import Generate, Inpaint
from robust_synthesis.testing import mask, picture, tiny_card, tiny_model_folder
from robust_synthesis.v1 import worker_pb2, worker_pb2_grpc
from robust_synthesis.worker.compute import Compute
from robust_synthesis.worker.shelf import Places
from robust_synthesis.worker.torchserve import Settings, TorchServe
from robust_synthesis.worker.torchserve.config import Ports

from .processes import free_port

pytestmark = pytest.mark.real
MARK = "ROBUST_SYNTHESIS_TEST"
SECONDS = 240
"""For a JVM and a worker to start on a machine that is busy otherwise."""
KEY = "open sesame"
METADATA = (("authorization", f"Bearer {KEY}"),)
Code = grpc.StatusCode


@dataclass
class Agent:
    """A running agent, and a client of it."""

    process: subprocess.Popen[bytes]
    folder: Path
    mark: str
    metrics_port: int
    channel: grpc.Channel

    @property
    def stub(self) -> worker_pb2_grpc.WorkerServiceStub:
        return worker_pb2_grpc.WorkerServiceStub(self.channel)

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def files(self) -> list[Path]:
        """What it has in its temporary directory."""
        return sorted((self.folder / "tmp").iterdir())

    def processes(self) -> list[psutil.Process]:
        """The agent and all that it, or something below it, has started: they share a mark in their environments."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def find(self, part: str) -> psutil.Process | None:
        """The process whose command line has this part."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if any(part in argument for argument in process.cmdline()):
                    return process
        return None

    def java(self) -> psutil.Process | None:
        return next((process for process in self.processes() if process.name() == "java"), None)

    def worker(self) -> psutil.Process | None:
        return self.find("model_service_worker.py")

    def until(self, condition: Callable[[], object], seconds: float = SECONDS) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.02)

    def healthy(self) -> bool:
        try:
            answer = health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def models(self) -> list[worker_pb2.Model]:
        return list(self.stub.Describe(worker_pb2.DescribeRequest(), metadata=METADATA, timeout=30).models)

    def versions(self) -> dict[str, bool]:
        return {model.version: model.current for model in self.models()}

    def run(self, data: bytes, version: str, timeout: float = 120) -> Reply:
        request = worker_pb2.RunRequest(model="tiny", version=version, bundle=data, timeout_seconds=timeout)
        return wire.decode_reply(self.stub.Run(request, metadata=METADATA, timeout=SECONDS).bundle)

    def run_when_up(self, data: bytes, version: str) -> Reply:
        """As a gateway would: what did not run, or was lost, is sent again."""
        end = time.monotonic() + SECONDS
        while True:
            try:
                return self.run(data, version)
            except grpc.RpcError as error:
                if code(error) not in (Code.UNAVAILABLE, Code.ABORTED) or time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def metrics(self) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as response:
            text = response.read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics().get((name, frozenset(labels.items())))

    def end(self, number: int) -> float:
        """Send a signal, and wait until nothing is left; seconds until then."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(SECONDS)
        while (left := self.processes()) and time.monotonic() < started + 60:
            time.sleep(0.05)
        assert left == [], self.said
        return time.monotonic() - started


def code(error: grpc.RpcError) -> grpc.StatusCode:
    assert isinstance(error, grpc.Call)
    return error.code()


@contextlib.contextmanager
def agent(*options: object, ca: bytes | None = None) -> Iterator[Agent]:
    """`robust-synthesis worker` with these options; every process of it is gone at the end, even when a test fails."""
    with tempfile.TemporaryDirectory(
        prefix="rs-"
    ) as folder:  # pytest's have long names, too long for TorchServe's sockets
        port, metrics_port, mark = free_port(), free_port(), uuid.uuid4().hex
        command = [sys.executable, "-m", "robust_synthesis", "worker", "--device", "cpu", *map(str, options)]
        (Path(folder) / "tmp").mkdir()
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--listen", f"127.0.0.1:{port}", "--metrics-port", str(metrics_port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {MARK: mark, "OMP_NUM_THREADS": "1", "TMPDIR": f"{folder}/tmp"},
            )
        target = f"127.0.0.1:{port}"
        if ca is None:
            channel = grpc.insecure_channel(target)
        else:
            channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(root_certificates=ca))
        running = Agent(process, Path(folder), mark, metrics_port, channel)
        try:
            yield running
        finally:
            channel.close()
            for left in running.processes():
                with contextlib.suppress(psutil.Error):
                    left.kill()
            process.wait()


def job(seed: int = 1, steps: int = 10, *, exact: bool = True) -> JobPart:
    spec = Generate(target="circle", seed=seed, steps=steps)
    return JobPart(steps=steps + 1, request=Request(spec=spec), exact=exact, output=Output())


def slow_bundle(version: str) -> bytes:
    """One that takes a second, or half a minute on a machine that is busy otherwise."""
    return wire.encode(Bundle("tiny", [job(seed, 300, exact=False) for seed in range(4)], version))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    tiny_model_folder(directory / "tiny")
    return directory


@pytest.fixture(scope="module")
def version(models: Path) -> str:
    return Classifier.load(models / "tiny").version


@pytest.fixture(scope="module")
def data(version: str) -> bytes:
    """A bundle of one short job from start to picture."""
    return wire.encode(Bundle("tiny", [job()], version))


@pytest.fixture(scope="module")
def expected(models: Path, data: bytes) -> bytes:
    """The picture that this process computes of it."""
    classifier = Classifier.load(models / "tiny", device="cpu", precision="auto")
    picture = wire.decode_reply(Compute(classifier).run(data)).jobs[0].picture
    assert picture is not None
    return picture


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with a real TorchServe, TLS and a key, ready; the tests of this module harm it one after another."""
    folder = tmp_path_factory.mktemp("a")
    ca = trustme.CA()
    server = ca.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(folder / "key.pem")
    server.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    (folder / "keys").write_text(f"{hashlib.sha256(KEY.encode()).hexdigest()} test\n")
    tls = ("--tls-cert", folder / "cert.pem", "--tls-key", folder / "key.pem", "--keys", folder / "keys")
    with agent("--models", models, "--grace", 3, "--drain", 120, *tls, ca=ca.cert_pem.bytes()) as running:
        running.until(running.healthy)
        yield running


def test_the_largest_requests_compute_through_torchserve_two_at_a_time(served: Agent, version: str) -> None:
    """Files of 32 MiB, of which all but the first bytes are none of the picture's."""
    files = [imaging.encode(each) for each in (picture(seed=3), mask())]
    image, hole = (file + bytes(imaging.MAX_BYTES - len(file)) for file in files)
    request = Request(spec=Inpaint(target="waves", seed=1, steps=3), image=image, mask=hole, paste_back=True)
    data = wire.encode(Bundle("tiny", [JobPart(10, request, output=Output())]))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for reply in pool.map(lambda _: served.run(data, version), range(4)):
            assert reply.jobs[0].failure is None
            assert reply.jobs[0].picture


def test_a_bundle_through_torchserve_is_the_embedded_result_bit_for_bit(
    served: Agent, data: bytes, version: str, expected: bytes
) -> None:
    reply = served.run(data, version)
    assert (reply.model, reply.version) == ("tiny", version)
    assert reply.jobs[0].picture == expected
    (model,) = served.models()
    assert (model.name, model.version, model.current, model.device) == ("tiny", version, True, "cpu")
    assert (reply.device, reply.precision) == (model.device, model.precision)
    assert set(model.step_seconds) == {1, 8}


def test_no_call_but_health_works_without_the_key(served: Agent, data: bytes) -> None:
    assert served.healthy()
    for metadata in ((), (("authorization", "Bearer guess"),)):
        with pytest.raises(grpc.RpcError) as caught:
            served.stub.Run(worker_pb2.RunRequest(model="tiny", bundle=data), metadata=metadata, timeout=30)
        assert code(caught.value) is Code.UNAUTHENTICATED


def test_what_is_no_bundle_is_said_in_the_reply_and_an_unknown_version_in_the_status(
    served: Agent, data: bytes, version: str
) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        served.run(b"nonsense", version)
    with pytest.raises(grpc.RpcError, match="not tiny 0000") as caught:
        served.run(data, "0000")
    assert code(caught.value) is Code.NOT_FOUND


def test_a_third_bundle_is_refused_at_once(served: Agent, data: bytes, version: str) -> None:
    slow = slow_bundle(version)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        under_way = [pool.submit(served.run, slow, version) for _ in range(2)]
        served.until(lambda: served.metric("worker_bundles_outstanding") == 2)
        started = time.monotonic()
        with pytest.raises(grpc.RpcError, match="busy") as caught:
            served.run(data, version)
        assert code(caught.value) is Code.RESOURCE_EXHAUSTED
        assert time.monotonic() - started < 5
        assert [len(future.result().jobs) for future in under_way] == [4, 4]


def test_the_machine_is_measured(served: Agent, data: bytes, version: str) -> None:
    served.run(data, version)
    assert (served.metric("worker_bundles_total", outcome="ok") or 0) >= 3
    assert (served.metric("worker_bundles_total", outcome="busy") or 0) >= 1
    assert (served.metric("worker_bundle_jobs_count", model="tiny") or 0) >= 3
    for process in ("agent", "jvm", "worker"):
        assert (served.metric("worker_memory_bytes", process=process) or 0) > 20 * 2**20
    assert served.metric("worker_up") == 1
    assert any(name == "ts_bundle_seconds_count" for name, _ in served.metrics())  # TorchServe's own
    if shutil.which("nvidia-smi") is None:
        assert not any(name.startswith("gpu_") for name, _ in served.metrics())


def test_a_killed_worker_comes_back_and_the_next_bundle_is_the_same(
    served: Agent, data: bytes, version: str, expected: bytes
) -> None:
    before = served.metric("worker_restarts_total", what="worker") or 0
    worker = served.worker()
    assert worker is not None
    worker.kill()
    assert served.run_when_up(data, version).jobs[0].picture == expected
    assert served.metric("worker_restarts_total", what="worker") == before + 1
    served.until(served.healthy)


def test_a_stopped_worker_is_replaced(served: Agent, data: bytes, version: str, expected: bytes) -> None:
    worker = served.worker()
    assert worker is not None
    worker.suspend()
    assert served.run_when_up(data, version).jobs[0].picture == expected
    assert not worker.is_running()


def test_a_bundle_that_does_not_end_in_time_is_lost_and_its_worker_replaced(
    served: Agent, data: bytes, version: str, expected: bytes
) -> None:
    endless = wire.encode(Bundle("tiny", [job(seed, 1000) for seed in range(32)], version))
    worker = served.worker()
    assert worker is not None
    with pytest.raises(grpc.RpcError) as caught:
        served.run(endless, version, timeout=0.5)
    assert code(caught.value) is Code.ABORTED
    assert served.run_when_up(data, version).jobs[0].picture == expected
    assert not worker.is_running()


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_stopped_jvm_is_replaced(
    served: Agent, data: bytes, version: str, expected: bytes, harm: signal.Signals
) -> None:
    java = served.java()
    assert java is not None
    served.until(served.healthy)
    before = served.metric("worker_restarts_total", what="frontend") or 0
    java.send_signal(harm)
    served.until(lambda: served.metric("worker_restarts_total", what="frontend") == before + 1)
    assert served.run_when_up(data, version).jobs[0].picture == expected
    assert not java.is_running()
    assert len([process for process in served.processes() if process.name() == "java"]) == 1


def test_a_replaced_classifier_takes_over_and_the_old_version_stays_for_its_jobs(
    served: Agent, models: Path, data: bytes, version: str, expected: bytes, tmp_path: Path
) -> None:
    new = tiny_model_folder(tmp_path / "tiny", tiny_card(), seed=1)
    build(new.path, tmp_path)
    shutil.copy(tmp_path / "tiny.mar", models / "tiny.mar")  # the folder of that name counts more: nothing changes
    shutil.copytree(models / "tiny", tmp_path / "old")
    shutil.rmtree(models / "tiny")  # now the archive is all there is
    while new.version not in served.versions():
        assert served.run_when_up(data, version).jobs[0].picture == expected
    assert served.versions()[new.version]
    other = wire.encode(Bundle("tiny", [job()], new.version))
    assert served.run_when_up(other, new.version).jobs[0].picture != expected
    served.until(lambda: served.versions() == {new.version: True})
    with pytest.raises(grpc.RpcError) as caught:
        served.run(data, version)
    assert code(caught.value) is Code.NOT_FOUND

    (models / "tiny.mar").write_bytes((models / "tiny.mar").read_bytes()[:-1000])
    served.until(lambda: "truncated or damaged" in served.said)
    assert served.run_when_up(other, new.version).version == new.version

    (tmp_path / "old").rename(models / "tiny")
    served.until(lambda: served.versions().get(version))
    assert served.run_when_up(data, version).jobs[0].picture == expected


def test_classifiers_are_added_and_removed_and_one_that_does_not_load_harms_no_other(
    served: Agent, models: Path, data: bytes, version: str, expected: bytes
) -> None:
    """Without a restart, and without a process left over."""
    broken = tiny_model_folder(models / "broken", tiny_card("broken"))
    card = broken.card.to_json().replace('"width": 4', '"width": 8')
    (models / "broken" / "model.json").write_text(card)
    tiny_model_folder(models / "second", tiny_card("second"))
    served.until(lambda: {model.name for model in served.models()} == {"tiny", "second"})
    served.until(lambda: re.search("broken .* cannot be loaded: .* the card says", served.said))
    assert served.run_when_up(data, version).jobs[0].picture == expected
    assert served.metric("worker_restarts_total", what="frontend") == 2
    shutil.rmtree(models / "second")
    shutil.rmtree(models / "broken")
    served.until(lambda: {model.name for model in served.models()} == {"tiny"})
    workers = [process for process in served.processes() if "model_service_worker" in " ".join(process.cmdline())]
    served.until(lambda: sum(worker.is_running() for worker in workers) == 1)
    assert served.run_when_up(data, version).jobs[0].picture == expected


def test_no_secret_is_in_the_log(served: Agent) -> None:
    assert KEY not in served.said
    tokens = re.findall(r'"key": "(.+?)"', "".join(path.read_text() for path in served.folder.rglob("key_file.json")))
    assert tokens
    assert not any(token in served.said for token in tokens)


def test_sigterm_finishes_the_bundle_under_way_and_leaves_nothing(served: Agent, version: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(served.run_when_up, slow_bundle(version), version)
        served.until(lambda: served.metric("worker_bundles_outstanding") == 1)
        served.end(signal.SIGTERM)
        assert len(under_way.result().jobs) == 4
    assert served.process.returncode == 0
    assert served.files == []


def test_no_process_is_left_when_agent_and_keeper_are_killed_together(models: Path) -> None:
    with agent("--models", models) as running:
        running.until(running.healthy)
        keeper = running.find("keeper.py")
        assert keeper is not None
        running.process.kill()
        keeper.kill()
        running.end(signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_and_no_file_is_left_when_the_agent_ends_in_the_middle_of_its_start(
    models: Path, number: signal.Signals
) -> None:
    with agent("--models", models) as running:
        running.until(running.worker)
        assert running.files
        assert len(running.processes()) >= 4
        running.end(number)
        assert running.files == []


def test_in_process_the_same_bundle_has_the_same_picture_and_sigterm_ends_it(
    models: Path, tmp_path: Path, data: bytes, version: str, expected: bytes
) -> None:
    build(models / "tiny", tmp_path)
    with agent("--model", tmp_path / "tiny.mar", "--engine", "inprocess") as running:
        running.until(running.healthy)
        assert running.run(data, version).jobs[0].picture == expected
        assert len(running.processes()) == 1
        running.end(signal.SIGTERM)
        assert running.process.returncode == 0


def refused(folder: Path, *options: object, limits: Callable[[], None] | None = None) -> str:
    """The one sentence with which `worker` refuses to start."""
    done = subprocess.run(
        [sys.executable, "-m", "robust_synthesis", "worker", "--metrics-port", "0", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
        preexec_fn=limits,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1].removeprefix("robust-synthesis worker: ")


def test_what_prevents_a_start_is_one_sentence(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not a folder" in refused(tmp_path, "--models", tmp_path / "none")
    assert refused(tmp_path, "--model", "dog").startswith("model: there is no model 'dog'")
    (tmp_path / "x.mar").write_bytes(b"PK")
    assert "truncated or damaged" in refused(tmp_path, "--model", tmp_path / "x.mar", "--engine", "inprocess")
    (tmp_path / "empty").mkdir()
    said = refused(tmp_path, "--models", tmp_path / "empty", "--engine", "inprocess")
    assert said == f"model: there is no classifier in {tmp_path / 'empty'}; put a model folder there."
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "is the port taken" in refused(tmp_path, "--models", models, "--listen", f"127.0.0.1:{port}")
        assert "choose another" in refused(tmp_path, "--models", models, "--metrics-port", port)
    if shutil.which("nvidia-smi") is None:
        with tempfile.TemporaryDirectory(prefix="rs-") as folder:
            assert "there is no cuda for TorchServe" in refused(Path(folder), "--models", models, "--device", "cuda")
    assert "--insecure" in refused(tmp_path, "--models", models, "--listen", "0.0.0.0:0")
    monkeypatch.setenv("ROBUST_SYNTHESIS_PRECISION", "fp16")
    said = refused(tmp_path, "--models", models)
    assert said == "precision: is 'fp16'; give auto, fp32, bf16, int8, or unset ROBUST_SYNTHESIS_PRECISION."


def test_a_classifier_that_torchserve_cannot_load_is_one_sentence(tmp_path: Path) -> None:
    broken = tiny_model_folder(tmp_path / "broken", tiny_card("broken"))
    (broken.path / "model.json").write_text(broken.card.to_json().replace('"width": 4', '"width": 8'))
    with tempfile.TemporaryDirectory(prefix="rs-") as folder:
        said = refused(Path(folder), "--model", broken.path)
        assert re.fullmatch(r"model: .*the card says.*", said), said
        assert list(Path(folder).iterdir()) == []


def test_a_port_that_torchserve_finds_taken_is_replaced_by_another(
    models: Path, version: str, data: bytes, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was free when we looked."""
    tries = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = Ports.free

        def unlucky_at_first() -> Ports:
            tries.append(free())
            return dataclasses.replace(tries[-1], inference=taken.getsockname()[1]) if len(tries) == 1 else tries[-1]

        monkeypatch.setattr(Ports, "free", unlucky_at_first)

        async def answer() -> bytes:
            engine = TorchServe(Places(paths=[models / "tiny"]), settings=Settings(device="cpu"))
            await engine.start()
            try:
                return await engine.run(data, model="tiny", version=version, timeout=SECONDS)
            finally:
                await engine.close()

        assert wire.decode_reply(asyncio.run(answer())).jobs[0].picture == expected
    assert len(tries) == 2


def test_a_disk_on_which_nothing_can_be_written_is_one_sentence(models: Path) -> None:
    def nothing_fits() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    with tempfile.TemporaryDirectory(prefix="rs-") as folder:
        said = refused(Path(folder), "--models", models, limits=nothing_fits)
        assert said.startswith(f"torchserve: cannot use {folder}/robust-synthesis-")
        assert said.endswith("(File too large); free some space, or set TMPDIR.")
        assert list(Path(folder).iterdir()) == []
