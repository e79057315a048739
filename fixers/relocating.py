"""The remedy for rows that name a place which is not here: rewritten where all files are proven to be at the mapped
one, else advice.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from mlflow_compliance.api import (
    HISTORY,
    SERVED,
    Artifacts,
    Change,
    Context,
    EntityRef,
    Finding,
    PlaceInRow,
    RewriteLocations,
    Rewriting,
    Settings,
    Unfixable,
    Why,
    fixer,
    quoted,
)

MOST = 5
"""What is missing is named so often; the rest is counted."""
SETTLE = "write the lines of [store.relocate] that are given here into compliance.toml, then run --fix"


@fixer("ART003", reads_files=True)
def relocate(finding: Finding, context: Context) -> Iterator[Change]:
    """Rewrite the prefix in the rows, once all files that they speak of are at the mapped place."""
    artifacts = context.snapshot.artifacts
    if artifacts is None:
        return
    if finding.code == "relocated":
        yield _rewriting(finding.entity.key, artifacts, context.settings)
        return
    raise Unfixable("nothing says yet where the files are", advice=_advice(finding, artifacts))


def _advice(finding: Finding, artifacts: Artifacts) -> str:
    """The way out where nothing says yet where the files are."""
    unknown = next(
        (
            item
            for item in artifacts.unreachable
            if finding.entity in (item.example, EntityRef("place", item.place, item.place))
        ),
        None,
    )
    moved = artifacts.moved_from(unknown.place) if unknown else []
    if finding.toml:
        servers = unknown is not None and unknown.why is Why.SERVER
        why = "for reading alone, since the server needs what the rows say" if servers else "it rewrites the rows"
        return f"{SETTLE}: {why}"
    if moved:
        return (
            "say which of the folders it is, under [store.relocate] in compliance.toml: "
            f"`{quoted(moved[0].prefix)} = {quoted(next(iter(moved[0].folders), 'FOLDER'))}`; one that is a copy can "
            "be moved away"
        )
    if unknown and unknown.place.startswith(("s3:", SERVED)):
        return (
            "see that its bucket or server, and the credentials and the endpoint of this audit "
            "(`MLFLOW_S3_ENDPOINT_URL=https://...`, `AWS_PROFILE=...`), are the right ones; then run again"
        )
    absent = (unknown and unknown.why is None) or any(item.root == finding.entity.key for item in artifacts.unreachable)
    back = "put them back where the rows say; " if absent else ""
    prefix = quoted(unknown.place if unknown else finding.entity.key)
    return (
        f"{back}if the files are here, map the place for reading, under [store.relocate] in compliance.toml: "
        f'`{prefix} = "FOLDER HERE"`'
    )


def _rewriting(prefix: str, artifacts: Artifacts, settings: Settings) -> Change:
    """The change of all rows that are read by a prefix. Raises Unfixable with what is not proven of them."""
    places = [item for item in artifacts.elsewhere if item.prefix == prefix]
    wrong = [f"{_called(item)} cannot name its new place" for item in places if not item.after]
    if any(_holds_a_password(item.before) for item in places):
        raise Unfixable(
            "its rows hold a password, which must not go into a journal: they are left as they are",
            advice="take the password out of the rows of the database first, and give it by the environment",
        )
    if wrong:
        raise Unfixable(
            _some(wrong),
            advice="map a longer prefix, and to a folder that is in no prefix itself, under [store.relocate] in "
            f'compliance.toml: `{quoted(prefix.rstrip("/") + "/MORE")} = "FOLDER HERE"`',
        )
    missing = list(dict.fromkeys(_missing(prefix, places, artifacts)))
    if missing:
        folder = settings.store.resolved_relocate(settings.base)[prefix]
        raise Unfixable(
            f"not all files that its rows speak of are there: {_some(missing)}",
            advice=f"bring them (`rsync -a OLD_PLACE/ {shlex.quote(folder)}/`), or see to those rows first",
        )
    if not any(_has_files(item, artifacts) for item in places):
        raise Unfixable(
            "nothing in the folder that it is mapped to belongs to a run or model of its rows",
            advice="see that it is the right one, under [store.relocate] in compliance.toml: "
            f'`{quoted(prefix)} = "FOLDER HERE"`',
        )
    rewritings = tuple(Rewriting(item.kind, item.key, item.before, item.after) for item in places)
    folder = settings.store.resolved_relocate(settings.base)[prefix]
    return RewriteLocations(prefix, folder, artifacts.relocated.get(prefix, 0), rewritings)


def _missing(prefix: str, places: Sequence[PlaceInRow], artifacts: Artifacts) -> Iterator[str]:
    """What rows speak of that is not at the mapped place, in words."""
    rows = {item.row for item in places}
    # The models that a run recorded have no place of their own: they are named after it.
    runs = {item.row[1] for item in places if item.kind in ("run", HISTORY)}
    for kind, key in (
        *rows,
        *(row for row in artifacts.unknown if row[0] == "run_model" and row[1].partition("/")[0] in runs),
    ):
        if (kind, key) in artifacts.unknown:
            yield artifacts.unknown[kind, key].reason
    yield from (
        item.reason for item in artifacts.unreachable if item.why is None and artifacts.mapped(item.place) == prefix
    )
    needed = {item.row: _called(item) for item in places if item.has_files}
    needed |= {
        row: f"model {row[1]}"
        for row in artifacts.locations
        if row[0] == "run_model" and row[1].partition("/")[0] in runs
    }
    for row, called in needed.items():
        folder = artifacts.locations.get(row)
        if folder is not None:
            yield from (f"{called}: {model.problem}" for model in artifacts.models_in(folder) if model.problem)
            if not artifacts.under(folder):
                yield f"{called}: {folder} holds no file"


def _has_files(item: PlaceInRow, artifacts: Artifacts) -> bool:
    folder = artifacts.locations.get(item.row) if item.kind != "experiment" else None
    return folder is not None and bool(artifacts.under(folder))


def _called(item: PlaceInRow) -> str:
    return f"{item.kind.replace('_', ' ')} {'/'.join(item.key)}"


def _holds_a_password(place: str) -> bool:
    return "@" in urlsplit(place).netloc if "://" in place else False


def _some(items: Sequence[str]) -> str:
    return f"{'; '.join(items[:MOST])}{f'; and {len(items) - MOST} more' if len(items) > MOST else ''}"
