"""Resolves the columns of a parsed query to those of datasets (sqlglot's syntax tree). Loaded only where SQL is read."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect, NormalizationStrategy

from chassis.lineage.definition import (
    AGGREGATION,
    CLICKHOUSE,
    CONDITIONAL,
    FILTER,
    GROUP_BY,
    IDENTITY,
    JOIN,
    SORT,
    TRANSFORMATION,
    WINDOW,
    SchemasByName,
    SqlNotUnderstood,
)

# (dataset, column) -> transformation.
Inputs = dict[tuple[str, str], str]
_RANK = {name: rank for rank, name in enumerate((SORT, GROUP_BY, JOIN, FILTER, WINDOW, CONDITIONAL, IDENTITY, TRANSFORMATION, AGGREGATION))}
# Clauses of a query that decide which rows there are.
_ROW_CLAUSES = {"prewhere": FILTER, "where": FILTER, "having": FILTER, "qualify": FILTER, "group": GROUP_BY, "order": SORT}
# Nodes that hand a value on as it is.
_TRANSPARENT = (exp.Alias, exp.Paren)


@dataclass
class Relation:
    """Columns of a table, CTE or query by name. `open` are datasets of unknown columns that pass through whole (`SELECT *`).

    `dataset` is set of a table alone: a column that its schema does not have yet is its column all the same.
    """

    columns: dict[str, Inputs] = field(default_factory=dict)
    rows: Inputs = field(default_factory=dict)
    open: tuple[str, ...] = ()
    dataset: str = ""


def parsed(sql: str, dialect: str) -> tuple[Any, list[str], Any]:
    """Target table (None for a bare query), its columns if they are listed, and the query.

    Raises:
        SqlNotUnderstood: it cannot be parsed, or is another kind of statement.
    """
    try:
        tree = sqlglot.parse_one(sql, dialect=dialect)
    except (sqlglot.errors.SqlglotError, ValueError, RecursionError) as error:
        said = re.sub(r"\x1b\[\d+m", "", str(error))  # underlined for terminals
        raise SqlNotUnderstood(f"not understood as {dialect}: {said[:200]}") from error
    if isinstance(tree, (exp.Insert, exp.Create)):
        query, target, names = tree.expression, tree.this, []
        if isinstance(target, exp.Schema):
            names = [column.name for column in target.expressions]
            target = target.this
    else:
        query, target, names = tree, None, []
    if not isinstance(query, exp.Query):
        raise SqlNotUnderstood(f"{type(tree).__name__} has no query")
    return target, names, query


def combined(outer: str, inner: str) -> str:
    """How a value came about that went through `inner`, then `outer`."""
    if outer.startswith("INDIRECT"):
        return outer
    return inner if inner.startswith("INDIRECT") else max(outer, inner, key=_RANK.__getitem__)


def add(into: Inputs, more: Mapping[tuple[str, str], str], how: str = IDENTITY) -> None:
    """Adds inputs that go through `how`; of two ways the stronger stays."""
    for key, inner in more.items():
        found = combined(how, inner)
        if key not in into or _RANK[found] > _RANK[into[key]]:
            into[key] = found


class Resolver:
    """Resolves the queries of one statement; `inputs` are the datasets that it met, in order."""

    def __init__(self, schemas: SchemasByName, dialect: str) -> None:
        self.inputs: dict[str, None] = {}
        self.clickhouse = dialect == CLICKHOUSE
        strategy = Dialect.get_or_raise(dialect).normalization_strategy
        self.fold: Callable[[str], str] = str if strategy == NormalizationStrategy.CASE_SENSITIVE else str.lower
        self._schemas = schemas

    def dataset_of(self, table: Any) -> str:
        """The dataset that a table's name means: itself, or the only one that it is the end of ("t1" of "test.t1")."""
        name = ".".join(part.name for part in table.parts)
        if name in self._schemas:
            return name
        wanted = self.fold(name)
        near = [known for known in self._schemas if self.fold(known) == wanted or self.fold(known).endswith(f".{wanted}")]
        return near[0] if len(near) == 1 else name

    def dataset(self, table: Any) -> Relation:
        """The columns of a dataset."""
        name = self.dataset_of(table)
        self.inputs[name] = None
        known = self._schemas.get(name)
        if not known:
            return Relation(open=(name,))
        return Relation({column: {(name, column): IDENTITY} for column in known}, dataset=name)

    def resolve(self, query: Any, outer: "Scope | None" = None) -> Relation:
        """The columns of a query."""
        while isinstance(query, exp.Subquery) and not query.args.get("with_"):
            query = query.this
        scope = Scope(self, outer)
        scope.declare(query.args.get("with_"))
        if isinstance(query, exp.Subquery):
            return self.resolve(query.this, scope)
        if isinstance(query, exp.SetOperation):
            return united(self.resolve(query.left, scope), self.resolve(query.right, scope))
        return scope.select(query) if isinstance(query, exp.Select) else Relation()


