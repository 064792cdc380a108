"""The graph in PostgreSQL. Every change has a version; versions become visible in their order."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.lineage.absorbing import Changes
from services.lineage.graph import NEVER, WHOLE, Facts, Graph, Job, Made, Name

# Writers queue up: each decides on the newest graph, and the order of versions agrees with the order of commits.
WRITE_LOCK = 0x4C494E45
# PostgreSQL takes at most 32,767 parameters, three of them per key.
MAX_KEYS = 5000
_metadata = sa.MetaData()
_TIME = sa.DateTime(timezone=True)
# Event times of what is known of a dataset, as `Facts` has them.
_TIMES = ("owner_at", "tier_at", "columns_at")
NODES = sa.Table(
    "nodes",
    _metadata,
    sa.Column("node_id", sa.Integer, primary_key=True),
    *(sa.Column(name, sa.Text) for name in ("namespace", "name", "owner")),
    sa.Column("is_job", sa.Boolean),
    sa.Column("tier", sa.Integer),
    *(sa.Column(name, _TIME) for name in _TIMES),
    sa.Column("version", sa.BigInteger),
)
COLUMNS = sa.Table(
    "columns",
    _metadata,
    sa.Column("node_id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("type", sa.Text),
    sa.Column("position", sa.Integer),
)
JOBS = sa.Table(
    "jobs",
    _metadata,
    sa.Column("job_id", sa.Integer, primary_key=True),
    sa.Column("event_time", _TIME),
    sa.Column("run_id", sa.Text),
    sa.Column("sql", sa.Text),
)
DATASET_EDGES = sa.Table(
    "dataset_edges",
    _metadata,
    sa.Column("job_id", sa.Integer, primary_key=True),
    sa.Column("node_id", sa.Integer, primary_key=True),
    sa.Column("made", sa.Boolean, primary_key=True),
    sa.Column("position", sa.Integer),
)
COLUMN_EDGES = sa.Table(
    "column_edges",
    _metadata,
    sa.Column("job_id", sa.Integer, primary_key=True),
    sa.Column("source_id", sa.Integer, primary_key=True),
    sa.Column("source_column", sa.Text, primary_key=True),
    sa.Column("target_id", sa.Integer, primary_key=True),
    sa.Column("target_column", sa.Text, primary_key=True),
    sa.Column("transformation", sa.Text),
)
Ids = Mapping[tuple[bool, Name], int]


class GraphStore:
    """Reads and writes the graph."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def version(self) -> int:
        """The newest version."""
        async with self.engine.connect() as connection:
            return await _version(connection)

    async def newer(self, graph: Graph, version: int) -> tuple[Graph, int]:
        """The newest graph, given that of a version, and its own version."""
        async with self.engine.connect() as connection:
            await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            return await newer(connection, graph, version)


async def lock(connection: AsyncConnection) -> None:
    """Waits until no other writer is at work, until the transaction ends."""
    await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"))


async def _version(connection: AsyncConnection) -> int:
    return int(await connection.scalar(sa.select(sa.func.max(NODES.c.version))) or 0)


async def newer(connection: AsyncConnection, graph: Graph, version: int) -> tuple[Graph, int]:
    """As `GraphStore.newer`, within a transaction."""
    newest = await _version(connection)
    if newest == version:
        return graph, version
    changed = sa.select(NODES.c.node_id).where(NODES.c.version > version)
    nodes = (await connection.execute(sa.select(NODES).where(NODES.c.version > version))).all()
    columns = await _columns(connection, changed)
    facts = [
        Facts(
            _name(node),
            columns=columns.get(node.node_id, {}),
            columns_at=node.columns_at or NEVER,
            owner=node.owner,
            owner_at=node.owner_at or NEVER,
            tier=node.tier,
            tier_at=node.tier_at or NEVER,
        )
        for node in nodes
        if not node.is_job and (node.columns_at or node.owner_at or node.tier_at)
    ]
    jobs = await _jobs(connection, {node.node_id: node for node in nodes if node.is_job}, changed)
    return graph.with_(jobs, facts), newest


def _name(node: Any) -> Name:
    return Name(node.namespace, node.name)


