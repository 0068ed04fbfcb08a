"""What `deployc serve` sets before Ray is imported."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from serve.environment import NOTE_START, check_free, free_port, ray_environment
from specs.errors import ServeError


def things(variables: dict[str, str]) -> set[str]:
    """Every port, path and secret that a run has for itself."""
    found: set[str] = set()
    for name, value in variables.items():
        if name.endswith("_IMPORT_PATH"):  # a Python name, the same in every run
            continue
        if "_MIN_" in name and name.endswith("_PORT"):
            end = variables[name.replace("_MIN_", "_MAX_")]
            found |= {str(port) for port in range(int(value), int(end))}
        elif "_MAX_" not in name and name.endswith(("_PORT", "_PATH", "_LOC", "_TOKEN", "_FILE")):
            found.add(value)
    return found


def test_two_runs_share_no_port_and_no_file() -> None:
    with ray_environment(haproxy=True) as first, ray_environment(haproxy=True) as second:
        one, other = things(first), things(second)
        assert len(one) >= 193 + 8
        assert not one & other


def test_haproxy_s_files_are_closed_to_other_users_and_go_with_the_run() -> None:
    with ray_environment(haproxy=True) as variables:
        folder = Path(variables["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_without_haproxy_it_is_off() -> None:
    with ray_environment(haproxy=False) as variables:
        assert variables["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
        assert "RAY_SERVE_HAPROXY_STATS_PORT" not in variables


def test_a_user_s_choice_of_authentication_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_environment(haproxy=False) as variables:
        assert "RAY_AUTH_TOKEN" not in variables


def test_the_token_is_not_in_this_process_s_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with ray_environment(haproxy=False) as variables:
        assert len(variables["RAY_AUTH_TOKEN"]) == 64
        assert os.environ.get("RAY_AUTH_TOKEN") != variables["RAY_AUTH_TOKEN"]


def test_a_port_in_use_is_refused_with_the_way_out() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with pytest.raises(ServeError) as caught:
            check_free("127.0.0.1", sock.getsockname()[1])
    assert "--port" in caught.value.hint


def test_a_free_port_is_free_and_none_that_a_connection_may_take() -> None:
    port = free_port()
    check_free("127.0.0.1", port)
    assert port < 32_768
    with ray_environment(haproxy=True) as variables:
        ports = [int(each) for name, each in variables.items() if name.endswith("_PORT")]
    assert max(ports) < 32_768


def in_order(_: object) -> None:
    """In place of a shuffle."""


def test_a_range_in_which_another_listens_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.shuffle", in_order)
    with ray_environment(haproxy=True) as variables:
        taken = int(variables["RAY_SERVE_HAPROXY_STATS_PORT"])
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", taken))
        sock.listen()
        with ray_environment(haproxy=True) as variables:
            assert int(variables["RAY_SERVE_HAPROXY_STATS_PORT"]) > taken


def test_the_ports_of_one_run_are_not_the_same() -> None:
    with ray_environment(haproxy=True) as variables:
        single = [
            int(each)
            for name, each in variables.items()
            if name.endswith("_PORT") and "_MIN_" not in name and "_MAX_" not in name
        ]
        first = int(variables["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"])
    assert len(set(single)) == len(single) == 6
    assert first > max(single)


@pytest.mark.parametrize("target", ["", "127.0.0.1:514"])
def test_haproxys_own_ports_are_put_on_loopback_and_the_others_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Nor is its access log, where somebody asks for it."""
    monkeypatch.setenv("RAY_SERVE_HAPROXY_LOG_TARGET", target)
    with ray_environment(haproxy=True) as variables:
        command = Path(variables["RAY_SERVE_HAPROXY_BINARY_PATH"])
        ports = [variables[f"RAY_SERVE_HAPROXY_{name}_PORT"] for name in ("METRICS", "STATS")]
        config = tmp_path / "node" / "haproxy.cfg"
        config.parent.mkdir()
        binds = f" bind :{ports[0]}\n  bind *:{ports[1]}\n"
        unheard = "    log 127.0.0.1:514 local0 info\n"
        config.write_text(f"{unheard}{binds}frontend http_frontend\n  bind 0.0.0.0:8000\n")
        done = subprocess.run(
            [command, "-c", "-f", config], capture_output=True, text=True, check=False
        )
    found = [line.strip() for line in config.read_text().splitlines()]
    binds = [line for line in found if not line.startswith("log ")]
    assert (len(found) > len(binds)) == bool(target)
    assert binds[:2] == [f"bind 127.0.0.1:{port}" for port in ports]
    assert binds[2:] == ["frontend http_frontend", NOTE_START.strip(), "bind 0.0.0.0:8000"]
    assert "haproxy.cfg" in done.stderr  # HAProxy itself was started, and refused this file
