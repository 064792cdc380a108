"""Decisions and review cases in PostgreSQL. The first decision on a payment event stays; what needs a person opens a case with it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arterial.api.radar.v1alpha1 import radar_service_pb2 as pb
from arterial.api.radar.v1alpha1.risk_decision_pb2 import RiskDecision
from arterial.api.types.v1 import standing_pb2
from chassis.errors import ArterialError, Reason

# Decisions of a case that are shown; the contract's limit.
MAX_DECISIONS = 100
# Rows of one statement: a driver's statement takes at most 32,767 parameters.
CHUNK = 1000
# Redelivery reaches back as far as Kafka keeps payments (a week); what is older is in the lake. Decisions of cases stay.
KEEP_DAYS = 30
_OPEN = pb.ReviewCase.STATE_OPEN
_metadata = sa.MetaData()
CASES = sa.Table(
    "cases",
    _metadata,
    sa.Column("case_id", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, sa.Identity()),
    sa.Column("account_id", sa.LargeBinary),
    sa.Column("state", sa.Integer),
    sa.Column("opened_at", sa.DateTime(timezone=True)),
    sa.Column("resolved_at", sa.DateTime(timezone=True)),
    sa.Column("resolved_by", sa.Text),
    sa.Column("note", sa.Text),
)
DECISIONS = sa.Table(
    "decisions",
    _metadata,
    sa.Column("payment_event_id", sa.LargeBinary, primary_key=True),
    sa.Column("body", sa.LargeBinary),
    sa.Column("standing", sa.LargeBinary),
    sa.Column("decided_at", sa.DateTime(timezone=True)),
    sa.Column("case_id", sa.Text),
)


@dataclass(frozen=True)
class Made:
    """A decision and the standing that it was made with."""

    decision: RiskDecision
    standing: standing_pb2.Standing


class DecisionStore:
    """Reads and writes decisions and cases."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def remember(self, made: Sequence[Made]) -> list[Made]:
        """Keeps decisions unless there are earlier ones; returns, in order, those that hold. All or none.

        Review and block open a case of the account, or join its open one. Raises DEPENDENCY_UNAVAILABLE.
        """
        held: list[Made] = []
        for start in range(0, len(made), CHUNK):
            with _answering():
                async with self._engine.begin() as connection:
                    held += await _remember(connection, made[start : start + CHUNK])
        return held

    async def known(self, payment_event_ids: Sequence[bytes]) -> dict[bytes, Made]:
        """Decisions that there are, by payment event. Raises DEPENDENCY_UNAVAILABLE."""
        with _answering():
            async with self._engine.connect() as connection:
                return await _known(connection, payment_event_ids)

    async def cases(self, state: pb.ReviewCase.State.ValueType, start: int, end: int) -> tuple[list[pb.ReviewCase], int]:
        """Cases in a state (all for UNSPECIFIED), oldest first, and how many there are. Raises DEPENDENCY_UNAVAILABLE."""
        condition = CASES.c.state == state if state else sa.true()
        with _answering():
            async with self._engine.connect() as connection:
                total = await connection.scalar(sa.select(sa.func.count()).select_from(CASES).where(condition))
                rows = await connection.execute(sa.select(CASES).where(condition).order_by(CASES.c.number).offset(start).limit(end - start))
                return await _with_decisions(connection, rows.all()), int(total or 0)

    async def resolve(self, case_id: str, verdict: pb.ReviewCase.State.ValueType, by: str, note: str) -> pb.ReviewCase:
        """Closes an open case. Raises NOT_FOUND, REFUSED if it has another verdict, or DEPENDENCY_UNAVAILABLE."""
        with _answering():
            async with self._engine.begin() as connection:
                row = await _locked(connection, case_id)
                if row.state not in (_OPEN, verdict):
                    was = pb.ReviewCase.State.Name(row.state)
                    raise ArterialError(Reason.REFUSED, f"case {case_id} was resolved as {was} by {row.resolved_by}")
                if row.state == _OPEN:
                    values = {"state": verdict, "resolved_at": datetime.now(UTC), "resolved_by": by, "note": note}
                    await connection.execute(sa.update(CASES).where(CASES.c.case_id == case_id).values(**values))
                    row = await _locked(connection, case_id)
                return (await _with_decisions(connection, [row]))[0]

    async def forget(self, before: datetime) -> int:
        """Deletes decisions that are older and of no case; returns how many. Raises DEPENDENCY_UNAVAILABLE."""
        with _answering():
            async with self._engine.begin() as connection:
                done = await connection.execute(sa.delete(DECISIONS).where(DECISIONS.c.decided_at < before, DECISIONS.c.case_id.is_(None)))
                return int(done.rowcount)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"the decision store does not answer: {error!r}") from error