async def _columns(connection: AsyncConnection, of: sa.Select[Any]) -> Mapping[int, Mapping[str, str]]:
    found: dict[int, dict[str, str]] = defaultdict(dict)
    query = sa.select(COLUMNS).where(COLUMNS.c.node_id.in_(of)).order_by(COLUMNS.c.node_id, COLUMNS.c.position)
    for row in await connection.execute(query):
        found[row.node_id][row.name] = row.type
    return found


async def _jobs(connection: AsyncConnection, nodes: Mapping[int, Any], changed: sa.Select[Any]) -> list[Job]:
    """Jobs among changed nodes, with their edges."""
    if not nodes:
        return []
    edges = await connection.execute(
        sa.select(DATASET_EDGES, NODES.c.namespace, NODES.c.name)
        .join(NODES, NODES.c.node_id == DATASET_EDGES.c.node_id)
        .where(DATASET_EDGES.c.job_id.in_(changed))
        .order_by(DATASET_EDGES.c.job_id, DATASET_EDGES.c.position)
    )
    read: dict[int, list[Name]] = defaultdict(list)
    made: dict[int, list[Name]] = defaultdict(list)
    for edge in edges:
        (made if edge.made else read)[edge.job_id].append(_name(edge))
    inputs = await _column_inputs(connection, changed)
    rows = await connection.execute(sa.select(JOBS).where(JOBS.c.job_id.in_(changed)))
    return [
        Job(
            _name(nodes[row.job_id]),
            inputs=tuple(read[row.job_id]),
            outputs=tuple(_made(name, inputs.get((row.job_id, name), {})) for name in made[row.job_id]),
            sql=row.sql,
            owner=nodes[row.job_id].owner,
            event_time=row.event_time,
            run_id=row.run_id,
        )
        for row in rows
    ]


def _made(name: Name, inputs: Mapping[str, Mapping[tuple[Name, str], str]]) -> Made:
    return Made(name, {column: found for column, found in inputs.items() if column != WHOLE}, inputs.get(WHOLE, {}))


async def _column_inputs(
    connection: AsyncConnection, changed: sa.Select[Any]
) -> Mapping[tuple[int, Name], Mapping[str, Mapping[tuple[Name, str], str]]]:
    """By job and output: inputs of each column."""
    source, target = NODES.alias(), NODES.alias()
    query = (
        sa.select(
            COLUMN_EDGES, source.c.namespace.label("from_namespace"), source.c.name.label("from_name"), target.c.namespace, target.c.name
        )
        .join(source, source.c.node_id == COLUMN_EDGES.c.source_id)
        .join(target, target.c.node_id == COLUMN_EDGES.c.target_id)
        .where(COLUMN_EDGES.c.job_id.in_(changed))
    )
    found: dict[tuple[int, Name], dict[str, dict[tuple[Name, str], str]]] = defaultdict(lambda: defaultdict(dict))
    for row in await connection.execute(query):
        place = (Name(row.from_namespace, row.from_name), row.source_column)
        found[(row.job_id, _name(row))][row.target_column][place] = row.transformation
    return {key: dict(columns) for key, columns in found.items()}


async def write(connection: AsyncConnection, changes: Changes) -> None:
    """Stores changes under the next version; what was said of a redrawn job before is gone."""
    version = await _version(connection) + 1
    ids = await _ids(connection, changes, version)
    await _write_nodes(connection, changes, ids, version)
    await _write_jobs(connection, changes, ids)


async def _ids(connection: AsyncConnection, changes: Changes, version: int) -> Ids:
    """Ids of all nodes of the changes; new ones are added."""
    wanted = {(True, name) for name in changes.jobs} | {(False, name) for name in changes.facts}
    for name in changes.redrawn:
        job = changes.jobs[name]
        wanted |= {(False, dataset) for dataset in {*job.read, *(made.dataset for made in job.outputs)}}
    ids = await _known_ids(connection, wanted)
    missing = sorted(wanted - ids.keys())
    if missing:
        rows = [{"is_job": is_job, "namespace": name.namespace, "name": name.name, "version": version} for is_job, name in missing]
        await connection.execute(sa.insert(NODES), rows)
        ids |= await _known_ids(connection, missing)
    return ids


