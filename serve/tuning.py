"""The limits that a replica keeps to: derived at start, derived again when the config changes."""

from __future__ import annotations

import logging
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.profile import read_profile
from serve.args import HotArgs, WhenSlow
from serve.derive import HEADROOM, Evidence, Figure, Limits, Wishes, derive
from serve.events import tell
from serve.law import Curve, Law
from serve.streams import Streams
from specs.axes import AxisRange
from specs.errors import DeploycError, ServeError
from specs.manifest import Manifest, Variant
from specs.profile import Profile, identity

__all__ = ["HOP_MS", "Options", "Tuning", "profile_of", "wishes"]

HOP_MS = 1.0
"""What stacking and the engine's thread may cost beside the engine; more is a slower machine."""
TURN_HOPS, TURN_S = 20, 0.01
"""The way to the engine's thread and back takes time (``hop_ms``). Where the largest batch is not
much longer, several go there at once, until the way is one part in so many of their
time; for so many seconds at most, and so small a part of the SLO."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a model is served: its name, and what ``deploy.yaml`` sets; None: derived."""

    name: str
    max_batch: int | None = None
    max_items: int | None = None
    """Items that wait or run at once."""
    threads: int | None = None
    """For pre- and post-processing; by default one per core of the replica's machine, at most 4."""
    slo_ms: float | None = None
    """Wins over the spec's."""
    when_slow: WhenSlow = "warn"
    """What a replica does whose times stay far above the profile's."""
    held: Figure[int] | None = None
    """Requests that Ray was told to let into a replica."""
    target: Figure[float] | None = None
    """Requests per replica that Ray's autoscaling was told to aim at."""


def wishes(options: Options, manifest: Manifest, hot: HotArgs | None = None) -> Wishes:
    """What was set by hand, the strongest first: ``user_config``, ``deploy.yaml``, the spec."""
    slo: Figure[float] | None = None
    if manifest.serving.slo:
        slo = Figure(manifest.serving.slo.p99_ms, "spec")
    if options.slo_ms is not None:
        slo = Figure(options.slo_ms, "deploy.yaml")
    batch = None if options.max_batch is None else Figure(options.max_batch, "deploy.yaml")
    items = None if options.max_items is None else Figure(options.max_items, "deploy.yaml")
    if hot and hot.slo_ms is not None:
        slo = Figure(hot.slo_ms, "user_config")
    if hot and hot.max_items is not None:
        items = Figure(hot.max_items, "user_config")
    return Wishes(slo, batch, items)


def profile_of(folder: Path, manifest: Manifest, variant: Variant) -> tuple[Profile | None, str]:
    """The variant's profile, where it is of this build; and what is to be told of it.

    Raises:
        ArtifactError: it cannot be read.
    """
    profile = read_profile(folder, variant.name)
    if profile is None or profile.identity == identity(manifest, variant):
        return profile, ""
    told = f"the profile of {variant.name} is another build's and was not used"
    return None, f"{told}: run `deployc profile` again"


