"""Which rows go when things are destroyed for good: by what MLflow's mappers cascade, by what its code names, and by
what the database cascades itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Table, and_, func, inspect, select, tuple_
from sqlalchemy import MetaData as Schema

from mlflow_compliance.store.backends.sql_tables import CHUNK, Tables

Key = tuple[Any, ...]


class _Edge(NamedTuple):
    """Rows of `child` go with the rows of `parent` whose `above` equal their `columns`."""

    child: str
    columns: tuple[str, ...]
    parent: str
    above: tuple[str, ...]


class Going(NamedTuple):
    """Table -> how many of its rows go; and of runs, models and experiments the keys that cannot go, because a row that
    stays refers to them: the database refuses that, and gc ends there.
    """

    counts: dict[str, int]
    refused: dict[str, set[Any]]


def rows_going(tables: Tables, going: Mapping[str, Collection[Any]]) -> Going:
    """What goes with the rows of `going`: table -> its single keys."""
    schema = Schema()
    schema.reflect(bind=tables.connection, only=lambda name, _: name in tables.columns)
    keys = [
        (child, key)
        for (_, child), found in inspect(tables.connection).get_multi_foreign_keys().items()
        for key in found
    ]
    edges = {edge for edge in (*_mapped(), *_cascading(keys)) if _there(edge, schema)}
    refusing = {edge for edge in _refusing(keys) - edges if _there(edge, schema)}
    found: dict[str, set[Key]] = {table: {(key,) for key in keys} for table, keys in going.items() if keys}
    counts = defaultdict[str, int](int)
    waiting = [(table, set(keys)) for table, keys in found.items()]
    while waiting:
        table, some = waiting.pop()
        for edge in sorted(edge for edge in edges if edge.parent == table):
            if _is_leaf(edge, edges, refusing):
                counts[edge.child] += _count(tables, schema, edge, some)
                continue
            new = _keys(tables, schema, edge, some) - found.setdefault(edge.child, set())
            if new:
                found[edge.child] |= new
                waiting.append((edge.child, new))
    refused: dict[str, set[Any]] = defaultdict(set)
    for edge in refusing:
        if edge.parent in going and found.get(edge.parent):
            staying = _keys(tables, schema, edge, found[edge.parent], also=edge.columns)
            refused[edge.parent] |= {
                key[-1] for key in staying if key[: -len(edge.columns)] not in found.get(edge.child, ())
            }
    counts.update({table: len(own) for table, own in found.items()})
    return Going({table: number for table, number in sorted(counts.items()) if number}, dict(refused))


def _is_leaf(edge: _Edge, edges: Collection[_Edge], refusing: Collection[_Edge]) -> bool:
    """Whether nothing goes with the rows of a table, and each refers to one other: then they are counted alone."""
    others = {other for other in (*edges, *refusing) if other.child == edge.child}
    return others == {edge} and not any(other.parent == edge.child for other in edges)


def _there(edge: _Edge, schema: Schema) -> bool:
    return all(
        table in schema.tables and name in schema.tables[table].columns
        for table, names in ((edge.child, edge.columns), (edge.parent, edge.above))
        for name in names
    )


def _mapped() -> Iterator[_Edge]:
    """What SQLAlchemy deletes for MLflow, and what the code of its hard deletions names without a relation."""
    import mlflow.store.tracking.sqlalchemy_store as module
    from mlflow.store.tracking.dbmodels.models import SqlExperiment

    for mapper in SqlExperiment.registry.mappers:
        for relation in mapper.relationships:
            if relation.cascade.delete and relation.direction.name == "ONETOMANY":
                pairs = [(below.name, above.name) for above, below in relation.local_remote_pairs]
                yield _Edge(
                    relation.mapper.local_table.name,
                    tuple(below for below, _ in pairs),
                    mapper.local_table.name,
                    tuple(above for _, above in pairs),
                )
    named = module.SqlAlchemyStore._hard_delete_experiment.__code__.co_names
    for kind in (getattr(module, name, None) for name in named):
        table = getattr(kind, "__table__", None)
        if table is not None and "experiment_id" in table.columns and table.name != "experiments":
            yield _Edge(table.name, ("experiment_id",), "experiments", ("experiment_id",))


def _cascading(keys: Collection[tuple[str, Any]]) -> Iterator[_Edge]:
    """What the database deletes itself."""
    return (_edge(child, key) for child, key in keys if _on_delete(key) == "CASCADE")


def _refusing(keys: Collection[tuple[str, Any]]) -> set[_Edge]:
    """Where the database lets no row go that another one refers to, and MLflow does not empty that reference."""
    from mlflow.store.tracking.dbmodels.models import SqlExperiment

    emptied = {
        relation.mapper.local_table.name
        for mapper in SqlExperiment.registry.mappers
        for relation in mapper.relationships
        if relation.direction.name == "ONETOMANY" and not relation.cascade.delete and not relation.viewonly
    }
    return {
        _edge(child, key)
        for child, key in keys
        if _on_delete(key) not in ("CASCADE", "SET NULL", "SET DEFAULT") and child not in emptied
    }


def _on_delete(key: Any) -> str:
    return str((key.get("options") or {}).get("ondelete") or "").upper()


def _edge(child: str, key: Any) -> _Edge:
    return _Edge(child, tuple(key["constrained_columns"]), key["referred_table"], tuple(key["referred_columns"]))


def _count(tables: Tables, schema: Schema, edge: _Edge, keys: Collection[Key]) -> int:
    child = schema.tables[edge.child]
    return sum(
        tables.connection.execute(select(func.count()).select_from(child).where(condition)).scalar() or 0
        for condition in _conditions(tables, schema, edge, keys)
    )


def _keys(tables: Tables, schema: Schema, edge: _Edge, keys: Collection[Key], also: Collection[str] = ()) -> set[Key]:
    """The keys of the rows of a table that go with these of another, each followed by what it has in some columns."""
    child = schema.tables[edge.child]
    own = [*(list(child.primary_key.columns) or list(child.columns)), *(child.c[name] for name in also)]
    return {
        tuple(row)
        for condition in _conditions(tables, schema, edge, keys)
        for row in tables.connection.execute(select(*own).where(condition))
    }


def _conditions(tables: Tables, schema: Schema, edge: _Edge, keys: Collection[Key]) -> Iterator[ColumnElement[bool]]:
    """What the rows of a table meet that go with these of another, some at a time."""
    child, parent = schema.tables[edge.child], schema.tables[edge.parent]
    columns, own = [child.c[name] for name in edge.columns], list(parent.primary_key.columns)
    values = keys if [column.name for column in own] == list(edge.above) else _values(tables, parent, edge, keys)
    ordered = sorted(values, key=str)
    for start in range(0, len(ordered), CHUNK // len(columns)):
        some = ordered[start : start + CHUNK // len(columns)]
        if len(columns) == 1:
            yield columns[0].in_([value for (value,) in some])
        else:
            yield tuple_(*columns).in_(some)


def _values(tables: Tables, parent: Table, edge: _Edge, keys: Collection[Key]) -> set[Key]:
    """What the rows of a table hold in the columns that others refer to."""
    own, above = list(parent.primary_key.columns), [parent.c[name] for name in edge.above]
    ordered, found = sorted(keys, key=str), set[Key]()
    for start in range(0, len(ordered), CHUNK // len(own)):
        some = ordered[start : start + CHUNK // len(own)]
        chosen = own[0].in_([value for (value,) in some]) if len(own) == 1 else tuple_(*own).in_(some)
        found |= {tuple(row) for row in tables.connection.execute(select(*above).where(and_(chosen)))}
    return {values for values in found if None not in values}
