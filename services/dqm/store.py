"""Incidents, partitions and judgements in PostgreSQL. The monitor writes them, a date at a time; `serve` reads them, and acknowledges."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.errors import ArterialError, Reason
from services.dqm.incidents import Evidence, Finding, Incident, Kind, Reconciled, State, summary
from services.dqm.verdicts import Partition, Verdict

MIGRATIONS = Path(__file__).parent / "migrations"
_metadata = sa.MetaData()
INCIDENTS = sa.Table(
    "incidents",
    _metadata,
    sa.Column("number", sa.BigInteger, primary_key=True),
    *(sa.Column(name, sa.Text) for name in ("incident_id", "dataset", "partition_date", "market", "summary", "acknowledged_by")),
    *(sa.Column(name, sa.Integer) for name in ("state", "kind", "severity")),
    *(sa.Column(name, JSONB) for name in ("columns", "markets", "evidence", "affected")),
    sa.Column("table_version", sa.BigInteger),
    *(sa.Column(name, sa.DateTime(timezone=True)) for name in ("opened_at", "resolved_at")),
)
PARTITIONS = sa.Table(
    "partitions",
    _metadata,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("partition_date", sa.Text, primary_key=True),
    *(sa.Column(name, sa.BigInteger) for name in ("table_version", "series", "deviating", "revision", "reported_revision")),
    *(sa.Column(name, sa.Integer) for name in ("verdict", "score")),
    *(sa.Column(name, JSONB) for name in ("reasons", "incident_ids")),
    sa.Column("judged_at", sa.DateTime(timezone=True)),
)
JUDGEMENTS = sa.Table("judgements", _metadata, sa.Column("partition_date", sa.Text, primary_key=True), sa.Column("fingerprint", sa.Text))
# Rows of one statement: PostgreSQL takes 32,767 parameters at most.
_BATCH = 1_000
# Columns of a verdict: a row that is the same in all of them is left as it is, and is not reported again.
_OF_VERDICT = ("table_version", "verdict", "reasons", "incident_ids", "score", "series", "deviating")

# Verdicts on the partitions of a date, given its open incidents.
Verdicts = Callable[[Sequence[Incident]], Sequence[Partition]]


@dataclass(frozen=True)
class StoredPartition:
    """A partition as it was last judged."""

    partition: Partition
    judged_at: datetime
    revision: int


class QualityStore:
    """Reads and writes what quality knows."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def open_incidents(self) -> list[Incident]:
        """All incidents that are not resolved, oldest first."""
        query = sa.select(INCIDENTS).where(INCIDENTS.c.state != State.RESOLVED).order_by(INCIDENTS.c.number)
        async with self._engine.connect() as connection:
            return [_incident(row) for row in (await connection.execute(query)).mappings()]

    async def get(self, incident_id: str) -> Incident:
        """One incident. Raises NOT_FOUND."""
        async with self._engine.connect() as connection:
            return await _get(connection, incident_id)

    async def page(self, dataset: str, state: int, start: int, end: int) -> tuple[list[Incident], int]:
        """Incidents of a dataset (all for "") in a state (all for 0), newest first, and how many there are."""
        conditions = [INCIDENTS.c.dataset == dataset] if dataset else []
        conditions += [INCIDENTS.c.state == state] if state else []
        query = sa.select(INCIDENTS).where(*conditions).order_by(INCIDENTS.c.number.desc()).offset(start).limit(end - start)
        async with self._engine.connect() as connection:
            total = await connection.scalar(sa.select(sa.func.count()).select_from(INCIDENTS).where(*conditions))
            return [_incident(row) for row in (await connection.execute(query)).mappings()], int(total or 0)

    async def acknowledge(self, incident_id: str, by: str) -> Incident:
        """Notes who takes care. Raises NOT_FOUND, and REFUSED if it is resolved."""
        async with self._engine.begin() as connection:
            open_one = sa.and_(INCIDENTS.c.incident_id == incident_id, INCIDENTS.c.state != State.RESOLVED)
            change = sa.update(INCIDENTS).where(open_one).values(state=int(State.ACKNOWLEDGED), acknowledged_by=by)
            changed = (await connection.execute(change)).rowcount
            incident = await _get(connection, incident_id)
        if not changed:
            raise ArterialError(Reason.REFUSED, f"incident {incident_id} is resolved already")
        return incident

    async def judged(self) -> Mapping[str, str]:
        """What each date was last judged from, by date."""
        async with self._engine.connect() as connection:
            return {row.partition_date: row.fingerprint for row in (await connection.execute(sa.select(JUDGEMENTS))).all()}

    async def save_date(self, date: str, fingerprint: str, reconciled: Reconciled, verdicts: Verdicts, now: datetime) -> None:
        """Writes what was found of a date, the verdicts that follow from it, and what it was judged from: all or none."""
        async with self._engine.begin() as connection:
            for finding in reconciled.opened:
                values = _columns(finding, summary(finding)) | {"incident_id": uuid.uuid4().hex, "state": int(State.OPEN), "opened_at": now}
                await connection.execute(sa.insert(INCIDENTS).values(values))
            for incident in reconciled.kept:
                # Neither state nor who acknowledged it: somebody may do so at this moment.
                change = sa.update(INCIDENTS).where(INCIDENTS.c.incident_id == incident.incident_id)
                await connection.execute(change.values(_columns(incident.finding, incident.summary)))
            for incident in reconciled.resolved:
                change = sa.update(INCIDENTS).where(INCIDENTS.c.incident_id == incident.incident_id)
                await connection.execute(change.values(state=int(State.RESOLVED), resolved_at=now))
            note = insert(JUDGEMENTS).values(partition_date=date, fingerprint=fingerprint)
            await connection.execute(note.on_conflict_do_update(index_elements=["partition_date"], set_={"fingerprint": fingerprint}))
            query = sa.select(INCIDENTS).where(INCIDENTS.c.partition_date == date, INCIDENTS.c.state != State.RESOLVED)
            open_ones = [_incident(row) for row in (await connection.execute(query.order_by(INCIDENTS.c.number))).mappings()]
            await _put(connection, verdicts(open_ones), now)

    async def put_not_judged(self, partitions: Sequence[Partition], now: datetime) -> None:
        """Writes partitions older than what is judged; one that was judged good when it was younger stays so, unless it changed."""
        async with self._engine.begin() as connection:
            await _put(connection, partitions, now, unless=PARTITIONS.c.verdict == int(Verdict.PASS))

    async def unreported(self, limit: int) -> list[StoredPartition]:
        """Verdicts that the control plane has not taken."""
        query = sa.select(PARTITIONS).where(PARTITIONS.c.reported_revision.is_distinct_from(PARTITIONS.c.revision))
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.order_by(PARTITIONS.c.partition_date, PARTITIONS.c.dataset).limit(limit))
            return [_partition(row) for row in rows.mappings()]

    async def reported(self, taken: Sequence[StoredPartition]) -> None:
        """Notes that the control plane has taken them; one that was judged anew meanwhile still waits."""
        change = sa.update(PARTITIONS).where(PARTITIONS.c.dataset == sa.bindparam("of"), PARTITIONS.c.partition_date == sa.bindparam("at"))
        values = [{"of": stored.partition.dataset, "at": stored.partition.date, "taken": stored.revision} for stored in taken]
        async with self._engine.begin() as connection:
            await connection.execute(change.values(reported_revision=sa.bindparam("taken")), values)

    async def newest_partition(self, dataset: str) -> StoredPartition:
        """The newest partition that was judged. Raises NOT_FOUND."""
        judged = sa.and_(PARTITIONS.c.dataset == dataset, PARTITIONS.c.verdict != int(Verdict.NOT_JUDGED))
        query = sa.select(PARTITIONS).where(judged).order_by(PARTITIONS.c.partition_date.desc()).limit(1)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).mappings().first()
        if row is None:
            raise ArterialError(Reason.NOT_FOUND, f"{dataset} is not monitored, or nothing of it was judged yet")
        return _partition(row)