def united(left: Relation, right: Relation) -> Relation:
    """Columns of two queries by position, under the names of the left one."""
    result = Relation({}, dict(left.rows), tuple(dict.fromkeys(left.open + right.open)))
    add(result.rows, right.rows)
    others = list(right.columns.values())
    for place, (name, inputs) in enumerate(left.columns.items()):
        result.columns[name] = dict(inputs)
        add(result.columns[name], others[place] if place < len(others) else {})
    return result


class Scope:
    """Names that one query sees: its sources, aliases, and what it inherits."""

    def __init__(self, resolver: Resolver, outer: "Scope | None") -> None:
        self._resolver = resolver
        self._outer = outer
        self._ctes: dict[str, Relation] = {}
        # Named values: aliases of the projection (unresolved), of WITH and of ARRAY JOIN.
        self._aliases: dict[str, Any] = {}
        self._values: dict[str, Inputs] = {}
        self._sources: dict[str, Relation] = {}
        self._windows: dict[str, Any] = {}
        self._shared: set[str] = set()
        self._resolving: list[str] = []

    def declare(self, with_: Any) -> None:
        """Takes the CTEs and, of ClickHouse, the named values of a WITH clause."""
        for cte in with_.expressions if with_ is not None else ():
            name = self._resolver.fold(cte.alias)
            if cte.args.get("scalar"):
                self._values[name] = self._inputs(cte.this, IDENTITY)
                continue
            if with_.args.get("recursive") and isinstance(cte.this, exp.SetOperation):
                self._ctes[name] = self._resolver.resolve(cte.this.left, self)
            self._ctes[name] = _renamed(self._resolver.resolve(cte.this, self), cte)

    def select(self, query: Any) -> Relation:
        """Resolves one SELECT."""
        result = Relation()
        self._from(query, result)
        self._windows = {self._resolver.fold(window.name): window for window in query.args.get("windows") or ()}
        for projection in query.expressions:
            for alias in _aliases(projection):
                self._aliases.setdefault(self._resolver.fold(alias.alias), alias.this)
        for name, inputs in self._projected(query, result):
            result.columns[name] = inputs
        for clause, how in _ROW_CLAUSES.items():
            # An order decides rows only where a limit cuts them.
            if query.args.get(clause) is not None and (how != SORT or query.args.get("limit")):
                add(result.rows, self._inputs(query.args[clause], how))
        for limited in (query.args.get("limit"), query.args.get("distinct")):
            add(result.rows, self._inputs(limited, FILTER) if limited is not None else {})
        return result

    def _from(self, query: Any, result: Relation) -> None:
        items = [query.args["from_"].this] if query.args.get("from_") else []
        joins = query.args.get("joins") or []
        for join in joins:
            if join.kind == "ARRAY":
                continue
            items.append(join.this)
            self._shared |= {self._resolver.fold(name.name) for name in join.args.get("using") or ()}
        for item in items:
            self._source(item, result)
        for join in joins:
            if join.kind == "ARRAY":
                self._array_join(join, result)
            elif join.args.get("on") is not None:
                add(result.rows, self._inputs(join.args["on"], JOIN))
            for name in join.args.get("using") or ():
                add(result.rows, self._named(name.name), JOIN)

    def _source(self, item: Any, result: Relation) -> None:
        if isinstance(item, exp.Final):
            item = item.this
        name = item.alias_or_name
        if isinstance(item, exp.Subquery):
            relation = self._resolver.resolve(item, self)
        elif isinstance(item, exp.Table) and isinstance(item.this, exp.Identifier):
            known = None if item.db else self._cte(self._resolver.fold(item.name))
            relation = known if known is not None else self._resolver.dataset(item)
        else:
            relation = Relation()  # a table function
        self._sources[self._resolver.fold(name or f"source {len(self._sources)}")] = _renamed(relation, item)
        add(result.rows, relation.rows)
        for join in item.args.get("joins") or ():  # a parenthesised join
            self._source(join.this, result)

    def _cte(self, name: str) -> Relation | None:
        if name in self._ctes:
            return self._ctes[name]
        return self._outer._cte(name) if self._outer is not None else None

    def _array_join(self, join: Any, result: Relation) -> None:
        for item in [join.this, *join.expressions]:
            inputs = self._inputs(item, TRANSFORMATION)
            self._values[self._resolver.fold(item.alias_or_name)] = inputs
            add(result.rows, inputs, JOIN)

    def _projected(self, query: Any, result: Relation) -> Iterator[tuple[str, Inputs]]:
        for projection in query.expressions:
            star = projection.this if isinstance(projection, exp.Column) else projection
            if isinstance(star, exp.Star):
                yield from self._star(projection, star, result)
            elif isinstance(star, exp.Columns):
                pattern = re.compile(star.this.name)
                yield from ((name, dict(self._named(name))) for name in self._all_names() if pattern.search(name))
            else:
                name = projection.alias_or_name or projection.sql(dialect=CLICKHOUSE)
                if name in result.columns and isinstance(projection, exp.Column) and projection.table:
                    name = f"{projection.table}.{name}"
                yield name, self._alias_inputs(projection)

    def _alias_inputs(self, projection: Any) -> Inputs:
        if not isinstance(projection, exp.Alias):
            return self._inputs(projection, IDENTITY)
        self._resolving.append(self._resolver.fold(projection.alias))
        try:
            return self._inputs(projection.this, IDENTITY)
        finally:
            self._resolving.pop()

    def _star(self, projection: Any, star: Any, result: Relation) -> Iterator[tuple[str, Inputs]]:
        fold = self._resolver.fold
        left_out = {fold(name.name) for name in star.args.get("except_") or ()}
        replaced = {fold(alias.alias): alias for alias in star.args.get("replace") or ()}
        wanted = fold(projection.table) if isinstance(projection, exp.Column) else ""
        for source, relation in self._sources.items():
            if wanted and source != wanted:
                continue
            result.open += tuple(name for name in relation.open if name not in result.open)
            for name, inputs in relation.columns.items():
                if fold(name) in replaced:
                    yield name, self._alias_inputs(replaced[fold(name)])
                elif fold(name) not in left_out:
                    shown = f"{source}.{name}" if name in result.columns and fold(name) not in self._shared else name
                    yield shown, dict(self._named(name)) if fold(name) in self._shared else dict(inputs)

    def _all_names(self) -> list[str]:
        return [name for relation in self._sources.values() for name in relation.columns]

    def _inputs(self, node: Any, how: str) -> Inputs:
        """Inputs of an expression whose value is used by `how`."""
        result: Inputs = {}
        stack = [(node, how)]
        while stack:
            current, how = stack.pop()
            if isinstance(current, exp.Column) and not isinstance(current.this, exp.Star):
                add(result, self._column(current), how)
            elif isinstance(current, exp.Query):
                relation = self._resolver.resolve(current, self)
                for inputs in relation.columns.values():
                    add(result, inputs, combined(how, TRANSFORMATION))
                add(result, relation.rows, combined(how, FILTER))
            else:
                stack += _parts(current, how)
                if isinstance(current, exp.Window) and current.args.get("alias"):
                    stack += _parts(self._windows.get(self._resolver.fold(current.alias), exp.null()), how)
        return result

    def _column(self, column: Any) -> Inputs:
        if not column.table:
            return self._named(column.name)
        source = self._find_source(self._resolver.fold(column.table), self._resolver.fold(".".join(p.name for p in column.parts[:-1])))
        if source is not None:
            return self._of(source, column.name) or _own(source, column.name)
        # A field of a nested column, or an element of a tuple.
        whole = self._named(f"{column.table}.{column.name}", certain=True)
        result: Inputs = {}
        add(result, whole or self._named(column.table), IDENTITY if whole else TRANSFORMATION)
        return result

    def _find_source(self, *names: str) -> Relation | None:
        for name in names:
            if name in self._sources:
                return self._sources[name]
        return self._outer._find_source(*names) if self._outer is not None else None

    def _of(self, relation: Relation, name: str) -> Inputs:
        for known, inputs in relation.columns.items():
            if self._resolver.fold(known) == self._resolver.fold(name):
                return inputs
        return {(dataset, name): IDENTITY for dataset in relation.open}

    def _named(self, name: str, *, certain: bool = False) -> Inputs:
        """What a bare name means. ClickHouse looks at aliases first, other engines at columns."""
        key = self._resolver.fold(name)
        if key in self._values:
            return self._values[key]
        if self._resolver.clickhouse and key in self._aliases and key not in self._resolving:
            return self._by_alias(key)
        holders = [r for r in self._sources.values() if any(self._resolver.fold(known) == key for known in r.columns)]
        if holders:
            result: Inputs = {}
            for relation in holders if key in self._shared else holders[:1]:
                add(result, self._of(relation, name))
            return result
        if key in self._aliases and key not in self._resolving:
            return self._by_alias(key)
        if certain:
            return {}
        guessed: Inputs = {}
        for relation in self._sources.values():
            add(guessed, self._of(relation, name))
        if not guessed and self._outer is not None:
            guessed = self._outer._named(name)
        if not guessed and len(self._sources) == 1:
            guessed = _own(next(iter(self._sources.values())), name)
        return guessed

    def _by_alias(self, key: str) -> Inputs:
        self._resolving.append(key)
        try:
            return self._inputs(self._aliases[key], IDENTITY)
        finally:
            self._resolving.pop()


