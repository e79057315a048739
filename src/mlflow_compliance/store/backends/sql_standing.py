"""Reads by SQL which rows that others rely on are deleted or gone: a few questions, none for a run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from mlflow_compliance.snapshot.entities import ACTIVE, DELETED, RegisteredModel
from mlflow_compliance.snapshot.standing import LostParent, RowState, lost_parents
from mlflow_compliance.snapshot.tags import COPY_STATE, PARENT, RETRACTED
from mlflow_compliance.snapshot.ties import named_in
from mlflow_compliance.store.backends.sql_tables import Tables


class StandingReader:
    """Asks one database."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def behind(self, registry: Mapping[str, RegisteredModel]) -> dict[str, RowState]:
        """The runs and logged models that versions name."""
        versions = [version for item in registry.values() for version in item.versions]
        named = {key for version in versions for key in named_in(version)}
        found = self._runs(named)
        if "logged_models" in self.tables.columns:
            for key, lifecycle, home in self.tables.within(
                "SELECT model_id, lifecycle_stage, experiment_id FROM logged_models WHERE model_id IN :ids", named
            ):
                found[key] = RowState(lifecycle, str(home))
        return found

    def lost_parents(self, experiments: Collection[str]) -> dict[str, LostParent]:
        """The parents that are not active, of the active runs in these experiments."""
        children: dict[str, Counter[str]] = defaultdict(Counter)
        for parent, home, key, number in self.tables.all(
            "SELECT tags.value, children.experiment_id, tags.key, COUNT(*) FROM tags "
            "JOIN runs children ON children.run_uuid = tags.run_uuid WHERE tags.key = :parent "
            "AND children.lifecycle_stage = 'active' AND NOT EXISTS (SELECT 1 FROM runs WHERE "
            f"{self.tables.equals('runs', 'run_uuid', 'tags.value')} AND runs.lifecycle_stage = 'active') "
            "GROUP BY tags.value, children.experiment_id, tags.key",
            parent=PARENT,
        ):
            if key == PARENT and parent and str(home) in experiments:
                children[parent][str(home)] += number
        states: dict[str, RowState | None] = {}
        above: dict[str, str] = {}
        level = set(children)
        while level:
            states |= dict.fromkeys(level) | self._runs(level)
            tags = self._tags([key for key in level if (state := states[key]) and state.lifecycle == DELETED])
            for key in [key for key, own in tags.items() if own.get(COPY_STATE) == RETRACTED]:
                # A repair took it back: nobody misses it.
                states[key] = RowState(ACTIVE, "")
                children.pop(key, None)
                del tags[key]
            above |= {key: own[PARENT] for key, own in tags.items() if own.get(PARENT)}
            level = {above[key] for key in tags if key in above} - states.keys()
        return lost_parents(states, children, above)

    def _runs(self, ids: Iterable[str]) -> dict[str, RowState]:
        return {
            key: RowState(lifecycle, str(home))
            for key, lifecycle, home in self.tables.within(
                "SELECT run_uuid, lifecycle_stage, experiment_id FROM runs WHERE run_uuid IN :ids", ids
            )
        }

    def _tags(self, ids: Collection[str]) -> dict[str, dict[str, str]]:
        """Of each of these runs, the tags that say whose child it is and whether it was taken back."""
        found: dict[str, dict[str, str]] = {key: {} for key in ids}
        for run_id, key, value in self.tables.within(
            "SELECT run_uuid, tags.key, value FROM tags WHERE tags.key IN (:parent, :copy) AND run_uuid IN :ids",
            ids,
            parent=PARENT,
            copy=COPY_STATE,
        ):
            found[run_id][key] = value or ""
        return found