class Tuning:
    """The limits of one replica.

    Args:
        manifest: of the artifact.
        variant: the one that answers.
        options: what was set by hand.
        folder: the artifact, for its profile; None: there is none.

    Raises:
        ServeError: an option cannot be, or the profile says that the SLO is impossible.
        ArtifactError: the profile cannot be read.
    """

    def __init__(
        self, manifest: Manifest, variant: Variant, options: Options, folder: Path | None
    ) -> None:
        self._manifest = manifest
        self._options = options
        self._hot = HotArgs()
        self._refused = ""
        self._stale = ""
        self.profile: Profile | None = None
        if folder:
            self.profile, self._stale = profile_of(folder, manifest, variant)
        if self.refuses_slow and not self.profile:
            message = (
                f"`when_slow: refuse` needs a profile; {self._stale or 'the artifact has none'}"
            )
            hint = "run `deployc profile` on a machine like those that serve"
            raise ServeError(message, hint=hint, code="no_profile")
        self.evidence: Evidence | None = None
        """What the limits are derived from."""
        if self.profile:
            self.evidence = Evidence.of_profile(self.profile, manifest.batch.max)
        self.limits = self._derive(self._hot)

    @property
    def warnings(self) -> list[str]:
        """What there is to tell beside the limits' own."""
        return [each for each in (self._stale, self._refused) if each]

    @property
    def slo_s(self) -> float:
        """Seconds that an answer may take, where a request does not say so itself."""
        return self.limits.slo_ms.value / 1000

    @property
    def wished_slo_s(self) -> float:
        """The SLO where somebody set one, else infinity."""
        asked = wishes(self._options, self._manifest, self._hot).slo_ms
        return asked.value / 1000 if asked else float("inf")

    @property
    def refuses_slow(self) -> bool:
        """Whether a replica whose times stay far above the profile's shall not start."""
        return self._options.when_slow == "refuse"

    @property
    def most(self) -> int:
        """The largest batch that may be measured at start."""
        return self._options.max_batch or self._manifest.batch.max

    @property
    def batch(self) -> AxisRange:
        """The sizes that the artifact takes."""
        return self._manifest.batch

    def measured(self, curve: Curve) -> None:
        """Take the curve that was measured at start, where the artifact has no profile.

        Raises:
            ServeError: the SLO is impossible.
        """
        self.evidence = Evidence.measured(curve)
        self.limits = self._derive(self._hot)

    def add_hop(self, ms: dict[int, float]) -> None:
        """Add to the profile's times what a replica needs besides the engine.

        Stacking and the way to the engine's thread cost about the same at every size, which a
        factor, as the law corrects by, could not tell.

        Args:
            ms: measured here, by batch size.
        """
        if self.profile is None or self.evidence is None:
            return
        over = [each - self.profile.latency_ms(size, "p50") for size, each in ms.items()]
        hop = min(HOP_MS, max(0.0, statistics.median(over)))
        curve = self.evidence.curve
        curve = replace(curve, ms=tuple(each + hop for each in curve.ms))
        self.evidence = replace(self.evidence, curve=curve, hop_ms=hop)

    def started(self) -> None:
        """Allow no larger batches from now on: those that have not run would be slow."""
        if self.evidence is None:
            return
        most = self.limits.max_batch.value
        curve = self.evidence.curve
        sizes = tuple(size for size in curve.sizes if size < most or curve.fixed)
        sizes = sizes if curve.fixed else (*sizes, most)
        ms = tuple(1000 * curve.seconds(size) for size in sizes)
        self.evidence = replace(self.evidence, curve=Curve(sizes, ms, fixed=curve.fixed))

    def reconfigure(self, config: object) -> bool:
        """Take other limits; whether they can be. Those that cannot are logged and told."""
        try:
            hot = HotArgs.parse(config or {})
            limits = self._derive(hot)
        except DeploycError as error:
            self._refused = f"user_config was refused: {error.message}"
            about = {"model": self._options.name, "code": error.code, "error": error.message}
            tell("user_config_refused", about, level=logging.WARNING)
            return False
        self._refused, self._hot, self.limits = "", hot, limits
        return True

    def law(self, streams: Streams | None = None) -> Law:
        """The law under these limits. Only once something was measured.

        Args:
            streams: how batches run.
        """
        curve, items = self._curve(), self.limits.max_items.value
        most, slo_s = self._most_cut(curve), self.slo_s
        if streams is None:
            return Law(curve, slo_s=slo_s, max_batch=most, max_items=items)
        curve, worth = replace(curve, step=streams.step), streams.worth
        return Law(curve, slo_s=slo_s, max_batch=most, max_items=items, worth=worth)

    def adjust(self, law: Law) -> None:
        """Bring a law in use to these limits."""
        batch, items = self._most_cut(law.forecast.curve), self.limits.max_items.value
        law.adjust(slo_s=self.slo_s, max_batch=batch, max_items=items)

    def most_cut(self) -> int:
        """Items that go to the engine at once. Only once something was measured."""
        return self._most_cut(self._curve())

    def _curve(self) -> Curve:
        """The measured one, with several of the largest batches where the way there is long."""
        if self.evidence is None:
            raise RuntimeError("there is no curve: the warm-up has not run")
        hop_s = self.evidence.hop_ms / 1000
        turn_s = min(TURN_HOPS * hop_s, TURN_S, self.slo_s / TURN_HOPS)
        return self.evidence.curve.repeated(turn_s, hop_s)

    def _most_cut(self, curve: Curve) -> int:
        """Items that go to the engine at once: a batch, or several of the largest in a turn."""
        most = self.limits.max_batch.value
        largest = self.evidence.curve.max_batch if self.evidence else most
        return curve.max_batch if most == largest else most

    def _derive(self, hot: HotArgs) -> Limits:
        """The limits; where Ray was told another bound, that one holds."""
        asked = wishes(self._options, self._manifest, hot)
        batch, held, target = self._manifest.batch, self._options.held, self._options.target
        limits = derive(asked, batch, self.evidence)
        if held:
            room = _room(held)
            if room < limits.max_items.value:
                told = (*limits.warnings, *_cut(asked, room, held))
                bound: Figure[int] = Figure(room, "max_ongoing_requests")
                limits = derive(replace(asked, max_items=bound), batch, self.evidence)
                limits = replace(limits, warnings=told)
            limits = replace(limits, max_ongoing_requests=held)
        return replace(limits, target_ongoing_requests=target) if target else limits


def _room(held: Figure[int]) -> int:
    """Items that a replica may hold into which Ray lets ``held`` requests.

    A limit that was not made from ours, and may be small, leaves half of itself at least.
    """
    least = held.value // 2 if held.source == "deployments" else 0
    return max(held.value - HEADROOM, least, 1)


def _cut(asked: Wishes, room: int, held: Figure[int]) -> list[str]:
    """What to tell of a number that was set by hand and cannot be."""
    items = asked.max_items
    if items is None or items.value <= room:
        return []
    told = (
        f"max_items is {items.value} ({items.source}), and {room} hold: Ray lets {held.value} "
        "requests into a replica; set `max_ongoing_requests` in `args`, which restarts it"
    )
    return [told]