def _own(relation: Relation, name: str) -> Inputs:
    return {(relation.dataset, name): IDENTITY} if relation.dataset else {}


def _renamed(relation: Relation, item: Any) -> Relation:
    """The relation under the column names of its alias: `AS t (a, b)`."""
    alias = item.args.get("alias")
    names = [column.name for column in alias.columns] if isinstance(alias, exp.TableAlias) else []
    if len(names) != len(relation.columns) or not names:
        return relation
    return replace(relation, columns=dict(zip(names, relation.columns.values(), strict=True)))


def _aliases(projection: Any) -> Iterator[Any]:
    """Aliases in an expression, but not in its subqueries."""
    for node in projection.walk(prune=lambda node: isinstance(node, exp.Query)):
        if isinstance(node, exp.Alias) and not isinstance(node.this, exp.Query):
            yield node


def _parts(node: Any, how: str) -> Iterator[tuple[Any, str]]:
    """The children of an expression, each with the way in which its value is used."""
    inside = how if isinstance(node, _TRANSPARENT) else combined(how, TRANSFORMATION)
    if isinstance(node, exp.AggFunc):
        inside = combined(how, AGGREGATION)
    conditional = combined(CONDITIONAL, how) if not how.startswith("INDIRECT") else how
    window = WINDOW if not how.startswith("INDIRECT") else how
    for name, value in node.args.items():
        for place, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, exp.Expression):
                continue
            if isinstance(node, exp.Window) and name != "this":
                yield child, window
            elif isinstance(node, exp.Window):
                yield child, how
            elif _is_condition(node, name, place):
                yield child, conditional
            else:
                yield child, inside


def _is_condition(node: Any, argument: str, place: int) -> bool:
    """Whether a child of IF, CASE or multiIf(condition, value, condition, value, ..., otherwise) only chooses between values."""
    if isinstance(node, (exp.If, exp.Case)):
        return argument == "this"
    if not isinstance(node, exp.Anonymous) or node.name.lower() != "multiif" or argument != "expressions":
        return False
    return place % 2 == 0 and place < len(node.expressions) - 1
