from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_synthesis.cli.main import main
from robust_synthesis.errors import InvalidInput
from robust_synthesis.gateway.config import CONFIG, PREFIX, Settings, load
from robust_synthesis.gateway.server import Options

EXAMPLE = Path(__file__).parents[2] / "deploy" / "gateway.toml"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", *(name.upper() for name in Settings.model_fields)):
        monkeypatch.delenv(PREFIX + name, raising=False)


def test_the_example_has_every_setting_at_its_default() -> None:
    assert load(file=EXAMPLE).settings == load().settings
    named = re.findall(r"^(?:# )?([a-z_]+) = ", EXAMPLE.read_text(), re.MULTILINE)
    assert named == list(Settings.model_fields)


def test_what_the_example_shows_as_a_value_could_be_one(tmp_path: Path) -> None:
    text = re.sub(r"^# ([a-z_]+ = )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert set(tomllib.loads(text)) == set(Settings.model_fields)
    (tmp_path / "all.toml").write_text(text.replace("worker", "# worker"))
    settings = load(file=tmp_path / "all.toml").settings
    assert settings.endpoint.transport == "mTLS"


def test_metrics_are_on_loopback_unless_their_own_host_says_otherwise() -> None:
    public = {"listen": "0.0.0.0:1", "insecure": True}
    assert load(public).settings.metrics_host == "127.0.0.1"
    assert load({**public, "metrics_host": "0.0.0.0"}).settings.metrics_host == "0.0.0.0"


def test_a_variable_that_is_no_setting_is_said_with_the_names_near_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (
        "DATA",
        "SERVER",
        "SERVICE_HOST",
        "PORT",
        "PORT_50051_TCP_ADDR",
        "GATEWAY_SERVICE_PORT_GRPC",
        "MODELS",
    ):
        monkeypatch.setenv(PREFIX + name, "x")
    monkeypatch.setenv(PREFIX + "MAX_STEP", "5")
    (said,) = load().warnings
    assert said.startswith(
        "ROBUST_SYNTHESIS_MAX_STEP counts for nothing: there is no setting 'ROBUST_SYNTHESIS_MAX_STEP'; did you mean "
        "ROBUST_SYNTHESIS_MAX_STEPS"
    )
    assert main(["config"]) == 0
    assert said in capsys.readouterr().err


def test_settings_and_the_server_agree_on_defaults() -> None:
    assert load().settings.options == Options()


def test_flags_count_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("max_steps = 100\nmax_pictures = 10\ngrace = 5\n")
    monkeypatch.setenv(PREFIX + "MAX_STEPS", "200")
    monkeypatch.setenv(PREFIX + "MAX_PICTURES", "20")
    monkeypatch.setenv(CONFIG, str(file))
    config = load({"max_steps": "300"})
    settings = config.settings
    assert (settings.max_steps, settings.max_pictures, settings.grace, settings.streams) == (300, 20, 5.0, 1000)
    assert config.origins == {
        "max_steps": "--max-steps",
        "max_pictures": "ROBUST_SYNTHESIS_MAX_PICTURES",
        "grace": str(file),
    }
    assert settings.bounds.seconds == pytest.approx(2)


@pytest.mark.parametrize(
    ("flags", "field", "said"),
    [
        ({"max_steps": "many"}, "max_steps", r"is 'many' \(--max-steps\); input should be a valid integer"),
        ({"max_steps": 10_001}, "max_steps", "less than or equal to 10000"),
        ({"grace": "nan"}, "grace", "is 'nan'"),
        ({"deadline": "inf"}, "deadline", "less than or equal to 86400"),
        ({"queue_share": 0}, "queue_share", "greater than 0"),
        ({"backend": "cloud"}, "backend", "'embedded', 'torchserve' or 'remote'"),
        ({"backend": "remote"}, "workers", "give the addresses of worker agents"),
        ({"worker_tls": True}, "worker_tls", "the backend is embedded; leave it out"),
        ({"workers": "a:1", "device": "cpu"}, "device", "is the workers' own"),
        ({"workers": "a:1", "precision": "fp32"}, "precision", "is the workers' own"),
        ({"precision": "fp16"}, "precision", "bf16"),
        ({"listen": "0.0.0.0:1"}, "listen", "open to the network; give --tls-cert"),
        ({"tls_cert": "c"}, "tls_cert", "needs --tls-key"),
        ({"listen": ":1"}, "listen", "give HOST:PORT"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(flags: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        load(flags)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_step = 1", "no setting in .* called 'max_step'; did you mean max_steps"),
        ("= 1", "is not TOML"),
        ("\xff", "TOML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "wrong.toml").write_text(text, encoding="latin-1")
    with pytest.raises(InvalidInput, match=said):
        load(file=tmp_path / "wrong.toml")


def test_config_prints_what_counts_and_hides_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PREFIX + "WORKER_KEY", "open sesame")
    assert main(["config", "--workers", "one:1, two:2", "--no-worker-tls", "--queue-share", "0.25"]) == 0
    printed = capsys.readouterr().out
    assert "sesame" not in printed
    assert 'worker_key = "(hidden)"  # ROBUST_SYNTHESIS_WORKER_KEY\n' in printed
    assert "queue_share = 0.25  # --queue-share\n" in printed
    assert "# tls_cert =  # default\n" in printed
    monkeypatch.delenv(PREFIX + "WORKER_KEY")
    (tmp_path / "printed.toml").write_text(printed.replace('worker_key = "(hidden)"', ""))
    assert main(["config", "--config", str(tmp_path / "printed.toml")]) == 0
    assert [line.split("#")[0] for line in capsys.readouterr().out.splitlines() if "worker_key" not in line] == [
        line.split("#")[0] for line in printed.splitlines() if "worker_key" not in line
    ]


@pytest.mark.parametrize("verb", ["serve", "config"])
def test_a_wrong_setting_is_one_sentence_and_exit_code_2(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--max-steps", "0"]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == f"robust-synthesis {verb}: max-steps: is '0' (--max-steps); input should be greater than or equal to 1.\n"
    )


def test_a_secret_that_is_wrong_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("worker_key = 12345")
    with pytest.raises(InvalidInput) as caught:
        load(file=tmp_path / "gateway.toml")
    assert "12345" not in str(caught.value)


def test_a_secret_is_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    printed = capsys.readouterr().out
    assert "--worker-tls-key" in printed
    assert "--worker-key " not in printed


_ANY = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.lists(st.text(max_size=5), max_size=3)
)


@given(st.dictionaries(st.sampled_from(list(Settings.model_fields)), _ANY, max_size=6))
def test_anything_is_a_setting_or_refused_by_name(values: dict[str, Any]) -> None:
    refused, settings = None, None
    try:
        settings = load(values).settings
    except InvalidInput as error:
        refused = error
    if refused is not None:
        assert refused.field in Settings.model_fields
        assert "\n" not in str(refused)
    if settings is not None:
        assert settings.options.limits.steps <= 10_000
        assert settings.bounds.seconds > 0
