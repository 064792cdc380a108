"""OpenTelemetry: traces and metrics over OTLP, and `traceparent` for what crosses gRPC and Kafka."""

from collections.abc import Iterable
from typing import Protocol

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chassis.config import TelemetryConfig

TRACEPARENT = "traceparent"
# A batch that joins thousands of records links at most so many of their traces: a span must stay small.
MAX_LINKS = 32
_PROPAGATOR = TraceContextTextMapPropagator()


class Provider(Protocol):
    """What must be stopped at the end."""

    def shutdown(self) -> object:
        """Exports what is pending and stops."""


class Telemetry:
    """Tracer and meter of a process. Without an endpoint nothing is recorded, and nothing of the SDK imported."""

    def __init__(self, config: TelemetryConfig, service: str, cell: str) -> None:
        self.enabled = config.otlp_endpoint is not None
        self.tracer: trace.Tracer = trace.NoOpTracer()
        self.meter: metrics.Meter = metrics.NoOpMeter("arterial")
        self._providers: tuple[Provider, ...] = ()
        if config.otlp_endpoint is not None:
            from chassis.exporting import providers

            traces, meters = providers(config, config.otlp_endpoint, {"service.name": service, "arterial.cell": cell})
            self._providers = (traces, meters)
            self.tracer, self.meter = traces.get_tracer("arterial"), meters.get_meter("arterial")

    def shutdown(self) -> None:
        """Exports what is pending and stops."""
        for provider in self._providers:
            provider.shutdown()


def traceparent() -> str | None:
    """The current trace as a W3C `traceparent`, or None outside of one."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(TRACEPARENT)


def context_from(value: str | bytes | None) -> Context:
    """The context that a `traceparent` names; an empty one if it names none."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return _PROPAGATOR.extract({TRACEPARENT: text} if text else {}, context=Context())


def links_from(values: Iterable[bytes | str]) -> list[Link]:
    """Links to at most MAX_LINKS distinct traces named by `traceparent` values."""
    contexts: dict[bytes | str, SpanContext] = {}
    for value in values:
        if len(contexts) >= MAX_LINKS:
            break
        if value not in contexts:
            context = trace.get_current_span(context_from(value)).get_span_context()
            if context.is_valid:
                contexts[value] = context
    return [Link(context) for context in contexts.values()]