async def _known_ids(connection: AsyncConnection, wanted: Iterable[tuple[bool, Name]]) -> dict[tuple[bool, Name], int]:
    keys = [(is_job, name.namespace, name.name) for is_job, name in wanted]
    given = sa.values(sa.column("is_job", sa.Boolean), sa.column("namespace", sa.Text), sa.column("name", sa.Text), name="given")
    ids: dict[tuple[bool, Name], int] = {}
    for start in range(0, len(keys), MAX_KEYS):
        part = given.data(keys[start : start + MAX_KEYS])
        same = (NODES.c.is_job == part.c.is_job) & (NODES.c.namespace == part.c.namespace) & (NODES.c.name == part.c.name)
        for row in await connection.execute(sa.select(NODES.c.node_id, NODES.c.is_job, NODES.c.namespace, NODES.c.name).join(part, same)):
            ids[(row.is_job, _name(row))] = row.node_id
    return ids


async def _write_nodes(connection: AsyncConnection, changes: Changes, ids: Ids, version: int) -> None:
    """What is known of each changed node, and the columns of datasets."""
    jobs = [{"id": ids[(True, job.name)], "owner": job.owner, "tier": 0, **dict.fromkeys(_TIMES)} for job in changes.jobs.values()]
    known = [(ids[(False, facts.name)], facts) for facts in changes.facts.values()]
    datasets = [
        {"id": node_id, "owner": facts.owner, "tier": facts.tier, **{name: _or_null(getattr(facts, name)) for name in _TIMES}}
        for node_id, facts in known
    ]
    if not jobs and not datasets:
        return
    values: dict[str, Any] = {name: sa.bindparam(name) for name in ("owner", "tier")} | {
        name: sa.bindparam(name, type_=_TIME) for name in _TIMES
    }
    update = sa.update(NODES).where(NODES.c.node_id == sa.bindparam("id")).values(version=version, **values)
    await connection.execute(update, [*jobs, *datasets])
    await connection.execute(sa.delete(COLUMNS).where(COLUMNS.c.node_id.in_([node_id for node_id, _ in known])))
    rows: list[dict[str, object]] = [
        {"node_id": node_id, "name": name, "type": type_, "position": position}
        for node_id, facts in known
        for position, (name, type_) in enumerate(facts.columns.items())
    ]
    await _insert(connection, COLUMNS, rows)


async def _write_jobs(connection: AsyncConnection, changes: Changes, ids: Ids) -> None:
    if not changes.jobs:
        return
    rows = [
        {"job_id": ids[(True, job.name)], "event_time": job.event_time, "run_id": job.run_id, "sql": job.sql}
        for job in changes.jobs.values()
    ]
    statement = insert(JOBS)
    updated = {name: statement.excluded[name] for name in ("event_time", "run_id", "sql")}
    await connection.execute(statement.on_conflict_do_update(index_elements=["job_id"], set_=updated), rows)
    redrawn = [ids[(True, name)] for name in changes.redrawn]
    for table in (DATASET_EDGES, COLUMN_EDGES):
        await connection.execute(sa.delete(table).where(table.c.job_id.in_(redrawn)))
    jobs = [changes.jobs[name] for name in changes.redrawn]
    await _insert(connection, DATASET_EDGES, [edge for job in jobs for edge in _dataset_edges(job, ids)])
    await _insert(connection, COLUMN_EDGES, [edge for job in jobs for edge in _column_edges(job, ids)])


async def _insert(connection: AsyncConnection, table: sa.Table, rows: list[dict[str, object]]) -> None:
    if rows:
        await connection.execute(sa.insert(table), rows)


def _dataset_edges(job: Job, ids: Ids) -> Iterable[dict[str, object]]:
    job_id = ids[(True, job.name)]
    for made, names in ((False, job.inputs), (True, tuple(made.dataset for made in job.outputs))):
        for position, name in enumerate(names):
            yield {"job_id": job_id, "node_id": ids[(False, name)], "made": made, "position": position}


def _column_edges(job: Job, ids: Ids) -> Iterable[dict[str, object]]:
    for made in job.outputs:
        for column, inputs in [*made.columns.items(), (WHOLE, made.rows)]:
            for (source, source_column), transformation in inputs.items():
                yield {
                    "job_id": ids[(True, job.name)],
                    "source_id": ids[(False, source)],
                    "source_column": source_column,
                    "target_id": ids[(False, made.dataset)],
                    "target_column": column,
                    "transformation": transformation,
                }


def _or_null(at: datetime) -> datetime | None:
    return None if at == NEVER else at
