"""``nms``: candidate boxes to detections, without those that repeat a better one."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from specs.ops._base import Emitted, Fused, Graph, Libraries, Stage, Symbols
from specs.ops._boxes import literal, need_boxes, pick_rows
from specs.ops._labels import Labelled
from specs.ops.top_k import MOST
from specs.values import Dim, FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Nms"]

TINY = 1e-30
"""Overlap that stands for any at all: smaller numbers are 0 to some engines."""
Count = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(ge=0, le=1)]


class Nms(Labelled):
    """Non-maximum suppression: of boxes that overlap, the one with the best score stays.

    A candidate is a box with a class whose score is above ``score_threshold``. Best first, each is
    kept unless its intersection over union with a kept one of the same class is above ``iou``:
    torchvision's ``batched_nms``. Of equal scores the lower class comes first, then the earlier
    box; in the graph, the order of equal scores is the engine's. Thresholds are compared in
    float32.
    """

    name: ClassVar[str] = "nms"
    shorthand: ClassVar[str] = "iou"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    iou: Share = 0.5
    """Overlap above which the worse box goes; 1 keeps all."""
    score_threshold: Share = 0.25
    """Score that a detection must be above."""
    max_detections: Count = 100
    """How many detections an item has at most."""
    candidates: Count = 1000
    """How many boxes are looked at: those with the best scores."""
    agnostic: bool = False
    """Boxes suppress those of other classes, too; each has its best class alone."""
    multi_label: bool = True
    """A box may be found once for every class; false: for its best class alone."""

    def flow(self, value: Value) -> Value:
        if value.kind != "boxes":
            message = f"nms takes candidate boxes, found {value}"
            raise FlowError(message, "put - box_decode before nms, once")
        need_boxes("nms", value, corners=True)
        self.check_labels(value.shape[-1])
        shape = (value.shape[0], self.max_detections)
        found = Value("detections", shape=shape, boxes=value.boxes, units=value.units)
        return self.with_labels(found)

    def emit(self, value: Value) -> Emitted:
        del value
        options = {
            "iou": self.iou,
            "score_threshold": self.score_threshold,
            "max_detections": self.max_detections,
            "candidates": self.candidates,
            "agnostic": self.agnostic,
            "multi_label": self.multi_label,
        }
        return Emitted(
            f"nms({{x}}, SUPPRESSION, {self.label_names})",
            "Keep the best of boxes that overlap.",
            (nms, *self.label_readers()),
            {"SUPPRESSION": literal(options), **self.label_constants()},
        )

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused | None:
        rows, classes = value.shape[1:]
        if isinstance(x, str) or isinstance(classes, str) or self._too_many(rows):
            return None
        boxes, scores, own = self._fuse_scores(graph, x, classes)
        boxes, scores, own = self._fuse_candidates(graph, (boxes, scores, own), rows)
        columns = 1 if self.agnostic else classes
        size = min(rows, self.candidates) * columns if isinstance(rows, int) else None
        found = self._fuse_best(graph, (boxes, scores, own), size)
        rest = Emitted(
            f"drop_empty({{x}}, {self.label_names})",
            "Drop the rows without a detection.",
            (drop_empty, *self.label_readers()),
            self.label_constants(),
        )
        return Fused(found, rest)

    def _too_many(self, rows: Dim) -> bool:
        """Whether more would have to be sorted out than every engine's TopK can."""
        picks = isinstance(rows, str) or rows > self.candidates
        return self.max_detections > MOST or (picks and self.candidates > MOST)

    def _fuse_scores(
        self, graph: Graph, x: Mapping[str, str], classes: int
    ) -> tuple[str, str, str]:
        """Boxes, scores [batch, n, classes] with -1 for what is no candidate, and best classes."""
        scores, none = x["scores"], graph.constant(-1.0)
        above = graph.add("Greater", scores, graph.constant(self.score_threshold))
        scores = graph.add("Where", above, scores, none)
        if not self.agnostic and self.multi_label:
            return x["boxes"], scores, ""
        best, own = graph.add_many("TopK", (scores, graph.ints(1)), 2, axis=2)
        if self.agnostic:
            return x["boxes"], best, graph.add("Squeeze", own, graph.ints(2))
        hit = graph.add("Equal", own, graph.ints(*range(classes)))
        return x["boxes"], graph.add("Where", hit, scores, none), ""

    def _fuse_candidates(
        self, graph: Graph, parts: tuple[str, str, str], rows: Dim
    ) -> tuple[str, ...]:
        """The rows with the best scores, in their own order."""
        if isinstance(rows, int) and rows <= self.candidates:
            return parts
        best = graph.add("ReduceMax", parts[1], graph.ints(2), keepdims=0)
        count = graph.ints(self.candidates)
        if isinstance(rows, str):
            count = graph.add("Min", count, graph.size(best, 1))
        _, index = graph.add_many("TopK", (best, count), 2, axis=1)
        # Sorted as float32, which every engine's TopK takes; exact below 2**24 boxes.
        places = graph.cast(index, "float32")
        ordered, _ = graph.add_many("TopK", (places, count), 2, axis=1, largest=0)
        picked = graph.cast(ordered, "int64")
        return tuple(pick_rows(graph, part, picked) if part else "" for part in parts)

    def _fuse_best(
        self, graph: Graph, parts: tuple[str, str, str], size: int | None
    ) -> dict[str, str]:
        """Rows [batch, max_detections] of what is kept, best first; -1 where there is no more.

        Args:
            graph: takes the nodes.
            parts: boxes, scores and, where a box has its best class alone, that class.
            size: how many scores an item has, where that is known.
        """
        boxes, scores, own = parts
        by_class = graph.add("Transpose", scores, perm=[0, 2, 1])
        dense = self._fuse_suppression(graph, boxes, by_class) if self.iou < 1 else by_class
        flat = graph.add("Reshape", dense, graph.ints(0, -1))
        if size is None:
            count = graph.add("Min", graph.ints(self.max_detections), graph.size(flat, 1))
        else:
            count = graph.ints(min(self.max_detections, size))
        best, index = graph.add_many("TopK", (flat, count), 2, axis=1)
        rows = graph.size(boxes, 1)
        row, label = graph.add("Mod", index, rows), graph.add("Div", index, rows)
        label = pick_rows(graph, own, row) if own else label
        real = graph.add("Greater", best, graph.constant(0.0))
        some = graph.add("Unsqueeze", real, graph.ints(2))
        none = graph.constant(-1.0)
        return {
            "boxes": graph.add("Where", some, pick_rows(graph, boxes, row), none),
            "scores": best,
            "classes": graph.add("Where", real, label, graph.ints(-1)),
        }

    def _fuse_suppression(self, graph: Graph, boxes: str, scores: str) -> str:
        """Scores [batch, classes, n] with -1 for what is suppressed as well."""
        # OpenVINO suppresses from the threshold on, ONNX Runtime and torchvision above it: the next
        # number means the same to all. What is no candidate has -1 already, whatever they do at 0.
        overlap = max(np.nextafter(np.float32(self.iou), np.float32(1)), np.float32(TINY))
        limits = (graph.ints(self.max_detections), graph.constant([overlap]), graph.constant([0.0]))
        kept = graph.add("NonMaxSuppression", boxes, scores, *limits)
        empty = graph.add("Expand", graph.constant(-1.0), graph.add("Shape", scores))
        return graph.add("ScatterND", empty, kept, graph.add("GatherND", scores, kept))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        pairs = zip(x["boxes"], x["scores"], strict=True)
        found = [self._reference(boxes, scores, lib) for boxes, scores in pairs]
        return [{key: part.numpy() for key, part in item.items()} for item in found]

    def _reference(self, boxes: Any, scores: Any, lib: Libraries) -> dict[str, Any]:
        """One item's detections by torchvision's operators, without labels."""
        torch = lib.torch
        boxes, scores = torch.from_numpy(boxes), torch.from_numpy(scores).clone()
        scores[~(scores > self.score_threshold)] = -1
        best, classes = scores.max(dim=1)
        if len(best) > self.candidates:
            order = best.sort(descending=True, stable=True).indices[: self.candidates]
            rows = order.sort().values
            boxes, scores, best, classes = (each[rows] for each in (boxes, scores, best, classes))
        if self.agnostic or not self.multi_label:
            rows = torch.nonzero(best > self.score_threshold).flatten()
            labels = classes[rows]
        else:
            labels, rows = torch.nonzero((scores > self.score_threshold).T).unbind(1)
        values, groups = scores[rows, labels], torch.zeros_like(labels) if self.agnostic else labels
        threshold = float(np.float32(self.iou))
        kept = [
            index[lib.ops.nms(boxes[rows[index]], values[index], threshold)][: self.max_detections]
            for index in (torch.nonzero(groups == each).flatten() for each in groups.unique())
        ]
        pick = torch.cat([*kept, torch.empty(0, dtype=torch.long)]).sort().values
        order = values[pick].sort(descending=True, stable=True).indices[: self.max_detections]
        pick = pick[order]
        return {"boxes": boxes[rows[pick]], "scores": values[pick], "classes": labels[pick]}


