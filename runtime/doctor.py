"""What this installation can build and run, found out by trying it.

Every engine and every variant is opened in a process of its own with a time limit: a library that
crashes or hangs is a finding, not the end of the command.
"""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import (
    PackageNotFoundError,
    packages_distributions,
    requires,
    version,
)
from pathlib import Path

from runtime.artifact import check_files, read_manifest
from runtime.machine import machine
from specs.cli import EXTRAS
from specs.engines import AUTO, Device, engine_languages
from specs.errors import DeploycError
from specs.loader import load_spec
from specs.profile import Machine
from specs.schema import Spec, Target

__all__ = [
    "Finding",
    "Place",
    "Verdict",
    "check_artifact",
    "check_spec",
    "conflicts",
    "extras",
    "find_engines",
    "find_gpus",
    "this_place",
]

CHILD = (sys.executable, "-P", "-m", "runtime._doctor_child")
TIME_LIMIT = 120.0
"""Seconds: importing torch from a cold disk takes tens of them."""
AT_ONCE = 2
"""Probes that run side by side; each takes a core and some hundred MB."""
FLAGS = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimddp", "i8mm", "bf16", "sve"),
)
"""Instructions, in Linux' words, that decide how fast int8, bf16 and fp32 are."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one try.

    Args:
        name: what was tried: ``onnxruntime on cpu``.
        versions: what it says of itself; {} where it does not work.
        code, message, hint: why it does not work, and what to do; "" where it works.
        seconds: how long the try took.
    """

    name: str
    versions: dict[str, str] = field(default_factory=dict[str, str])
    code: str = ""
    message: str = ""
    hint: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it works."""
        return not self.code


@dataclass(frozen=True, slots=True)
class Place:
    """Where this is: the machine, and the instructions that it has of those that matter."""

    machine: Machine
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one spec can be built here, or one artifact runs here.

    Args:
        path: as it was given.
        kind: ``spec`` or ``artifact``.
        ok: whether it can.
        rows: what was found by target or variant, or the one error that stopped the check.
        chosen: the variant that loading takes here; "" for a spec, or where there is none.
    """

    path: str
    kind: str
    ok: bool
    rows: tuple[Finding, ...]
    chosen: str = ""


def this_place() -> Place:
    """The machine; its GPUs are asked for apart."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        text = ""  # not Linux
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    known = set(found[1].split()) if found else set[str]()
    return Place(machine(), tuple(flag for flag in FLAGS if flag in known))


def find_engines(limit: float = TIME_LIMIT) -> dict[tuple[str, Device], Finding]:
    """Every engine of the installation, tried on every device that it knows."""
    pairs: list[tuple[str, Device]] = [
        (name, device) for name, engine in engine_languages().items() for device in engine.devices
    ]

    def probe(pair: tuple[str, Device]) -> Finding:
        return _engine(*pair, limit)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(pairs, pool.map(probe, pairs), strict=True))


def _engine(name: str, device: Device, limit: float) -> Finding:
    install = engine_languages()[name].install
    return _ask(f"{name} on {device}", ("engine", name, device), limit, install)


def find_gpus(limit: float = TIME_LIMIT) -> Finding:
    """NVIDIA's driver and GPUs."""
    return _ask("nvidia", ("gpus",), limit)