async def _locked(connection: AsyncConnection, case_id: str) -> sa.Row[tuple[Any, ...]]:
    row = (await connection.execute(sa.select(CASES).where(CASES.c.case_id == case_id).with_for_update())).one_or_none()
    if row is None:
        raise ArterialError(Reason.NOT_FOUND, f"case {case_id} does not exist")
    return row


async def _remember(connection: AsyncConnection, made: Sequence[Made]) -> list[Made]:
    """Rows are taken in one order by everybody, decisions before cases, so that two writers never wait for each other in a circle."""
    rows = {each.decision.payment_event_id: each for each in reversed(made)}
    values = [_row(rows[payment]) for payment in sorted(rows)]
    statement = insert(DECISIONS).values(values).on_conflict_do_nothing().returning(DECISIONS.c.payment_event_id)
    fresh = set((await connection.scalars(statement)).all()) if values else set()
    waiting = [rows[payment].decision for payment in sorted(fresh) if rows[payment].decision.action != RiskDecision.ACTION_ALLOW]
    for account in sorted({decision.account_id for decision in waiting}):
        await _open_case(connection, account, [decision for decision in waiting if decision.account_id == account])
    known = await _known(connection, list(rows)) if len(fresh) < len(rows) else rows
    return [known[each.decision.payment_event_id] for each in made]


def _row(made: Made) -> dict[str, object]:
    return {
        "payment_event_id": made.decision.payment_event_id,
        "body": made.decision.SerializeToString(),
        "standing": made.standing.SerializeToString(),
        "decided_at": made.decision.decided_at.ToDatetime(UTC),
    }


async def _open_case(connection: AsyncConnection, account: str, decisions: Sequence[RiskDecision]) -> None:
    """Updating the open case by nothing locks it against a verdict at the same moment."""
    first = decisions[0]
    opened = insert(CASES).values(
        case_id=first.event_id.hex(),
        account_id=account.encode(),
        state=_OPEN,
        opened_at=first.decided_at.ToDatetime(UTC),
        resolved_by="",
        note="",
    )
    joined = opened.on_conflict_do_update(
        index_elements=[CASES.c.account_id], index_where=sa.text("state = 1"), set_={"account_id": opened.excluded.account_id}
    )
    case_id = await connection.scalar(joined.returning(CASES.c.case_id))
    ids = [decision.payment_event_id for decision in decisions]
    await connection.execute(sa.update(DECISIONS).where(DECISIONS.c.payment_event_id.in_(ids)).values(case_id=case_id))


async def _known(connection: AsyncConnection, payment_event_ids: Sequence[bytes]) -> dict[bytes, Made]:
    found = await connection.execute(sa.select(DECISIONS).where(DECISIONS.c.payment_event_id.in_(payment_event_ids)))
    return {
        row.payment_event_id: Made(RiskDecision.FromString(row.body), standing_pb2.Standing.FromString(row.standing)) for row in found.all()
    }


async def _with_decisions(connection: AsyncConnection, rows: Sequence[sa.Row[tuple[Any, ...]]]) -> list[pb.ReviewCase]:
    """Cases with the newest MAX_DECISIONS decisions of each."""
    ids = [row.case_id for row in rows]
    rank = sa.func.row_number().over(
        partition_by=DECISIONS.c.case_id, order_by=[DECISIONS.c.decided_at.desc(), DECISIONS.c.payment_event_id.desc()]
    )
    ranked = sa.select(DECISIONS.c.case_id, DECISIONS.c.body, rank.label("rank")).where(DECISIONS.c.case_id.in_(ids)).subquery()
    found = await connection.execute(sa.select(ranked).where(ranked.c.rank <= MAX_DECISIONS).order_by(ranked.c.rank.desc()))
    bodies: Mapping[str, list[RiskDecision]] = {case_id: [] for case_id in ids}
    for row in found.all():
        bodies[row.case_id].append(RiskDecision.FromString(row.body))
    return [_case(row, bodies[row.case_id]) for row in rows]


def _case(row: sa.Row[tuple[Any, ...]], decisions: list[RiskDecision]) -> pb.ReviewCase:
    case = pb.ReviewCase(
        case_id=row.case_id,
        account_id=row.account_id.decode(),
        state=row.state,
        decisions=decisions,
        resolved_by=row.resolved_by,
        note=row.note,
    )
    case.opened_at.FromDatetime(row.opened_at)
    if row.resolved_at is not None:
        case.resolved_at.FromDatetime(row.resolved_at)
    return case