def nms(
    x: Mapping[str, NDArray[Any]],
    options: Mapping[str, Any],
    labels: list[Any] | None,
) -> list[dict[str, Any]]:
    """Return the detections of each item of a batch, best first."""
    pairs = zip(x["boxes"], x["scores"], strict=True)
    found = [nms_item(boxes, scores, options) for boxes, scores in pairs]
    return [item | ({"labels": labels} if labels else {}) for item in found]


def nms_item(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return one item's detections among boxes [n, 4] with scores [n, classes]."""
    rows, scores = nms_candidates(scores, options)
    own = scores.argmax(axis=1) if len(rows) else np.zeros(0, np.int64)
    if options["agnostic"]:
        scores = scores.max(axis=1, keepdims=True)
    elif not options["multi_label"]:
        classes = np.arange(len(scores.T))
        scores = np.where(own[:, None] == classes, scores, np.float32(-1))
    best = best_boxes(boxes[rows], scores, options["iou"], options["max_detections"])
    row, label = np.array(best, np.int64).reshape(-1, 2).T
    return {
        "boxes": boxes[rows[row]],
        "scores": scores[row, label],
        "classes": own[row] if options["agnostic"] else label,
    }


def nms_candidates(
    scores: NDArray[Any],
    options: Mapping[str, Any],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the boxes to look at, and their scores; -1 below the threshold."""
    above = scores > np.float32(options["score_threshold"])
    rows = np.flatnonzero(above.any(axis=1))
    scores = np.where(above[rows], scores[rows], np.float32(-1))
    if len(rows) > options["candidates"]:
        best = np.argsort(-scores.max(axis=1), kind="stable")
        best = np.sort(best[: options["candidates"]])
        rows, scores = rows[best], scores[best]
    return rows, scores


def best_boxes(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    iou: float,
    count: int,
) -> list[tuple[int, int]]:
    """Return row and class of at most ``count`` boxes that no better one overlaps."""
    queues: list[NDArray[Any]] = []
    for column in scores.T:
        found = np.flatnonzero(column > 0)
        queues.append(found[np.argsort(-column[found], kind="stable")])
    heads = [(-float(scores[q[0], k]), k) for k, q in enumerate(queues) if len(q)]
    heapq.heapify(heads)
    kept: list[tuple[int, int]] = []
    while heads and len(kept) < count:
        label = heapq.heappop(heads)[1]
        first, left = queues[label][0], queues[label][1:]
        kept.append((int(first), label))
        left = left[~(overlap(boxes[first], boxes[left]) > np.float32(iou))]
        queues[label] = left
        if len(left):
            heapq.heappush(heads, (-float(scores[left[0], label]), label))
    return kept


def overlap(box: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Return the intersection over union of a box with others [n, 4]; 0 if empty."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(0).prod(axis=1)
    whole = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1)
    none = np.zeros_like(shared)
    return np.divide(shared, whole - shared, out=none, where=whole > shared)


def drop_empty(
    x: Mapping[str, NDArray[Any]],
    labels: list[Any] | None,
) -> list[dict[str, Any]]:
    """Return the detections of each item, from rows that are empty after the last one."""
    found: list[dict[str, Any]] = []
    for boxes, scores, classes in zip(x["boxes"], x["scores"], x["classes"], strict=True):
        real = scores > 0
        item = {"boxes": boxes[real], "scores": scores[real], "classes": classes[real]}
        found.append(item | ({"labels": labels} if labels else {}))
    return found
