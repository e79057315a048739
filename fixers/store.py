"""Remedies for the store as a whole."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from mlflow_compliance.api import Change, Context, Finding, RemoveRepeatedPoints, Unfixable, fixer


@fixer("STO001")
def remove_repeats(finding: Finding, context: Context) -> Iterator[Change]:
    """Leave exact repeats out of the metric files; each file as it was is kept beside the journal."""
    if finding.code == "without-experiment":
        raise Unfixable(
            "its meta.yaml cannot be read",
            advice="bring that back first (STO005): `pytest --compliance-explain=STO005` says how",
        )
    if finding.code == "clashes":
        raise Unfixable(
            "which value counts is not for a program to say",
            advice="take the other lines out of the file, then "
            "`mlflow migrate-filestore --source mlruns --target sqlite:///mlflow.db`",
        )
    for path, points in context.snapshot.repeated_points.items():
        owner = points.owner
        if (owner.kind, owner.key) == finding.entity.place and points.repeats:
            yield RemoveRepeatedPoints(
                path, owner.kind, owner.key, points.metric, points.repeats, points.sha256, points.size
            )


@fixer("STO003")
def advise_upgrading(finding: Finding, context: Context) -> Iterator[Change]:
    """A schema is MLflow's own to change."""
    schema, uri = context.snapshot.schema, context.snapshot.info.uri
    raise Unfixable(
        "a schema is MLflow's own to change", advice=schema.way_out(uri) if schema else "upgrade it through its server"
    )
    yield


_NEIGHBOUR = "after the meta.yaml of a neighbour"
_WAYS_OUT = {
    "meta-missing": (
        "bring it back from a backup (`cp -p BACKUP/meta.yaml FILE`), or write it anew beside what is there, "
        f"{_NEIGHBOUR}"
    ),
    "meta-empty": f"bring it back from a backup (`cp -p BACKUP/meta.yaml FILE`), or write it anew, {_NEIGHBOUR}",
    "meta-broken": f"mend its YAML by hand (`$EDITOR FILE`), {_NEIGHBOUR}",
    "meta-of-another": (
        "move the folder to where its meta.yaml says (`mv -n FOLDER PLACE`), or mend the id in it; MLflow passes over "
        "it until then"
    ),
    "run-among-experiments": (
        "move its folder back into that of its experiment, as its meta.yaml says (`mv -n FOLDER PLACE`); MLflow cannot "
        "list deleted ones until then"
    ),
    "metric-empty": (
        "remove the file (`rm FILE`), or bring it back from a backup: MLflow cannot read the run until then"
    ),
    "metric-broken": (
        "take the lines that hold no point out of the file (a point is `MILLISECONDS VALUE STEP`): MLflow cannot read "
        "the run until then"
    ),
    "not-utf-8": (
        "write it anew as UTF-8 (`iconv -f LATIN1 -t UTF-8 FILE > FILE.new && mv FILE.new FILE`, say), or bring it "
        "back from a backup"
    ),
    "empty-value": (
        'if that is what was logged, all is well: `severity = "low"` under [policies.STO005]; else bring it back from '
        "a backup"
    ),
    "unreadable": "see to its permissions (`chmod u+r FILE`) and its disk",
    "too-large": (
        "look at who wrote it (`ls -l FILE`): MLflow writes no such file; put what it should hold in its place, or "
        "remove it"
    ),
}


@fixer("STO005")
def advise_mending(finding: Finding, context: Context) -> Iterator[Change]:
    """What a file held is not for a program to say."""
    way = _WAYS_OUT.get(finding.code, "bring it back from a backup: `cp -p BACKUP FILE`")
    raise Unfixable("what a file held is not for a program to say", advice=_of_file(way, finding.entity.key))
    yield


def _of_file(way: str, path: str) -> str:
    """A way out with the path of the file in it."""
    return re.sub(r"\bFILE\b", lambda _: shlex.quote(path), way)


_OF_TRACES = {
    "in-progress": (
        "see whether what logs them is still at work; what nobody will end can be deleted: "
        "`mlflow traces delete --experiment-id EXPERIMENT_ID --trace-ids TRACE_ID`"
    ),
    "files-without-row": (
        "if the database was restored from a backup, bring back the one that knows them; if the traces were deleted on "
        "purpose, move their folders out of the artifact root: `mv FOLDER ELSEWHERE/`"
    ),
}


@fixer("TRC001")
def advise_on_traces(finding: Finding, context: Context) -> Iterator[Change]:
    """Whether somebody goes on with a trace, or deleted it on purpose, is not for a program to say."""
    raise Unfixable("whether somebody goes on with it is not for a program to say", advice=_OF_TRACES[finding.code])
    yield
