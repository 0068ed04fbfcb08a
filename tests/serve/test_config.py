"""``deploy.yaml``: every key is known, every value has its place, paths are resolved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serve import config
from serve.artifacts import digest_of
from specs.errors import DeploycError, ServeError

GOOD = """
http_options:
  host: 127.0.0.1
  port: 8000
applications:
  - name: app
    import_path: serve.app:build
    args:
      models:
        - artifact: build/digits
    deployments:
      - name: digits
        num_replicas: 2
        ray_actor_options: {num_cpus: 1}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "deploy.yaml"
    path.write_text(text, "utf-8")
    return path


def problems(folder: Path, text: str) -> str:
    with pytest.raises(ServeError) as caught:
        config.check(config.read(write(folder, text)))
    return caught.value.message.replace(f"{folder}/", "")


def test_the_repository_s_own_config_is_good(root: Path) -> None:
    file = config.read(root / "deploy.yaml")
    config.check(file)
    assert config.http_address(file) == ("127.0.0.1", 8000)


def test_a_good_config_passes(tmp_path: Path) -> None:
    config.check(config.read(write(tmp_path, GOOD)))


@pytest.mark.parametrize(
    ("right", "wrong", "place", "hint"),
    [
        ("http_options", "http_optons", "deploy.yaml:2:1: http_optons", "http_options"),
        ("host", "hots", "deploy.yaml:3:3: http_options.hots", "host"),
        ("import_path", "import_pth", "7:5: applications[0].import_pth", "import_path"),
        ("models", "model", "9:7: applications[0].args.model", "models"),
        ("artifact", "artefact", "10:11: applications[0].args.models[0].artefact", "artifact"),
        ("num_replicas", "replicas_num", "13:9: applications[0].deployments[0].replicas_num", ""),
        ("num_cpus", "num_cpu", "deployments[0].ray_actor_options.num_cpu", "num_cpus"),
    ],
)
def test_a_misspelt_key_is_refused_with_its_line_and_the_nearest_name(
    tmp_path: Path, right: str, wrong: str, place: str, hint: str
) -> None:
    text = problems(tmp_path, GOOD.replace(right, wrong))
    assert place in text
    if hint and wrong != "import_pth":  # without import_path Ray's own check speaks, too
        assert f"did you mean '{hint}'?" in text


@pytest.mark.parametrize("text", ["applications: []", "http_options: {port: 1}\napplications: []"])
def test_an_empty_list_of_applications_is_refused_with_what_belongs_there(
    tmp_path: Path, text: str
) -> None:
    found = problems(tmp_path, text)
    assert "applications: the list is empty" in found
    assert "serve.app:build" in found


def test_all_misspelt_keys_are_told_at_once(tmp_path: Path) -> None:
    text = problems(tmp_path, GOOD.replace("port", "prot").replace("artifact", "artefact"))
    assert text.count("there is no key") >= 2


def test_the_user_config_of_a_model_is_judged_and_of_other_builders_not(tmp_path: Path) -> None:
    text = GOOD.replace("num_replicas: 2", "user_config: {slo_ms: 50, max_items: 64}")
    config.check(config.read(write(tmp_path, text)))
    text = text.replace("slo_ms: 50", "slo: 50")
    assert "deployments[0].user_config.slo" in problems(tmp_path, text)
    assert "did you mean 'slo_ms'?" in problems(tmp_path, text)
    text = text.replace("slo: 50", "slo_ms: -1")
    assert "deployments[0].user_config.slo_ms" in problems(tmp_path, text)
    text = text.replace("serve.app:build", "my.module:app").replace("artifact", "whatever")
    config.check(config.read(write(tmp_path, text)))


SPLIT = (
    GOOD.replace(
        "- artifact: build/digits",
        """- artifact: build/digits
          canary:
            artifact: build/digits
            weight: 0.1
            gate: {max_latency_ratio: 2, min_requests: 50}""",
    )
    .replace("num_replicas: 2", "user_config: {splits: {digits: {weight: 0.5}}}")
    .replace("- name: digits", "- name: ingress")
)


def test_a_split_and_its_user_config_are_good(tmp_path: Path) -> None:
    assert "name: ingress" in SPLIT
    config.check(config.read(write(tmp_path, SPLIT)))


