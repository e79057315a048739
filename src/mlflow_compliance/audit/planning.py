"""What the command line says of plans: which changes they are limited to, the file that one is kept in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compliance.audit.plan_files import read_plan, refuse_to_replace, write_plan
from mlflow_compliance.repair.journal import versions
from mlflow_compliance.repair.limits import All, Limit, SafeAlone
from mlflow_compliance.repair.plan_document import Asked, Made, document_of
from mlflow_compliance.repair.saved_plan import Followed, refuse_other
from mlflow_compliance.settings.errors import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from mlflow_compliance.repair.plan import Plan
    from mlflow_compliance.repair.plan_document import SavedPlan, StoreFacts
    from mlflow_compliance.settings.flags import Flags
    from mlflow_compliance.settings.schema import Settings


class Planning:
    """The plans of one session; a file is named from the folder `base` on."""

    def __init__(self, flags: Flags, base: Path) -> None:
        self._flags = flags
        self._base = base
        self._saved: SavedPlan | None = None
        self._versions = versions()

    @property
    def _path(self) -> Path | None:
        named = self._flags.plan
        return None if named is None else self._base / Path(named).expanduser()

    @property
    def name(self) -> str:
        """The file as people read it, '' where none is named."""
        return shown_path(self._path) if self._path else ""

    def check(self) -> None:
        """Read the plan that is to be carried out; or see that one can be written. Raises PlanError."""
        if self._path is None:
            return
        if self._flags.fix:
            self._saved = read_plan(self._path)
        else:
            refuse_to_replace(self._path)

    def make(
        self,
        store: StoreFacts,
        settings: Settings,
        asked: Collection[str],
        plan: Callable[[Limit], Plan],
        before: Callable[[], Collection[str]],
    ) -> Plan:
        """A plan within its limits; `asked` are ids of rules, `before` gives the keys of what earlier repairs made.
        Raises PlanError where the saved one is not for this store.
        """
        limits: list[Limit] = [SafeAlone()] if self._flags.fix_safe else []
        if self._saved is None:
            made = plan(All(limits))
            return replace(made, sha256=str(self._document(made, store, settings)["plan"]))
        refuse_other(self._saved, store, settings.fingerprint, self._versions)
        followed = Followed(self._saved)
        made = plan(All([*limits, followed]))
        return replace(made, sha256=self._saved.plan, fates=followed.fates(made, asked, before))

    def save(self, plan: Plan, store: StoreFacts, settings: Settings) -> str:
        """Write a plan to the file that is named; its name, '' where none is. Raises PlanError."""
        if self._path is not None:
            write_plan(self._path, self._document(plan, store, settings))
        return self.name

    def _document(self, plan: Plan, store: StoreFacts, settings: Settings) -> dict[str, Any]:
        asked = Asked(rules=sorted(self._flags.rules), safe_alone=self._flags.fix_safe, not_asked=list(plan.unasked))
        return document_of(plan, Made.now(), self._versions, store, settings.fingerprint, asked)