async def _get(connection: AsyncConnection, incident_id: str) -> Incident:
    row = (await connection.execute(sa.select(INCIDENTS).where(INCIDENTS.c.incident_id == incident_id))).mappings().first()
    if row is None:
        raise ArterialError(Reason.NOT_FOUND, f"incident {incident_id} does not exist")
    return _incident(row)


async def _put(
    connection: AsyncConnection, partitions: Sequence[Partition], now: datetime, unless: sa.ColumnElement[bool] | None = None
) -> None:
    """Writes verdicts; those that say something new wait to be reported. Of the same version, rows that are as in `unless` are left."""
    for first in range(0, len(partitions), _BATCH):
        await connection.execute(_upsert(partitions[first : first + _BATCH], now, unless))


def _upsert(partitions: Sequence[Partition], now: datetime, unless: sa.ColumnElement[bool] | None) -> sa.Executable:
    rows = [
        {
            "dataset": partition.dataset,
            "partition_date": partition.date,
            "verdict": int(partition.verdict),
            "reasons": list(partition.reasons),
            "incident_ids": list(partition.incident_ids),
            "judged_at": now,
            "revision": 1,
            **{name: getattr(partition, name) for name in ("table_version", "score", "series", "deviating")},
        }
        for partition in partitions
    ]
    statement = insert(PARTITIONS).values(rows)
    taken = {name: statement.excluded[name] for name in (*_OF_VERDICT, "judged_at")}
    differs = sa.or_(*(PARTITIONS.c[name].is_distinct_from(statement.excluded[name]) for name in _OF_VERDICT))
    if unless is not None:
        differs = sa.and_(differs, sa.or_(PARTITIONS.c.table_version != statement.excluded.table_version, sa.not_(unless)))
    return statement.on_conflict_do_update(
        index_elements=["dataset", "partition_date"], set_=taken | {"revision": PARTITIONS.c.revision + 1}, where=differs
    )


def _columns(finding: Finding, sentence: str) -> dict[str, Any]:
    return {
        "kind": int(finding.kind),
        "dataset": finding.dataset,
        "partition_date": finding.date,
        "market": finding.market,
        "columns": list(finding.columns),
        "markets": list(finding.markets),
        "severity": finding.severity,
        "summary": sentence,
        "evidence": [asdict(point) for point in finding.evidence],
        "affected": list(finding.affected),
        "table_version": finding.table_version,
    }


def _incident(row: Any) -> Incident:
    finding = Finding(
        Kind(row["kind"]),
        row["dataset"],
        row["partition_date"],
        row["market"],
        tuple(row["columns"]),
        row["severity"],
        tuple(Evidence(**point) for point in row["evidence"]),
        row["table_version"],
        tuple(row["markets"]),
        tuple(row["affected"]),
    )
    resolved = row["resolved_at"]
    return Incident(
        row["incident_id"],
        State(row["state"]),
        finding,
        row["summary"],
        row["opened_at"].astimezone(UTC),
        None if resolved is None else resolved.astimezone(UTC),
        row["acknowledged_by"] or "",
    )


def _partition(row: Any) -> StoredPartition:
    partition = Partition(
        row["dataset"],
        row["partition_date"],
        row["table_version"],
        Verdict(row["verdict"]),
        tuple(row["reasons"]),
        tuple(row["incident_ids"]),
        row["score"],
        row["series"],
        row["deviating"],
    )
    return StoredPartition(partition, row["judged_at"].astimezone(UTC), row["revision"])