@pytest.mark.parametrize(
    ("right", "wrong", "place", "hint"),
    [
        ("weight: 0.1", "wieght: 0.1", "models[0].canary.wieght", "weight"),
        ("min_requests", "min_request", "models[0].canary.gate.min_request", "min_requests"),
        ("weight: 0.1", "weight: 11", "models[0].canary.weight", ""),
        ("{weight: 0.5}", "{wait: 0.5}", "user_config.splits.digits.wait", "weight"),
        ("{weight: 0.5}", "{weight: -1}", "user_config.splits.digits.weight", ""),
        ("{splits: ", "{split: ", "user_config.split", "splits"),
    ],
)
def test_what_is_wrong_with_a_split_is_refused_with_its_place(
    tmp_path: Path, right: str, wrong: str, place: str, hint: str
) -> None:
    text = problems(tmp_path, SPLIT.replace(right, wrong))
    assert place in text
    if hint:
        assert f"did you mean '{hint}'?" in text


def test_the_new_artifact_of_a_split_is_pinned_too(tmp_path: Path, digits_artifact: Path) -> None:
    shutil.copytree(digits_artifact, tmp_path / "build" / "digits")
    data = config.resolve(config.read(write(tmp_path, SPLIT)))
    new = data["applications"][0]["args"]["models"][0]["canary"]
    assert new["artifact"] == str(tmp_path / "build" / "digits")
    assert new["digest"] == digest_of(digits_artifact)


def test_the_arguments_of_other_builders_are_not_judged(tmp_path: Path) -> None:
    text = GOOD.replace("serve.app:build", "my.module:app").replace("artifact", "whatever")
    config.check(config.read(write(tmp_path, text)))


@pytest.mark.parametrize(
    ("right", "wrong", "place"),
    [
        ("8000", "abc", "deploy.yaml:4:3: http_options.port"),
        ("num_replicas: 2", "max_ongoing_requests: -1", "deploy.yaml:13:9"),
        ("build/digits", "''", "deploy.yaml:10:11: applications[0].args.models[0].artifact"),
        ("build/digits", "x\n          digest: abc", "models[0].digest"),
    ],
)
def test_a_wrong_value_is_refused_with_its_line(
    tmp_path: Path, right: str, wrong: str, place: str
) -> None:
    assert place in problems(tmp_path, GOOD.replace(right, wrong))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "no mapping"),
        ("", "no mapping"),
        ("a: 1\na: 2", "deploy.yaml:2:1"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_what_is_no_config_is_one_error(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ServeError, match=said):
        config.read(write(tmp_path, text))


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"x" * 1_000_001])
def test_a_file_that_is_binary_or_huge_is_one_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_bytes(raw)
    with pytest.raises(ServeError):
        config.read(path)


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ServeError) as caught:
        config.read(tmp_path / "deploy.yaml")
    assert "deployc serve" in caught.value.hint


def test_paths_become_absolute_and_digests_are_filled_in(
    tmp_path: Path, digits_artifact: Path
) -> None:
    shutil.copytree(digits_artifact, tmp_path / "build" / "digits")
    data = config.resolve(config.read(write(tmp_path, GOOD)))
    (model,) = data["applications"][0]["args"]["models"]
    assert model["artifact"] == str(tmp_path / "build" / "digits")
    assert model["digest"] == digest_of(digits_artifact)


def test_a_rebuilt_artifact_changes_the_config(tmp_path: Path, digits_artifact: Path) -> None:
    folder = tmp_path / "build" / "digits"
    shutil.copytree(digits_artifact, folder)
    file = config.read(write(tmp_path, GOOD))
    before = config.resolve(file)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert config.resolve(file) != before


def test_another_digest_than_the_one_asked_for_is_refused_with_both(
    tmp_path: Path, digits_artifact: Path
) -> None:
    model = f"{digits_artifact}\n          digest: {'f' * 64}"
    file = config.read(write(tmp_path, GOOD.replace("build/digits", model)))
    with pytest.raises(ServeError) as caught:
        config.resolve(file)
    assert "f" * 64 in caught.value.message
    assert digest_of(digits_artifact) in caught.value.message


def test_a_missing_artifact_says_which_build_makes_it(tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "digits.yaml").touch()
    with pytest.raises(DeploycError) as caught:
        config.resolve(config.read(write(tmp_path, GOOD)))
    assert caught.value.hint == "run `deployc build specs/digits.yaml`"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("", {"enable_access_log": False}),
        ("logging_config: {log_level: DEBUG}\n", {"log_level": "DEBUG"}),
    ],
)
def test_the_access_log_is_off_unless_the_config_speaks_of_logging(
    tmp_path: Path, said: str, found: dict[str, object]
) -> None:
    text = f"{said}applications: [{{name: app, import_path: 'other:app'}}]\n"
    assert config.resolve(config.read(write(tmp_path, text)))["logging_config"] == found
