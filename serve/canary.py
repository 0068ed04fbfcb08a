"""One model of two artifacts, as the surfaces see it: ``serve.split`` decides, this one asks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from serve.args import HotGate, HotSplit, ModelArgs, ParityGate, SplitGate
from serve.events import tell
from serve.messages import Call, Reply, failure
from serve.replies_apart import comparable, replies_apart
from serve.served import STATE_TIMEOUT_S, Served, told
from serve.split import Outcome, Shares, Side, Split
from specs.errors import DeploycError, ServeError
from specs.faults import nearest
from specs.manifest import Manifest
from specs.schema import TensorSpec

__all__ = [
    "ARTIFACT",
    "COPIES",
    "Pair",
    "SplitModel",
    "SplitObserver",
    "check_alike",
    "reconfigure",
]

_LOG = logging.getLogger("ray.serve")  # where a replica's log goes; the name alone, no import

ARTIFACT = "x-deployc-artifact"
"""The header with the first digits of the digest of the artifact that answered."""
SHORT = 12
COPIES = 4
"""Copies in flight at most; others are dropped."""
PATIENCE_S = 30.0
"""How much longer than a request allows the new artifact may take: a replica that is there
answers or refuses before, one that is gone for good would be waited for without end."""
SERVER_ERROR = 500
TOO_MANY = 429
CLIENT_ERROR = 400


@dataclass(frozen=True, slots=True)
class Pair:
    """How a model is split; plain data, which goes to the deployment of the gate."""

    mode: Literal["canary", "shadow"]
    deployment: str
    """Of the new artifact."""
    stable: str
    """The stable artifact's digest."""
    new: str
    """The new artifact's digest."""
    shares: Shares
    gate: SplitGate

    @classmethod
    def of(cls, args: ModelArgs, name: str, stable: str, new: str) -> Pair:
        """What ``args`` asks for; one of ``canary`` and ``shadow`` is set."""
        if args.canary:
            shares = Shares(args.canary.weight, args.canary.sample)
            return cls("canary", f"{name}-canary", stable, new, shares, args.canary.gate)
        assert args.shadow is not None  # noqa: S101 - the caller saw that there is one
        shares = Shares(0.0, args.shadow.sample)
        return cls("shadow", f"{name}-shadow", stable, new, shares, args.shadow.gate)


class SplitObserver:
    """Is told what happens at a split, to pass it on; here, to nobody."""

    def answered(self, side: Side, outcome: Outcome) -> None:
        """An artifact answered a request, or a copy that counts as one."""

    def compared(self, *, agree: bool) -> None:
        """Both answered one request."""

    def changed(self, split: Split) -> None:
        """The split began, its shares were changed, or it was rolled back."""


