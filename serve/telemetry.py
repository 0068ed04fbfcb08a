"""Whether this process traces, and where its spans go: as OpenTelemetry's variables say.

A provider that somebody set before (Ray's tracing config, ``opentelemetry-instrument``) is used as
it is. Tracing that cannot be had is told of in the log and never keeps a replica from serving.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from serve.events import tell
from specs.errors import ServeError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from serve.tracing import Tracing

__all__ = ["asked_exporters", "flush", "tracing"]

EXPORTER = "OTEL_TRACES_EXPORTER"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OTLP = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
DEFAULT_PROTOCOL = "grpc"
"""What OpenTelemetry's own SDK for Python takes."""
GROUP = "opentelemetry_traces_exporter"
FLUSH_MS = 2000


def asked_exporters(environment: Mapping[str, str]) -> list[str]:
    """Entry points of the exporters that the variables ask for; none: tracing is off.

    Raises:
        ServeError: ``tracing``; the protocol is none that OTLP has.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    otlp = any(environment.get(name) for name in ENDPOINTS)
    listed = environment.get(EXPORTER) or ("otlp" if otlp else "none")
    names = [name.strip() for name in listed.split(",")]
    return [_entry(name, environment) for name in names if name not in {"", "none"}]


def _entry(name: str, environment: Mapping[str, str]) -> str:
    if name != "otlp":
        return name
    set_ = [environment[each] for each in PROTOCOLS if environment.get(each)]
    protocol = set_[0] if set_ else DEFAULT_PROTOCOL
    if protocol not in OTLP:
        hint = f"OTEL_EXPORTER_OTLP_PROTOCOL: one of {', '.join(OTLP)}"
        raise ServeError(f"'{protocol}' is no protocol of OTLP", hint=hint, code="tracing")
    return OTLP[protocol]


def tracing(
    about: Mapping[str, str], environment: Mapping[str, str] = os.environ
) -> Tracing | None:
    """What makes spans in this process; None where nobody asked, or where it cannot be.

    Args:
        about: attributes of every request's span.
        environment: OpenTelemetry's variables.
    """
    try:
        return _tracing(about, asked_exporters(environment))
    except ServeError as error:
        about = {"why": error.message, "hint": error.hint}
        tell("tracing_off", about, level=logging.WARNING)
        return None


def _tracing(about: Mapping[str, str], exporters: list[str]) -> Tracing | None:
    from opentelemetry import trace

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # nobody set one
        if not exporters:
            return None
        trace.set_tracer_provider(_provider(exporters))
    from serve.tracing import Tracing

    return Tracing(trace.get_tracer("deployc"), about)


def _provider(exporters: list[str]) -> TracerProvider:
    """Sampler, limits and resource are read from the environment by the SDK itself."""
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise _missing("opentelemetry-sdk", str(error)) from error
    unnamed = Resource({"service.name": "deployc"})
    found = Resource.create()
    named = not str(found.attributes.get("service.name", "")).startswith("unknown_service")
    provider = TracerProvider(resource=found if named else found.merge(unnamed))
    for name in exporters:
        provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    return provider


def _exporter(name: str) -> SpanExporter:
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise _missing(f"opentelemetry-exporter-{name.replace('_', '-')}", f"no exporter '{name}'")
    try:
        return next(iter(found)).load()()
    except Exception as error:
        message, hint = f"the exporter '{name}' does not start: {error}", "see its OTEL_ variables"
        raise ServeError(message, hint=hint, code="tracing") from error


def _missing(package: str, what: str) -> ServeError:
    hint = f"install {package} on this machine, or unset {EXPORTER} and {ENDPOINTS[0]}"
    return ServeError(f"tracing was asked for: {what}", hint=hint, code="tracing")


def flush() -> None:
    """Send what is left; blocks, for two seconds at most."""
    from opentelemetry import trace

    force = getattr(trace.get_tracer_provider(), "force_flush", None)  # the SDK's alone has it
    if force:
        force(FLUSH_MS)
