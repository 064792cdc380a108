"""What the demo shows: a live terminal screen, or plain lines where there is no terminal."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from h3.api import basic_int
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arterial.api.eta.v1alpha1.eta_service_pb2 import Eta
from arterial.api.pricing.v1.pricing_service_pb2 import Surge

WIDTH, HEIGHT = 56, 18
# The part of the map that is drawn: Manhattan and its neighbours, degrees.
SOUTH, NORTH, WEST, EAST = 40.68, 40.82, -74.04, -73.84
COLOURS = ((2500, "bold red"), (2000, "red"), (1500, "yellow"), (1200, "green"), (1001, "cyan"))
LOG_EVERY = 5


@dataclass
class View:
    """What is known at a moment."""

    seconds: float = 0.0
    published: int = 0
    rate: float = 0.0
    lag: int = 0
    backfilled: tuple[int, int] | None = None
    kills: int = 0
    freshness_ms: float | None = None
    surges: Sequence[Surge] = ()
    eta: Eta | None = None
    notes: list[str] = field(default_factory=list)


class Screen:
    """Use it as a context manager; `update` it once a second."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, refresh_per_second=4) if sys.stdout.isatty() else None
        self._updates = 0
        self._shown_notes = 0

    def __enter__(self) -> "Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, view: View) -> None:
        """Shows the view."""
        if self._live is not None:
            self._live.update(_render(view))
            return
        for note in view.notes[self._shown_notes :]:
            print(f"[{view.seconds:5.0f} s] {note}", flush=True)
        self._shown_notes = len(view.notes)
        if self._updates % LOG_EVERY == 0:
            print(f"[{view.seconds:5.0f} s] {_line(view)}", flush=True)
        self._updates += 1


def _line(view: View) -> str:
    hottest = max((surge.multiplier_milli for surge in view.surges), default=1000) / 1000
    parts = [f"{view.published:,} published ({view.rate:,.0f}/s)", f"lag {view.lag:,}"]
    parts += [f"{len(view.surges)} cells", f"hottest x{hottest:.2f}"]
    if view.freshness_ms is not None:
        parts.append(f"freshness {view.freshness_ms:.0f} ms")
    if view.eta is not None:
        low, high = next(((i.low_seconds, i.high_seconds) for i in view.eta.intervals if i.coverage_percent == 80), (0.0, 0.0))
        parts.append(f"ETA {view.eta.seconds:.0f} s ({low:.0f} to {high:.0f}) by {view.eta.model_version or 'rule'}")
    if view.backfilled:
        parts.append(f"backfilled {view.backfilled[0]:,} of {view.backfilled[1]:,}")
    return ", ".join(parts)


def _render(view: View) -> Group:
    hottest = Table(title="hottest cells", box=None)
    for name, justify in (("H3 cell", "left"), ("multiplier", "right"), ("demand", "right"), ("drivers", "right")):
        hottest.add_column(name, justify=justify)  # type: ignore[arg-type]
    for surge in view.surges[:10]:
        numbers = [f"{value / 1000:.2f}" for value in (surge.multiplier_milli, surge.demand_milli, surge.supply_milli)]
        hottest.add_row(f"{surge.cell:x}", Text(f"x{numbers[0]}", style=_colour(surge.multiplier_milli)), *numbers[1:])
    grid = Table.grid(padding=2)
    grid.add_row(Panel(city_map(view.surges, Text.assemble), title="surge"), hottest)
    return Group(Text(f"{view.seconds:5.0f} s   {_line(view)}"), grid, *(Text(note, style="dim") for note in view.notes[-6:]))


def _colour(multiplier_milli: int) -> str:
    return next((colour for least, colour in COLOURS if multiplier_milli >= least), "dim")


def city_map(surges: Sequence[Surge], assemble: Callable[..., Text]) -> Text:
    """Cells on a grid of characters, north up; each shows the highest multiplier of its cells."""
    grid: dict[tuple[int, int], int] = {}
    for surge in surges:
        latitude, longitude = basic_int.cell_to_latlng(surge.cell)
        row = int((NORTH - latitude) / (NORTH - SOUTH) * HEIGHT)
        column = int((longitude - WEST) / (EAST - WEST) * WIDTH)
        if 0 <= row < HEIGHT and 0 <= column < WIDTH:
            grid[row, column] = max(grid.get((row, column), 0), surge.multiplier_milli)
    parts: list[tuple[str, str]] = []
    for row in range(HEIGHT):
        for column in range(WIDTH):
            found = grid.get((row, column))
            parts.append((" ", "") if found is None else ("■" if found > 1000 else "·", _colour(found)))
        parts.append(("\n", ""))
    return assemble(*parts)