class SplitModel:
    """Two artifacts behind one name; a ``serve.served.Served``.

    Args:
        pair: how it is split.
        stable: the artifact that answers but for its canary.
        new: the other one, under the same name.
        observer: is told what happens.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        pair: Pair,
        stable: Served,
        new: Served,
        observer: SplitObserver | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = stable.name
        self.limit = stable.limit
        self.split = Split(stable.name, pair.gate, pair.shares, clock=clock)
        self.refused = ""
        """What was wrong with the last ``user_config``; "" where it was taken."""
        self._pair = pair
        self._sides: dict[Side, Served] = {"stable": stable, "new": new}
        self._digests: dict[Side, str] = {"stable": pair.stable, "new": pair.new}
        self._clock = clock
        self._copies: set[asyncio.Task[None]] = set()
        self._observer = observer or SplitObserver()
        self._observer.changed(self.split)

    async def answer(self, call: Call) -> Reply:
        """The reply of one artifact; where the new one fails, the stable one answers."""
        choice = self.split.choose(call.request_id)
        side = choice.side
        began = self._clock()
        reply = await self._ask(side, call)
        self._count(side, reply, self._clock() - began)
        if side == "new" and reply.status >= SERVER_ERROR:
            side, left = "stable", call
            if call.timeout_s is not None:
                left = replace(call, timeout_s=max(0.0, call.timeout_s - self._clock() + began))
            reply = await self._sides["stable"].answer(left)
        elif choice.copy and comparable(call):
            self._copy(call, side, reply)
        return replace(reply, headers={**reply.headers, ARTIFACT: self._digests[side][:SHORT]})

    async def card(self) -> dict[str, Any]:
        """The stable artifact's card, and under ``split`` what there is to say of both."""
        card, new = await asyncio.gather(self._sides["stable"].card(), self._new_card())
        about = {"mode": self._pair.mode, **self.split.to_json()}
        about["artifacts"] = {
            "stable": self._side(card, "stable", self.name),
            "new": self._side(new, "new", self._pair.deployment),
        }
        return {**card, "warnings": [*card.get("warnings", []), *self._warnings()], "split": about}

    async def decisions(self) -> list[dict[str, Any]]:
        """The stable artifact's."""
        stable = self._sides["stable"]
        return await told(stable, stable.decisions())

    async def stats(self) -> dict[str, Any]:
        """The stable artifact's; under ``new`` the other one's, None where it cannot be reached."""
        stable, new = self._sides["stable"], self._sides["new"]
        found = await told(stable, stable.stats())
        try:
            return {**found, "new": await told(new, new.stats())}
        except DeploycError:
            return {**found, "new": None}

    def change(self, hot: HotSplit) -> None:
        """Take other shares (``serve.split.Split.change``)."""
        self.split.change(hot)
        self._observer.changed(self.split)

    def check(self, hot: HotSplit) -> None:
        """Raise ServeError where ``hot`` cannot be."""
        if self._pair.mode == "shadow" and hot.weight:
            message = f"'{self.name}' has a shadow, which answers nobody: weight is {hot.weight:g}"
            hint = "set sample alone, or deploy it as a canary"
            raise ServeError(message, hint=hint, code="serve_args")

    async def drained(self) -> None:
        """Wait for the copies in flight."""
        await asyncio.gather(*self._copies)

    def _warnings(self) -> list[str]:
        told = self.split.rolled_back
        rolled_back = f"{self._pair.deployment} was rolled back: {told.why}" if told else ""
        return [each for each in (rolled_back, self.refused) if each]

    async def _new_card(self) -> dict[str, Any]:
        new = self._sides["new"]
        try:
            return await asyncio.wait_for(new.card(), STATE_TIMEOUT_S)
        except Exception:  # noqa: BLE001 - one that cannot say how it is, is not ready
            return {"state": "unavailable"}

    def _side(self, card: dict[str, Any], side: Side, deployment: str) -> dict[str, Any]:
        about = {key: card[key] for key in ("state", "variant", "warnings") if key in card}
        return {"deployment": deployment, "digest": self._digests[side], **about}

    async def _ask(self, side: Side, call: Call) -> Reply:
        if side == "stable":
            return await self._sides[side].answer(call)
        patience = PATIENCE_S + (call.timeout_s or 0.0)
        try:
            return await asyncio.wait_for(self._sides[side].answer(call), patience)
        except TimeoutError:
            message = f"the new artifact of '{self.name}' did not answer in {patience:g} s"
            return failure(503, "replica_lost", message, "try again", {"Retry-After": "1"})

    def _copy(self, call: Call, side: Side, reply: Reply) -> None:
        """Ask the other artifact, too, behind the answer's back."""
        if reply.status >= CLIENT_ERROR or self.split.rolled_back:
            return
        if len(self._copies) >= COPIES:
            self.split.dropped()
            return
        task = asyncio.create_task(self._compare_safely(call, side, reply))
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def _compare_safely(self, call: Call, side: Side, reply: Reply) -> None:
        try:
            await self._compare(call, side, reply)
        except Exception:  # noqa: BLE001 - nobody waits for it, and the answer is long sent
            _LOG.exception("'%s': the answers of two artifacts could not be compared", self.name)
            self.split.dropped()

    async def _compare(self, call: Call, side: Side, reply: Reply) -> None:
        """Send a copy, which yields to requests that somebody waits for, and compare."""
        other: Side = "new" if side == "stable" else "stable"
        # Where the new artifact answers, too, its copies wait behind: they tell no time.
        counts = other == "new" and not self.split.weight
        began = self._clock()
        found = await self._ask(other, replace(call, priority=call.priority + 1))
        if found.status == TOO_MANY or (other == "stable" and found.status >= CLIENT_ERROR):
            self.split.dropped()
            return
        if counts:
            self._count("new", found, self._clock() - began)
        if found.status >= SERVER_ERROR:
            return
        stable, new = (reply, found) if side == "stable" else (found, reply)
        gate = self._pair.gate.parity or ParityGate()
        distance = await asyncio.to_thread(replies_apart, new, stable, gate)
        self._observer.compared(agree=distance <= 1)
        with self._telling():
            self.split.compared(distance)

    def _count(self, side: Side, reply: Reply, seconds: float) -> None:
        outcome = _outcome(reply)
        self._observer.answered(side, outcome)
        with self._telling():
            self.split.answered(side, outcome, seconds)

    @contextmanager
    def _telling(self) -> Generator[None, None, None]:
        """Tell of a roll-back that happens inside."""
        before = self.split.rolled_back
        yield
        told = self.split.rolled_back
        if told and not before:
            about = {"model": self.name, "artifact": self._pair.new, "rule": told.rule}
            fields = {**about, "why": told.why, "figures": told.figures}
            tell("rolled_back", fields, level=logging.ERROR)
            self._observer.changed(self.split)


