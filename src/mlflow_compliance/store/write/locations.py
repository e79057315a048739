"""The places that rows name, rewritten in one transaction through MLflow's own tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Table, and_, bindparam, select, tuple_

from mlflow_compliance.changes import RewriteLocations, Rewriting
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.backends.base import workspace
from mlflow_compliance.store.backends.sql_locations import COLUMNS, Column
from mlflow_compliance.store.backends.sql_tables import CHUNK
from mlflow_compliance.store.write.bulk import one_transaction, tracking_store
from mlflow_compliance.store.write.effects import OpenStore, inverse, write
from mlflow_compliance.store.write.errors import one_sentence


@write.register(RewriteLocations)
def rewrite_locations(change: RewriteLocations, to: OpenStore) -> None:
    """Let every row say what it is to say, all or none. Raises ChangeError where one says something else than
    planned.
    """
    kinds: dict[str, list[Rewriting]] = defaultdict(list)
    for item in change.rewritings:
        kinds[item.kind].append(item)
    with (
        one_sentence("the places that rows name could not be rewritten"),
        one_transaction(tracking_store(to.client)) as session,
    ):
        for kind, items in kinds.items():
            _Rows(session, kind).rewrite(items)


@inverse.register(RewriteLocations)
def undo_rewrite_locations(change: RewriteLocations, to: OpenStore) -> RewriteLocations:
    back = tuple(Rewriting(item.kind, item.key, item.after, item.before) for item in change.rewritings)
    return RewriteLocations(change.prefix, change.folder, change.rows, back, restores=not change.restores)


class _Rows:
    def __init__(self, session: Any, kind: str) -> None:
        # The registry's tables are known to MLflow once its module is there; its newer tables only to newer versions of
        # it.
        import mlflow.store.model_registry.dbmodels.models  # noqa: F401
        from mlflow.store.db.base_sql_model import Base

        self.session, self.kind = session, kind
        self.column: Column = COLUMNS[kind]
        found = Base.metadata.tables.get(self.column.table)
        if found is None:
            raise ChangeError(
                f"the installed MLflow does not know the table {self.column.table}: install the version that "
                "writes this store"
            )
        self.table: Table = found
        self.keys = [self.table.c[name] for name in self.column.keys]
        self.text = self.table.c[self.column.column]
        self.condition = [self.table.c.key == self.column.tag] if self.column.tag else []
        if "workspace" in self.table.c:
            self.condition.append(self.table.c.workspace == workspace())

    def rewrite(self, items: Sequence[Rewriting]) -> None:
        """Compared before, so that nothing that came meanwhile is written over, and after, under the locks that
        writing takes.
        """
        if dict(self._found([item.key for item in items], lock=False)) == {item.key: item.after for item in items}:
            return  # as it is to be
        self._refuse_what_is_too_long(items)
        self._compare({item.key: item.before for item in items}, lock=True)
        own = [key == bindparam(f"own_{number}") for number, key in enumerate(self.keys)]
        statement = (
            self.table.update()
            .where(*own, self.text == bindparam("before"), *self.condition)
            .values({self.text: bindparam("after")})
        )
        self.session.connection().execute(
            statement,
            [
                {
                    "before": item.before,
                    "after": item.after,
                    **{f"own_{number}": value for number, value in enumerate(self._typed(item.key))},
                }
                for item in items
            ],
        )
        self._compare({item.key: item.after for item in items}, lock=False)

    def _compare(self, texts: dict[tuple[str, ...], str], *, lock: bool) -> None:
        found = dict(self._found(list(texts), lock=lock))
        for key, text in texts.items():
            if found.get(key) != text:
                now = repr(found[key]) if key in found else "gone"
                raise ChangeError(
                    f"the place of {self.kind.replace('_', ' ')} {'/'.join(key)} is now {now} and was {text!r} "
                    "when the plan was made: "
                    "run again to plan anew"
                )

    def _found(self, keys: list[tuple[str, ...]], *, lock: bool) -> Iterator[tuple[tuple[str, ...], str]]:
        for start in range(0, len(keys), CHUNK // len(self.keys)):
            some = [self._typed(key) for key in keys[start : start + CHUNK // len(self.keys)]]
            wanted = self.keys[0].in_([key[0] for key in some]) if len(self.keys) == 1 else tuple_(*self.keys).in_(some)
            statement = select(*self.keys, self.text).where(and_(wanted, *self.condition))
            for *key, text in self.session.execute(statement.with_for_update() if lock else statement):
                yield tuple(map(str, key)), text

    def _typed(self, key: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(column.type.python_type(value) for column, value in zip(self.keys, key, strict=True))

    def _refuse_what_is_too_long(self, items: Sequence[Rewriting]) -> None:
        """SQLite takes any text; a database that cuts it would leave half a path."""
        most = getattr(self.text.type, "length", None)
        if most is None or self.session.get_bind().dialect.name == "sqlite":
            return
        for item in items:
            if len(item.after) > most:
                raise ChangeError(
                    f"the place of {self.kind.replace('_', ' ')} {'/'.join(item.key)} would have "
                    f"{len(item.after)} characters, and the database "
                    f"takes {most}: give the store a shorter path, by a link say"
                )