def _ask(name: str, arguments: Sequence[str], limit: float, install: str = "") -> Finding:
    """Run the child; whatever becomes of it is the finding."""
    start = time.perf_counter()
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, this package
            [*CHILD, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        message = f"no answer within {limit:g} s"
        hint = f"raise --timeout; if it hangs for good, install it anew: {install}"
        return Finding(name, {}, "probe_timeout", message, hint, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        message = f"the process {_end(done.returncode)}{_last(done.stderr)}"
        hint = f"a native library is broken; install it anew: {install}"
        return Finding(name, {}, "probe_crashed", message, hint, seconds)
    if "versions" in answer:
        return Finding(name, answer["versions"], seconds=seconds)
    error = answer["error"]
    return Finding(name, {}, error["code"], error["message"], error["hint"] or install, seconds)


def _end(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    known = {each.value: each.name for each in signal.Signals}  # not every real-time signal
    return f"was ended by {known.get(-status, f'signal {-status}')}"


def _last(stderr: bytes) -> str:
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return f": {lines[-1].strip()}" if lines else ""


def conflicts() -> list[str]:
    """Packages that overwrite each other's files, each as a sentence with what to do."""
    found = sorted(set(packages_distributions().get("onnxruntime", ())))
    if len(found) < 2:  # noqa: PLR2004 - two are one too many
        return []
    remove = f"pip uninstall {' '.join(found)}, then install the one you need"
    return [f"{' and '.join(found)} overwrite each other's files: {remove}"]


def extras() -> dict[str, dict[str, str]]:
    """Versions of the packages that each extra of the installation names; "" where one lacks."""
    found: dict[str, dict[str, str]] = {}
    for line in requires("deployc") or ():
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", line)
        if name and extra and extra[1] != "dev":
            found.setdefault(extra[1], {})[name[0]] = _version(name[0])
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def check_spec(path: Path, engines: dict[tuple[str, Device], Finding]) -> Verdict:
    """Whether every target of the spec can be built, and so run, here."""
    try:
        spec = load_spec(path).spec
    except DeploycError as error:
        return Verdict(str(path), "spec", ok=False, rows=(_failed("the spec", error),))
    lacks = [_tool(module) for module in _tools(spec) if importlib.util.find_spec(module) is None]
    rows = (*lacks, *(_target(target, engines) for target in spec.targets))
    return Verdict(str(path), "spec", all(row.ok for row in rows), rows)


def _failed(name: str, error: DeploycError) -> Finding:
    return Finding(name, {}, error.code, error.message, error.hint)


def _tools(spec: Spec) -> list[str]:
    """Modules that a build of the spec imports, besides its engines."""
    source, weights = spec.model, spec.weights
    needed = {"onnx": True}
    needed["torch"] = bool(source.exporters)
    needed["torchvision"] = source.name == "torchvision"
    needed["onnxscript"] = bool(source.exporters) and spec.export.exporter == "dynamo"
    needed["requests"] = weights is not None and weights.url is not None
    file = (weights.path or weights.url or "") if weights else ""
    needed["safetensors"] = file.endswith(".safetensors")
    return [module for module, needs in needed.items() if needs]


def _tool(module: str) -> Finding:
    hint = f'pip install "deployc[{EXTRAS.get(module, "build")}]"'
    return Finding(f"build: {module}", {}, "tool_missing", f"{module} is not installed", hint)


def _target(target: Target, engines: dict[tuple[str, Device], Finding]) -> Finding:
    """One engine on one device; for ``auto``, the first that works, or why none does."""
    wanted = [
        finding
        for (name, device), finding in engines.items()
        if target.engine in (AUTO, name) and device in target.devices
    ]
    working = [finding for finding in wanted if finding.ok]
    if working:
        told = {each.name: _told(each.versions) for each in working}
        return Finding(target.variant, told)
    message = "; ".join(f"{each.name}: {each.message}" for each in wanted)
    hint = "; ".join(dict.fromkeys(each.hint for each in wanted if each.hint))
    return Finding(target.variant, {}, wanted[0].code if wanted else "no_engine", message, hint)


def _told(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def check_artifact(path: Path, limit: float = TIME_LIMIT) -> Verdict:
    """Whether the artifact loads here: its first variant, or, by ``on_missing: next``, any."""
    try:
        manifest = read_manifest(path)
        check_files(path, manifest)
    except DeploycError as error:
        return Verdict(str(path), "artifact", ok=False, rows=(_failed("the artifact", error),))

    def try_out(name: str) -> Finding:
        return _ask(name, ("variant", str(path), name), limit)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = tuple(pool.map(try_out, [variant.name for variant in manifest.variants]))
    taken = _taken(rows if manifest.on_missing == "next" else rows[:1])
    return Verdict(str(path), "artifact", bool(taken), rows, taken)


def _taken(rows: Iterable[Finding]) -> str:
    return next((row.name for row in rows if row.ok), "")
