"""``deployc predict`` and ``deployc inspect``."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from runtime.answering import Answer, Given, answer_all, given_of
from runtime.answers import encode_png, to_json
from runtime.artifact import check_files, read_manifest
from runtime.plot import plot as draw
from runtime.predictor import load, open_variant
from specs.cli import print_error
from specs.digests import file_sha256
from specs.errors import DeploycError, EngineError, InputError
from specs.gate import CHAIN
from specs.manifest import MANIFEST, Choice, Manifest
from specs.schema import TensorSpec
from specs.values import show_shape

__all__ = ["choice_table", "inspect", "predict"]

ARTIFACT = click.Path(path_type=Path)
PIPE_WIDTH = 200
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"})
"""Suffixes that JSON must not have."""
NAMES = 8
"""Node names on one line, at most."""


@dataclass(frozen=True)
class _Asked:
    """What the command line asks of `predict`."""

    files: tuple[Path, ...]
    texts: tuple[str, ...]
    plot: Path | None
    out: Path | None
    as_json: bool


@click.command(short_help="Answer files or texts with an artifact.")
@click.argument("artifact", type=ARTIFACT)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--text", "texts", multiple=True, help="A text to answer; may be given repeatedly.")
@click.option("--variant", help="Which variant; by default the spec's first target.")
@click.option("--json", "as_json", is_flag=True, help="Print the answers as JSON.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the answer into this PNG.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the answer's picture or JSON.")
def predict(  # noqa: PLR0913 - one argument per option
    artifact: Path,
    files: tuple[Path, ...],
    texts: tuple[str, ...],
    variant: str | None,
    *,
    as_json: bool,
    plot: Path | None,
    out: Path | None,
) -> None:
    """Answer FILES (pictures; WAV; texts; .npy, .npz or .json tensors) and texts with ARTIFACT.

    A file of tensors holds one item, or several along a first dimension; .npz, and a JSON object,
    name the inputs. A file of text is one item; .json may hold a list of texts. What cannot
    be taken is named, and the rest answered all the same; the exit status is 1 then.
    """
    asked = _Asked(files, texts, plot, out, as_json)
    _check_usage(asked)
    # Pillow warns of large pictures, with a path of its own; they are judged by the spec's limits.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")
    with load(artifact, variant) as predictor:
        _warn([*predictor.manifest.warnings(), *map(str, predictor.passed_over)])
        given = _given(asked, predictor.manifest)
        answers = answer_all(predictor, given)
    if not isinstance(answers[0], InputError):
        _draw(given[0], answers[0], asked, predictor.manifest)
    _print(given, answers, asked)
    _fail([each for each in answers if isinstance(each, InputError)])


def _check_usage(asked: _Asked) -> None:
    count = len(asked.files) + len(asked.texts)
    if not count:
        raise click.UsageError("give files, or --text")
    if (asked.plot or asked.out) and count > 1:
        what = "files and texts" if asked.texts else "files"
        _refuse_several(asked.plot, f"there are {count} {what}")


def _given(asked: _Asked, manifest: Manifest) -> list[Given]:
    """Every item; what is asked must be possible for them."""
    if asked.out is not None:
        _check_out(asked.out, manifest)
    given = list(given_of(asked.files, asked.texts, manifest))
    if (asked.plot or asked.out) and len(given) > 1:
        _refuse_several(asked.plot, f"the file holds {len(given)} items")
    return given


def _draw(given: Given, answer: Answer, asked: _Asked, manifest: Manifest) -> None:
    """Into the files that were asked for."""
    if asked.out is not None:
        _write(answer, asked.out)
    if asked.plot is not None:
        picture = given.item if manifest.takes == "image" else None
        draw(picture, answer, asked.plot, manifest.answer_schema)


def _fail(errors: Sequence[InputError]) -> None:
    """Name every item that could not be answered; what could is printed already."""
    for error in errors:
        print_error(error)
    if errors:
        raise click.exceptions.Exit(1)


def _refuse_several(plot: Path | None, found: str) -> None:
    option = "--out" if plot is None else "--plot"
    raise click.UsageError(f"{option} takes one answer, {found}")


def _check_out(out: Path, manifest: Manifest) -> None:
    """Refuse a name that says of its file what will not be in it."""
    suffix, png = out.suffix.lower(), manifest.answer == "image"
    if png and suffix not in {"", ".png"}:
        message, hint = f"the answer is a picture, written as PNG, not {suffix}", "name a .png file"
    elif not png and suffix in PICTURES:
        message = f"the answer is no picture: {out} would hold JSON"
        hint = "name a .json file, or draw the answer with --plot"
    else:
        return
    raise DeploycError(message, hint=hint, code="output")


def _write(answer: dict[str, Any], out: Path) -> None:
    try:
        if "image" in answer:
            out.write_bytes(encode_png(answer["image"]))
        else:
            out.write_text(json.dumps(to_json(answer), indent=1, ensure_ascii=False), "utf-8")
    except OSError as error:
        message = f"{out} cannot be written: {error.strerror}"
        hint = "name a file in a folder that is there, and may be written to"
        raise DeploycError(message, hint=hint, code="output") from error


def _print(given: Sequence[Given], answers: list[Answer | InputError], asked: _Asked) -> None:
    pairs = list(zip(given, answers, strict=True))
    if asked.as_json:
        told = [{each.key: each.source, **_told(answer)} for each, answer in pairs]
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    for each, answer in pairs:
        if isinstance(answer, InputError):
            continue
        click.echo(f"{each}")
        for line in _lines(answer, asked.out):
            click.echo(f"  {line}")


def _told(answer: Answer | InputError) -> dict[str, Any]:
    if isinstance(answer, InputError):
        return {"error": answer.to_dict()}
    return {"answer": to_json(answer)}


def _lines(answer: dict[str, Any], out: Path | None) -> list[str]:
    """An answer for a person."""
    if "classes" in answer:
        return [_class_line(entry) for entry in answer["classes"]]
    if "image" in answer:
        height, width = answer["image"].shape[:2]
        where = f"written to {out}" if out else "--out FILE writes it"
        return [f"a picture of {width} x {height} pixels; {where}"]
    if "detections" in answer:
        return [_detection_line(entry) for entry in answer["detections"]] or ["nothing found"]
    return [f"{name}: {array.tolist()}" for name, array in answer["outputs"].items()]


def _class_line(entry: dict[str, Any]) -> str:
    score = entry.get("probability", entry.get("score"))
    number = "" if score is None else f"{score:8.4f}  "
    return f"{number}{entry['index']:>4}  {_label(entry)}"


def _detection_line(entry: dict[str, Any]) -> str:
    """As a class's, with the box's left, top, right and bottom."""
    box = " ".join(f"{edge:7.1f}" for edge in entry["box"])
    return f"{_class_line(entry)}  [{box}]"


def _label(entry: dict[str, Any]) -> str:
    label: str | dict[str, str] = entry.get("label", "")
    return " / ".join(label.values()) if isinstance(label, dict) else label


@click.command(short_help="Show what an artifact holds.")
@click.argument("artifact", type=ARTIFACT)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest and sizes as JSON.")
def inspect(artifact: Path, *, as_json: bool) -> None:
    """Show ARTIFACT's manifest: inputs, outputs, graph, variants, proofs, sizes."""
    manifest = read_manifest(artifact)
    check_files(artifact, manifest)
    digest = file_sha256(artifact / MANIFEST)
    here = _here(artifact, manifest)
    if as_json:
        told = {"digest": digest, "here": {name: why or "runs" for name, why in here.items()}}
        data = {**told, **manifest.model_dump(mode="json", by_alias=True)}
        click.echo(json.dumps(data, indent=1, ensure_ascii=False))
        return
    _show(manifest, digest, here)