def _outcome(reply: Reply) -> Outcome:
    if reply.status == TOO_MANY or reply.status >= SERVER_ERROR:
        return "failed"
    return "refused" if reply.status >= CLIENT_ERROR else "ok"


def reconfigure(models: list[SplitModel], config: object) -> None:
    """Take a ``user_config``; what cannot be is logged and shown, and changes nothing.

    Args:
        models: the gate's split models.
        config: a mapping as ``serve.args.HotGate`` says, or None.
    """
    known = {model.name: model for model in models}
    try:
        splits = HotGate.parse(config or {}).splits
        for name, hot in splits.items():
            if name not in known:
                message = f"'{name}' has neither a canary nor a shadow"
                raise ServeError(message, hint=nearest(name, known), code="serve_args")
            known[name].check(hot)
    except DeploycError as error:
        refused = f"user_config was refused: {error.message}"
        _LOG.warning("%s", refused)
    else:
        refused = ""
        for name, model in known.items():
            model.change(splits.get(name, HotSplit()))
    for model in models:
        model.refused = refused


def check_alike(name: str, stable: Manifest, new: Manifest, gate: SplitGate) -> None:
    """Raise ServeError where two artifacts do not take and answer the same.

    Args:
        name: the model's.
        stable: one manifest.
        new: the other.
        gate: ``parity.by: top`` needs classes.
    """
    pairs: list[tuple[str, Any, Any]] = [
        ("takes", stable.takes, new.takes),
        ("answers", stable.answer, new.answer),
        ("has the inputs", _forms(stable.inputs), _forms(new.inputs)),
    ]
    if stable.answer == "tensors":
        pairs.append(("has the outputs", _forms(stable.outputs), _forms(new.outputs)))
    for what, one, other in pairs:
        if one != other:
            message = f"'{name}': the stable artifact {what} {one}, the new one {other}"
            hint = "give the new one a name of its own: their clients cannot be the same"
            raise ServeError(message, hint=hint, code="split")
    if gate.parity and gate.parity.by == "top" and stable.answer != "classes":
        message = f"'{name}' answers {stable.answer}, which has no best class"
        raise ServeError(message, hint="set parity.by to values", code="split")


def _forms(tensors: dict[str, TensorSpec]) -> dict[str, str]:
    """Dtype and shape by name; the names of dynamic axes do not matter."""
    return {name: _form(spec) for name, spec in tensors.items()}


def _form(spec: TensorSpec) -> str:
    sizes = (str(size) if isinstance(size, int) else "?" for size in spec.shape)
    return f"{spec.dtype} [{', '.join(sizes)}]"
