"""What of all that is to be destroyed something still needs, and the chain that says so. The roots are those of
`reachability`, and what only counts once a thing is to go for good: holds, retention, records, other rows' folders.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.marks import said_in
from mlflow_compliance.production.reachability import CONTENT, Kept, named_by, word
from mlflow_compliance.production.retention import retained
from mlflow_compliance.snapshot.doomed import Doom, Doomed, DoomedFolder
from mlflow_compliance.snapshot.files import upwards
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.tags import (
    BUILD,
    BUILT_FOR,
    COMPLETE_BUILD,
    COPY_STATE,
    KEPT_AS,
    KEPT_JOURNAL,
    RETRACTED,
)
from mlflow_compliance.snapshot.ties import How, Tie

DAY = 86_400_000
"""Milliseconds."""
Place = tuple[str, str]
_ID = re.compile(r"(?<![0-9a-zA-Z])(?:m-)?[0-9a-f]{32}(?![0-9a-zA-Z])")
_OWN_FOLDERS = ("run", "logged_model", "model_version", "skill_version", "trace")
"""What has a folder of its own; that of an experiment only holds those of others."""
_RESTORE = "restore it first"
_WAYS_OUT = {
    How.CHILD: "restore it, or delete that run first",
    How.PARENT: "let that run end first",
    How.USED: "log that model elsewhere first",
    How.TRACE: "wait until whoever logs them is done",
}


def needed(context: Context, doom: Doom, folders: Mapping[Place, DoomedFolder]) -> Mapping[Place, tuple[Kept, ...]]:
    """(kind, key) of each thing that is still needed -> why, each reason once."""
    asking = _Asking(context, doom, folders)
    for place, kept in asking.roots():
        asking.keep(place, kept)
    asking.follow()
    return {place: tuple(reasons) for place, reasons in asking.found.items()}


class _Asking:
    def __init__(self, context: Context, doom: Doom, folders: Mapping[Place, DoomedFolder]) -> None:
        self.context, self.snapshot, self.doom, self.folders = context, context.snapshot, doom, folders
        self.things = {item.ref.place: item for item in doom.things}
        self.found: dict[Place, list[Kept]] = defaultdict(list)
        self._whole = set[Place]()
        """Runs that are needed by themselves, and with that the models that they wrote."""
        self._copied = self.snapshot.whole_copies()

    def keep(self, place: Place, kept: Kept) -> None:
        if place in self.things and kept not in self.found[place]:
            self.found[place].append(kept)

    def roots(self) -> Iterator[tuple[Place, Kept]]:
        versions = {tie.target.key: tie for tie in self.doom.ties if tie.how is How.VERSION}
        for tie in self.doom.ties:
            if tie.how is How.WRITTEN_BY and tie.source.key in versions:
                of_model = self._of_tie(versions[tie.source.key])
                if of_model:
                    chain = (*of_model.chain, word(tie.target))
                    why = f"the model of {versions[tie.source.key].source} was written by it"
                    yield tie.target.place, Kept(why, chain, of_model.way_out)
            kept = self._of_tie(tie)
            if kept:
                yield tie.target.place, kept
        for item in self.doom.things:
            own = [*self._by_itself(item)]
            self._whole |= {item.ref.place} if own else set()
            for kept in (*own, *self._by_law(item)):
                yield item.ref.place, kept
        yield from self._by_records()
        yield from self._by_folders()
        yield from self._by_leads()

    def _of_tie(self, tie: Tie) -> Kept | None:
        chain = (word(tie.source), word(tie.target))
        if tie.how is How.VERSION:
            registered = self.snapshot.registered_models[tie.source.key.rpartition("/")[0]]
            version = registered.version(tie.source.key.rpartition("/")[2])
            start = named_by(self.snapshot, version) if version else (word(tie.source),)
            return Kept(f"{tie.source} relies on it", (*start, word(tie.target)), "restore it, or delete that first")
        if tie.how is How.CHILD:
            return Kept(f"active run {tie.source.key} names it as its parent", chain, _WAYS_OUT[tie.how])
        if tie.how is How.PARENT:
            return Kept(f"run {tie.source.key}, whose child it is, is at work", chain, _WAYS_OUT[tie.how])
        if tie.how is How.USED:
            return Kept(f"active run {tie.source.key} read it", chain, _WAYS_OUT[tie.how])
        if tie.how is How.TRACE:
            return Kept("traces are being logged for it", chain, _WAYS_OUT[tie.how])
        if tie.how in CONTENT:
            return Kept(f"{word(tie.source)} {CONTENT[tie.how]}", chain, "restore it, or take that off it first")
        return None

    def _by_itself(self, item: Doomed) -> Iterator[Kept]:
        """What a thing's own row says."""
        own = (word(item.ref),)
        if item.tags.get(COPY_STATE) == RETRACTED:
            return  # a copy that a repair took back has the tags of its source
        if item.ref.kind == "run" and item.active:
            yield Kept(f"it is active, in experiment {item.experiment_id}, which is deleted", own, _RESTORE)
        if item.at_work:
            yield Kept("it says that it is at work", own, "let it end first")
        if KEPT_JOURNAL in item.tags or KEPT_AS in item.tags:
            yield Kept("it keeps the journals of repairs", own, _RESTORE)
        for product in self.context.settings.products:
            if item.ref.kind == "experiment" and item.ref.label == product.primary:
                yield Kept(f"the settings name it as primary of {product.name}", own, _RESTORE)
            if item.tags.get(BUILT_FOR) == product.name and item.tags.get(BUILD) == COMPLETE_BUILD:
                yield Kept(f"a repair built it as production of {product.name}", own, _RESTORE)
        if item.ref.key not in self._copied and (item.ref.kind == "run" or not self._all_copied(item)):
            for key, value in said_in(item.tags, self.context.settings):
                yield Kept(f"its tag {key}={value} says production", own, "restore it, or take the tag off first")

    def _all_copied(self, home: Doomed) -> bool:
        """Whether every run of an experiment has a copy that stands for it."""
        runs = [item.ref.key for item in self.doom.things if item.ref.kind == "run"]
        runs = [key for key in runs if self.things["run", key].experiment_id == home.ref.key]
        return bool(runs) and all(key in self._copied for key in runs)

    def _by_law(self, item: Doomed) -> Iterator[Kept]:
        for why in retained(self.context).get(item.ref.place, ()):
            yield Kept(why.why, (why.rule, word(item.ref)), "end the hold or change [retention] in the settings first")
        days = self.context.settings.retention.deleted_days
        if days is None or item.ref.kind == "job" or item.active:
            return
        rule = f"[retention] deleted_days = {days:g}"
        if not item.deleted_at:
            yield Kept(f"no row tells when it was deleted ({rule})", (rule, word(item.ref)), "delete it anew first")
        elif item.deleted_at > self.snapshot.taken_at - days * DAY:
            ago = (self.snapshot.taken_at - item.deleted_at) / DAY
            yield Kept(f"it was deleted {max(ago, 0):.1f} days ago ({rule})", (rule, word(item.ref)), "wait until then")

    def _by_records(self) -> Iterator[tuple[Place, Kept]]:
        """What the metadata of production runs names. A copy stands for what it was copied from."""
        found = self.snapshot.evidence.metadata if self.snapshot.evidence else {}
        for run_id, metadata in found.items() if {kind for kind, _ in self.things} & {"run", "logged_model"} else ():
            for key in set(_ID.findall(json.dumps(metadata.document, default=str))) - self._copied.keys():
                record = f"model_metadata.json of run {run_id}"
                for place in (("run", key), ("logged_model", key)):
                    if place in self.things:
                        chain = (record, word(self.things[place].ref))
                        yield place, Kept(f"{record} names it", chain, _RESTORE)

    def _by_folders(self) -> Iterator[tuple[Place, Kept]]:
        """Rows that stay and name a folder in, at or above one that goes: its files are theirs too."""
        if self.snapshot.artifacts is None:
            return
        going = self._going()
        staying: dict[str, list[Place]] = defaultdict(list)
        for place, folder in self.snapshot.artifacts.locations.items():
            if place not in self.things and place[0] in _OWN_FOLDERS:
                staying[folder].append(place)
        for folder, places in staying.items():
            for above in upwards(folder):
                for goes in going.get(above, ()):
                    for place in places:
                        yield goes, self._shared(place, goes, above)
        for folder, targets in going.items():
            for above in upwards(folder):
                for place in staying.get(above, ()) if above != folder else ():
                    for goes in targets:
                        yield goes, self._shared(place, goes, folder)

    def _shared(self, place: Place, goes: Place, folder: str) -> Kept:
        source = word(EntityRef(*place))
        return Kept(
            f"files of {source} lie in its folder",
            (source, folder, word(self.things[goes].ref)),
            "put that one's files elsewhere first",
        )

    def _by_leads(self) -> Iterator[tuple[Place, Kept]]:
        """Symbolic links and pointers of what stays that lead into what goes. A hard link keeps its bytes."""
        artifacts = self.snapshot.artifacts
        if artifacts is None:
            return
        going = self._going()
        leads = [*artifacts.links.items(), *((path, pointer.kept) for path, pointer in artifacts.pointers.items())]
        for path, target in leads:
            if any(above in going for above in upwards(path)):
                continue
            for above in upwards(target):
                for goes in going.get(above, ()):
                    shown = artifacts.relative(path)
                    yield (
                        goes,
                        Kept(
                            f"{shown} leads into it",
                            (shown, target, word(self.things[goes].ref)),
                            "copy the file first",
                        ),
                    )

    def _going(self) -> Mapping[str, list[Place]]:
        """Folder whose files go -> what it is the folder of."""
        found: dict[str, list[Place]] = defaultdict(list)
        for place, folder in self.folders.items():
            if folder.place and self.things[place].files_go:
                found[folder.place].append(place)
        return found

    def follow(self) -> None:
        """What is needed needs what it relies on."""
        models: dict[str, list[Place]] = defaultdict(list)
        for item in self.doom.things:
            if item.ref.kind == "logged_model" and item.run_id:
                models[item.run_id].append(item.ref.place)
        waiting = deque(self.found)
        while waiting:
            place = waiting.popleft()
            item, first = self.things[place], self.found[place][0]
            written = models.get(item.ref.key, ()) if place in self._whole else ()
            for target in (*self._relied_on(item), *written):
                if target in self.things and target not in self.found:
                    what = "in it" if target[0] == "experiment" else "that relies on it"
                    what = "that wrote it" if target in written else what
                    chain = (*first.chain, word(self.things[target].ref))
                    self.keep(target, Kept(f"{word(item.ref)} {what} is still needed", chain, first.way_out))
                    waiting.append(target)

    def _relied_on(self, item: Doomed) -> Iterator[Place]:
        yield ("experiment", item.experiment_id)
        if item.parent:
            yield ("run", item.parent)
        if item.run_id:
            yield ("run", item.run_id)
        yield from (("logged_model", key) for key in item.reads)