def _here(artifact: Path, manifest: Manifest) -> dict[str, str]:
    """By variant, why it cannot run on this machine; "" where it can."""
    found: dict[str, str] = {}
    for variant in manifest.variants:
        try:
            open_variant(artifact, variant).close()
            found[variant.name] = ""
        except EngineError as error:
            found[variant.name] = error.message
    return found


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"! {warning}", err=True)


def _show(manifest: Manifest, digest: str, here: dict[str, str]) -> None:
    # Into a pipe nothing is cut to the 80 columns that Rich assumes there.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(highlight=False, markup=False, soft_wrap=True, width=width)
    console.print(f"{manifest.name}  {digest[:12]}  {manifest.description}")
    for warning in manifest.warnings():
        console.print(f"! {warning}")
    console.print(_facts(manifest))
    console.print(_graph_table(manifest))
    console.print(_variant_table(manifest, here))
    for line in _loading(manifest, here):
        console.print(line)
    if manifest.gates:
        console.print(_gate_table(manifest))
        for line in _not_compared(manifest):
            console.print(line)
    for choice in manifest.choices:
        console.print(choice_table(choice))
    console.print(_file_table(manifest))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _facts(manifest: Manifest) -> Table:
    table = _table("", "", "")
    table.show_header = False
    for kind in ("inputs", "outputs"):
        tensors: dict[str, TensorSpec] = getattr(manifest, kind)
        for name, tensor in tensors.items():
            table.add_row(kind[:-1], f"{name}: {tensor.dtype} {show_shape(tensor.shape)}")
    for name, axis in manifest.axes.items():
        table.add_row("axis", f"{name}: {axis.min} to {axis.max}, opt {axis.opt}")
    table.add_row("takes", manifest.takes)
    table.add_row("answers", manifest.answer)
    for own in manifest.own_code:
        table.add_row("own code", str(own))
    table.add_row("weights", str(manifest.weights))
    table.add_row("built with", ", ".join(f"{k} {v}" for k, v in manifest.toolchain.items()))
    return table


