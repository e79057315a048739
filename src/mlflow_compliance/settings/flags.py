"""What the command line may say: each flag is one field, with its help. Imported in every session of pytest, so it
imports next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

HELP = "help"
"""Key of a field's metadata under which its Spelling lies."""

SEVERITIES = ("low", "medium", "high", "critical")


SUMMARY, FINDINGS, ALL = SHOWS = ("summary", "findings", "all")
"""How much the terminal shows: the verdict, a block a rule and cause, or every finding."""


class Spelling(NamedTuple):
    """How a flag is written, and what is said of it."""

    name: str
    help: str
    metavar: str = ""
    """What stands for its value; empty for a switch."""
    type: Callable[[str], object] = str
    former: str = ""
    """An older name, which works on and is in no help."""
    command: bool = False
    """Whether it does one thing with the store, and no check is collected."""
    short: str = ""
    """Another name, which is left to a plugin that has it."""

    @property
    def dest(self) -> str:
        """Attribute of pytest's `config.option`."""
        return self.name.lstrip("-").replace("-", "_")


def _flag(
    name: str,
    told: str,
    metavar: str = "",
    kind: Callable[[str], object] = str,
    *,
    default: object = None,
    former: str = "",
    command: bool = False,
    short: str = "",
) -> Any:
    return field(default=default, metadata={HELP: Spelling(name, told, metavar, kind, former, command, short)})


def commands_in(given: Callable[[str], object]) -> list[tuple[str, Spelling]]:
    """Field and spelling of every flag that is a command and was given; `given` tells the value of a `dest`."""
    found = [(item.name, item.metadata[HELP]) for item in fields(Flags)]
    return [
        (name, spelling) for name, spelling in found if spelling.command and given(spelling.dest) not in (None, False)
    ]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags: one that is False by default is a switch, one that is an empty tuple may be given several times."""

    tracking_uri: str | None = _flag(
        "--tracking-uri", "the MLflow store to audit; wins over MLFLOW_TRACKING_URI and the settings", "URI"
    )
    config: str | None = _flag(
        "--compliance-config", "settings file instead of the nearest compliance.toml or pyproject.toml", "FILE"
    )
    init: bool = _flag(
        "--compliance-init",
        "read the store and write a commented compliance.toml (or what --compliance-config names): products, moved "
        "files, guesses as comments; never over a file that is there",
        default=False,
        command=True,
    )
    rules: tuple[str, ...] = _flag(
        "--compliance-rules",
        "only these rules, by id or pattern of ids: EXP001,ART*; others are deselected",
        "IDS",
        default=(),
    )
    metadata_only: bool = _flag(
        "--compliance-metadata-only",
        "leave out the rules that look at files: no artifact row and no file is read",
        default=False,
        former="--metadata-only",
    )
    count: bool = _flag(
        "--compliance-count",
        "through a tracking server, go through all runs also for the rules that look at no files: their numbers, their "
        "parents, tags of production under any spelling",
        default=False,
    )
    show: str = _flag(
        "--compliance-show",
        "how much the terminal shows: summary, findings (the default, a block a rule and cause) or all of them",
        "HOW",
        default=FINDINGS,
    )
    reports: tuple[str, ...] = _flag(
        "--compliance-report",
        "write the report as FORMAT to FILE, such as json:audit.json; may be given several times",
        "FORMAT:FILE",
        default=(),
    )
    fail_on: str | None = _flag(
        "--compliance-fail-on",
        "fail on findings of this severity and worse ones: low (the default), medium, high or critical; others are "
        "told as warnings; wins over the settings",
        "SEVERITY",
    )
    baseline: str | None = _flag(
        "--compliance-baseline",
        "fail on findings that are not in FILE, a baseline; those that are in it are told as known; wins over the "
        "settings",
        "FILE",
    )
    baseline_write: str | None = _flag(
        "--compliance-baseline-write",
        "keep today's findings in FILE as the baseline, by which they are known and fail nothing; over an older one it "
        "takes out those that are gone",
        "FILE",
    )
    explain: tuple[str, ...] = _flag(
        "--compliance-explain",
        "say of rules what, why, how to mend and to waive them, by id or pattern of ids; 'all' lists them; no store is "
        "read",
        "IDS",
        default=(),
        command=True,
    )
    owner: str | None = _flag(
        "--compliance-owner", "tell and judge only what this owner answers for; the report is partial", "NAME"
    )
    executor: str = _flag(
        "--compliance-executor",
        "read files and try models in threads, or on dask:tcp://host:port",
        "WHERE",
        default="threads",
        former="--executor",
    )
    hash_cache: str | None = _flag(
        "--compliance-hash-cache",
        "keep hashes of unchanged files in DIR, 'user' for the user's cache folder, or 'off'; wins over the settings",
        "DIR",
        former="--hash-cache",
    )
    fix: bool = _flag(
        "--compliance-fix",
        "repair what can be repaired and undone, then audit again",
        default=False,
        short="--fix",
    )
    fix_dry_run: bool = _flag(
        "--fix-dry-run", "print the plan that --fix would carry out and change nothing", default=False
    )
    fix_safe: bool = _flag(
        "--fix-safe",
        "repair what setting tags and descriptions repairs, nothing else; with --fix-dry-run: print that plan",
        default=False,
    )
    plan: str | None = _flag(
        "--fix-plan",
        "with --fix-dry-run: write the plan to FILE; with --fix: carry out what that plan holds, and nothing else",
        "FILE",
    )
    journals: bool = _flag(
        "--fix-journals",
        "list the journals of repairs: when, who, how many changes, what became of them",
        default=False,
        command=True,
    )
    undo: str | None = _flag(
        "--fix-undo",
        "take a repair back: the path or id of its journal, or 'last'; --fix-dry-run shows what that would do",
        "JOURNAL",
        command=True,
    )
    verify: str | None = _flag(
        "--fix-verify",
        "look for a changed, dropped or moved line in a journal: its path, its id, or 'last'",
        "JOURNAL",
        command=True,
    )
    purge: bool = _flag(
        "--fix-purge",
        "destroy for good what repairs retired, took back or put aside and nothing needs: by a plan that was read "
        "(--fix-plan), else asked on the terminal; with --fix-dry-run only say it, or write the plan",
        default=False,
        command=True,
    )
    gc_preflight: bool = _flag(
        "--compliance-gc-preflight",
        "list what `mlflow gc` of the installed MLflow would destroy, and what of that is still needed; change nothing",
        default=False,
        command=True,
    )
    gc_older_than: str | None = _flag(
        "--compliance-gc-older-than", "the preflight of `mlflow gc --older-than AGE`, such as 30d", "AGE"
    )
    gc_options: str | None = _flag(
        "--compliance-gc-options",
        "the preflight of `mlflow gc OPTIONS`: --run-ids, --jobs, --all-workspaces or whatever the installed one takes",
        "OPTIONS",
    )
    limit: int | None = _flag("--fix-max", "refuse a plan that changes more than N entities", "N", int)
    owned_roots: tuple[str, ...] = _flag(
        "--fix-owned-root",
        "an artifact root that is this store's alone, where --fix sees reason to doubt it; may be given several times",
        "FOLDER",
        default=(),
    )
