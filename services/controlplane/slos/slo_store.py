"""Objectives in PostgreSQL: minutes that were measured, by day; what was judged of partitions; and the status that follows."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason
from chassis.logs import logger
from chassis.process import Context
from services.controlplane.partitions.partitions import Aspect, Judged
from services.controlplane.resources.store import RESOURCES, find, naming, of_kind
from services.controlplane.slos import slos
from services.controlplane.slos.slos import Objective, Tally
from services.controlplane.tables import SLO_SAMPLES, now_of
from services.controlplane.watch.status_store import StatusStore
from services.controlplane.watch.statuses import Reporter

# The longest window that the contract allows: nobody asks for what is older.
KEEP_DAYS = 366
# Windows move, so what is said of an objective is looked at again this often; it is forgotten when it is not said for 15 minutes.
LOOK_SECONDS = 300.0
BATCH = 500
_KEY = ("slo", "cell", "dataset", "indicator", "day")
_WANTED = (
    "unnest(CAST(:names AS text[]), CAST(:datasets AS text[]), CAST(:indicators AS text[]), CAST(:firsts AS date[]), "
    "CAST(:thresholds AS float8[])) AS w (slo, dataset, indicator, first, threshold)"
)
_MINUTES = f"""
SELECT slo, cell, sum(total) AS total, sum(good) AS good, min(measured_since) AS since
FROM slo_samples JOIN {_WANTED} USING (slo, dataset, indicator)
WHERE day >= first AND (CAST(:cell AS text) = '' OR cell = :cell) GROUP BY slo, cell ORDER BY slo, cell
"""
_PARTITIONS = f"""
SELECT slo, cell, count(*) AS total, min(partition_date) AS since,
count(*) FILTER (WHERE CASE WHEN value IS NULL OR threshold = 0 THEN verdict = 'PASS' ELSE value >= threshold END) AS good
FROM partition_verdicts JOIN {_WANTED} USING (dataset)
WHERE aspect = 'QUALITY' AND indicator = aspect AND verdict IN ('PASS', 'FAIL') AND partition_date BETWEEN first AND :today
AND (CAST(:cell AS text) = '' OR cell = :cell) GROUP BY slo, cell ORDER BY slo, cell
"""
_log = logger(__name__)


class SloStore:
    """Measures, and says what was measured."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._statuses = StatusStore(engine)

    async def observe(self, cell: str, verdicts: Sequence[Judged]) -> None:
        """Counts verdicts for the objectives of their datasets, and says how these are met now."""
        async with self._engine.begin() as connection:
            found = await _objectives(connection, await naming(connection, "Slo", {judged.key.dataset for judged in verdicts}))
            told = {(judged.key.dataset, judged.aspect) for judged in verdicts}
            concerned = [wanted for wanted in found if (wanted.dataset, wanted.indicator) in told]
            if not concerned:
                return
            now = await now_of(connection)
            measured = {wanted: slos.sample(wanted, verdicts, now.date()) for wanted in concerned}
            await count(connection, cell, now, {wanted: good for wanted, good in measured.items() if good is not None})
            tallies = await _tallies(connection, concerned, now.date(), cell)
        await self._say(concerned, tallies)

    async def get(self, name: str) -> tuple[Objective, list[Tally]]:
        """One objective. Raises NOT_FOUND."""
        async with self._engine.connect() as connection:
            found = await _objectives(connection, [await find(connection, "Slo", name)])
            if not found:
                raise ArterialError(Reason.NOT_FOUND, f"the dataset of Slo/{name} is not declared")
            tallies = await _tallies(connection, found, (await now_of(connection)).date())
        return found[0], tallies[name]

    async def page(self, after: str, limit: int) -> list[tuple[Objective, list[Tally]]]:
        """Objectives whose names come after one, by name, at most `limit`."""
        async with self._engine.connect() as connection:
            query = sa.select(RESOURCES.c.body).where(RESOURCES.c.kind == "Slo", RESOURCES.c.name > after)
            bodies = (await connection.scalars(query.order_by(RESOURCES.c.name).limit(limit))).all()
            found = await _objectives(connection, [resource_pb2.Resource.FromString(body) for body in bodies])
            tallies = await _tallies(connection, found, (await now_of(connection)).date())
        return [(wanted, tallies[wanted.name]) for wanted in found]

    async def run(self, context: Context) -> None:
        """Says again how objectives are met, as their windows move, and forgets what is too old, until the process stops."""
        while not context.stopping.is_set():
            try:
                await self.refresh()
            except (OSError, SQLAlchemyError) as error:
                _log.warning("store away", error=repr(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(context.stopping.wait(), LOOK_SECONDS)

    async def refresh(self) -> None:
        """Forgets minutes that no window has, or whose objective is gone; says of all objectives how they are met."""
        async with self._engine.begin() as connection:
            oldest = (await now_of(connection)).date() - timedelta(days=KEEP_DAYS)
            declared = sa.exists().where(RESOURCES.c.kind == "Slo", RESOURCES.c.name == SLO_SAMPLES.c.slo)
            await connection.execute(sa.delete(SLO_SAMPLES).where(sa.or_(SLO_SAMPLES.c.day <= oldest, ~declared)))
        after = ""
        while found := await self.page(after, BATCH):
            await self._say([wanted for wanted, _ in found], {wanted.name: tallies for wanted, tallies in found})
            after = found[-1][0].name

    async def _say(self, wanted: Sequence[Objective], tallies: Mapping[str, Sequence[Tally]]) -> None:
        """Puts how they are met into the status of the resources, cell by cell, as a process of that cell would."""
        by_cell: dict[str, list[pb.ResourceStatus]] = defaultdict(list)
        for each in wanted:
            for tally in tallies[each.name]:
                status = resource_pb2.Status(observed_generation=each.generation, conditions=[slos.condition(each, tally)])
                by_cell[tally.cell].append(pb.ResourceStatus(kind="Slo", name=each.name, status=status))
        for cell, statuses in sorted(by_cell.items()):
            await self._statuses.report(Reporter(cell, slos.COMPONENT), statuses)


async def _objectives(connection: AsyncConnection, declared: Sequence[resource_pb2.Resource]) -> list[Objective]:
    """What these Slos mean; one whose dataset is not declared means nothing."""
    datasets = await of_kind(connection, "Dataset", {slo.slo.dataset for slo in declared})
    return [slos.objective(slo, datasets[slo.slo.dataset]) for slo in declared if slo.slo.dataset in datasets]


async def count(connection: AsyncConnection, cell: str, now: datetime, measured: Mapping[Objective, bool]) -> None:
    """Counts the minute, once: it is good as long as nothing in it was bad."""
    if not measured:
        return
    new = insert(SLO_SAMPLES)
    is_next = new.excluded.minute > SLO_SAMPLES.c.minute
    stays_good = sa.and_(sa.or_(is_next, SLO_SAMPLES.c.minute_good), new.excluded.minute_good)
    before = sa.case((is_next, 0), else_=sa.cast(SLO_SAMPLES.c.minute_good, sa.Integer))
    changed = {
        "total": SLO_SAMPLES.c.total + sa.cast(is_next, sa.Integer),
        "good": SLO_SAMPLES.c.good + sa.cast(stays_good, sa.Integer) - before,
        "minute": new.excluded.minute,
        "minute_good": stays_good,
    }
    minute = now.replace(second=0, microsecond=0)
    rows = [
        {
            "slo": wanted.name,
            "cell": cell,
            "dataset": wanted.dataset,
            "indicator": str(wanted.indicator),
            "day": minute.date(),
            "total": 1,
            "good": int(good),
            "minute": minute,
            "minute_good": good,
            "measured_since": now,
        }
        for wanted, good in sorted(measured.items(), key=lambda item: item[0].name)
    ]
    await connection.execute(new.on_conflict_do_update(index_elements=_KEY, set_=changed), rows)


async def _tallies(connection: AsyncConnection, wanted: Collection[Objective], today: date, cell: str = "") -> Mapping[str, list[Tally]]:
    """What was measured within the windows that end today, by name and cell; of one cell, if it is named."""
    found: dict[str, list[Tally]] = {each.name: [] for each in wanted}
    parameters: dict[str, Any] = {
        "names": [each.name for each in wanted],
        "datasets": [each.dataset for each in wanted],
        "indicators": [str(each.indicator) for each in wanted],
        "firsts": [each.first_day(today) for each in wanted],
        "thresholds": [each.threshold for each in wanted],
        "cell": cell,
    }
    for row in (await connection.execute(sa.text(_MINUTES), parameters)).all():
        found[row.slo].append(Tally(row.cell, int(row.total), int(row.good), row.since))
    if any(each.indicator is Aspect.QUALITY for each in wanted):
        for row in (await connection.execute(sa.text(_PARTITIONS), parameters | {"today": today})).all():
            found[row.slo].append(Tally(row.cell, int(row.total), int(row.good), datetime.combine(row.since, time(), UTC)))
    return found
