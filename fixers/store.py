"""Remedies for the store as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_compliance.api import Change, Context, Finding, RemoveRepeatedPoints, Unfixable, fixer


@fixer("STO001")
def remove_repeats(finding: Finding, context: Context) -> Iterator[Change]:
    """Leave exact repeats out of the metric files; each file as it was is kept beside the journal."""
    if finding.code == "without-experiment":
        raise Unfixable("bring its meta.yaml back first (see STO005)")
    if finding.code == "clashes":
        raise Unfixable(
            "which value counts is not for a program to say: take the other lines out of the file, then `mlflow "
            "migrate-filestore`"
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
    raise Unfixable(
        context.snapshot.schema.way_out(context.snapshot.info.uri)
        if context.snapshot.schema
        else "upgrade it through its server"
    )
    yield


_WAYS_OUT = {
    "meta-missing": (
        "bring it back from a backup, or write it anew beside what is there, after the meta.yaml of a neighbour"
    ),
    "meta-empty": "bring it back from a backup, or write it anew, after the meta.yaml of a neighbour",
    "meta-broken": "mend its YAML by hand, after the meta.yaml of a neighbour",
    "meta-of-another": (
        "move the folder to where its meta.yaml says, or mend the id in it; MLflow passes over it until then"
    ),
    "run-among-experiments": (
        "move its folder back into that of its experiment, as its meta.yaml says; MLflow "
        "cannot list deleted ones until then"
    ),
    "metric-empty": "remove the file, or bring it back from a backup: MLflow cannot read the run until then",
    "metric-broken": "take the lines that hold no point out of the file: MLflow cannot read the run until then",
    "not-utf-8": "write it anew as UTF-8 (iconv -f LATIN1 -t UTF-8, say), or bring it back from a backup",
    "empty-value": (
        "if that is what was logged, all is well: lower it under [policies.STO005]; else bring it back from a backup"
    ),
    "unreadable": "see to its permissions and its disk",
    "too-large": "look at who wrote it: MLflow writes no such file; put what it should hold in its place, or remove it",
}


@fixer("STO005")
def advise_mending(finding: Finding, context: Context) -> Iterator[Change]:
    """What a file held is not for a program to say."""
    raise Unfixable(_WAYS_OUT.get(finding.code, "bring it back from a backup"))
    yield


_OF_TRACES = {
    "in-progress": "see whether what logs them is still at work; what nobody will end can be deleted in MLflow",
    "files-without-row": (
        "if the database was restored from a backup, bring back the one that knows them; if the traces were deleted on "
        "purpose, move their folders out of the artifact root"
    ),
}


@fixer("TRC001")
def advise_on_traces(finding: Finding, context: Context) -> Iterator[Change]:
    """Whether somebody goes on with a trace, or deleted it on purpose, is not for a program to say."""
    raise Unfixable(_OF_TRACES[finding.code])
    yield