def _gate_table(manifest: Manifest) -> Table:
    title = "\nprocessing, worst distance from its reference"
    table = _table(title, "execution", "step", "worst", "bound", "on")
    for gate in manifest.gates:
        where = f"{gate.execution} {gate.where}".strip()
        for gap in gate.gaps:
            pixels = gap.stage == "preprocess" and gate.unit == "grey levels"
            bound = f"{gate.bound:g} of 255" if pixels else "1 of its tolerance"
            if why := gate.unbounded(gap):
                bound = f"none: {why}"
            step = "all of preprocess" if gap.step == CHAIN else gap.step
            table.add_row(where, step, f"{gap.worst:.2g}", bound, gap.item)
    return table


def _not_compared(manifest: Manifest) -> Iterator[str]:
    """What the gate could not hold to a reference, by execution."""
    for gate in manifest.gates:
        if gate.not_compared:
            where = f"{gate.execution} {gate.where}".strip()
            steps = ", ".join(dict.fromkeys(gate.not_compared))
            yield f"! {where}: not compared on their own: {steps}"


def _graph_table(manifest: Manifest) -> Table:
    graph = manifest.graph
    about = f"opset {graph.opset}, IR {graph.ir_version}, exporter {graph.exporter}"
    table = _table(f"\ngraph: {about}, {graph.parameters:,} parameters", "op type", "nodes")
    for op, count in sorted(graph.nodes.items(), key=lambda each: -each[1]):
        table.add_row(op, str(count))
    return table


def _variant_table(manifest: Manifest, here: dict[str, str]) -> Table:
    columns = ("variant", "engine", "device", "precision", "parity: largest difference", "accuracy")
    table = _table("\nvariants", *columns, "here")
    for variant in manifest.variants:
        engine = ", ".join(variant.details.values())
        parity = f"{variant.largest_difference:.2g}"
        if variant.tolerance is None:
            parity += " (measured, no bound)"
        accuracy = str(variant.accuracy or "not asked")
        runs = "cannot run" if here[variant.name] else "runs"
        row = (variant.name, engine, variant.device, variant.precision, parity, accuracy, runs)
        table.add_row(*row)
    return table


def _loading(manifest: Manifest, here: dict[str, str]) -> Iterator[str]:
    """What `runtime.load` would do on this machine."""
    for name, why in here.items():
        if why:
            yield f"! {name} cannot run here: {why}"
    for variant in manifest.variants:
        for note in (*variant.notes, *variant.not_audited):
            yield f"! {variant.name}: {note}"
        if variant.kept:
            yield f"  {variant.name}: {len(variant.kept)} nodes stay in fp32: {_few(variant.kept)}"
    first = next((name for name, why in here.items() if not why), "")
    refuses = manifest.on_missing == "refuse" and first != manifest.variants[0].name
    taken = "nothing: it refuses" if refuses or not first else first
    yield f"loading takes {taken} (on_missing: {manifest.on_missing})"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES])
    return shown if len(names) <= NAMES else f"{shown} …"


def choice_table(choice: Choice) -> Table:
    """Why ``auto`` chose as it did: a row for each candidate."""
    table = _table(f"\n{choice.target}: {choice.rule}", "variant", "", "batch", "ms", "items/s", "")
    for row in choice.candidates:
        ms = "" if row.latency_ms is None else f"{row.latency_ms:.3g}"
        rate = "" if row.rate is None else f"{row.rate:.4g}"
        outcome = row.outcome.replace("_", " ")
        table.add_row(row.variant, outcome, str(row.batch or ""), ms, rate, row.reason)
    return table


def _file_table(manifest: Manifest) -> Table:
    table = _table("\nfiles", "file", "bytes", "sha256")
    for name, entry in manifest.files.items():
        table.add_row(name, f"{entry.bytes:,}", entry.sha256[:12])
    return table
