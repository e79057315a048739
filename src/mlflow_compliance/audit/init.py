"""--compliance-init: reads a store and writes the settings that it shows into a new file."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_compliance.audit.init_text import Beside, Read, draft, told, tracking_uri
from mlflow_compliance.errors import ChangeError, ComplianceError, SettingsError, StoreError
from mlflow_compliance.production.candidates import candidates
from mlflow_compliance.production.context import Context
from mlflow_compliance.settings.errors import shown_path
from mlflow_compliance.settings.files import FILE, PYPROJECT, find_settings
from mlflow_compliance.settings.schema import DuplicateSettings, Settings, StoreSettings, load_settings

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.snapshot.snapshot import Snapshot
    from mlflow_compliance.store.store import Store

PROGRAM = "pytest --pyargs mlflow_compliance.policies"
_OF_MLFLOW = ("sqlite:///mlflow.db", "mlruns")
"""Where MLflow puts a store that nobody names."""
_NEVER = 1 << 62
"""Bytes: no file is hashed for what the settings ask."""
_NO_FILES_OF_PEOPLE = re.compile(r"\.|mlruns$|mlartifacts$|\d+$|site-packages$|node_modules$")
_FEATURES = re.compile(r"features|holdout|hold_out")
"""In the name of a file that rows may be scored from again."""
_FEW = 3
"""Files named of each kind."""


def init(audit: Audit) -> Iterator[str]:
    """Write the settings, and tell what was found. Raises ComplianceError where nothing can be written."""
    options = audit.options
    target = options.workdir / Path(options.config or FILE).expanduser()
    refuse_to_write(target)
    uri = _uri(audit)
    read = _read(audit, uri, target.parent.absolute())
    made = draft(read)
    _write(target, made.text)
    return told(made, shown_path(target), _command(audit, read, target))


def refuse_to_write(path: Path) -> None:
    """Raise SettingsError where settings are there already, or cannot be written."""
    name = shown_path(path)
    if path.name == PYPROJECT:
        raise SettingsError(
            f"--compliance-init writes a file of its own and not into {name}: name another, such as {FILE}"
        )
    if os.path.lexists(path):
        raise SettingsError(
            f"{name} is there, and --compliance-init writes over nothing: move it away, or name another file"
        )
    if not path.parent.is_dir():
        raise SettingsError(f"there is no folder {shown_path(path.parent)} to write {path.name} to: make it first")
    known = find_settings(path.parent)
    if path.name == FILE and known is not None and known.parent == path.parent.absolute():
        raise SettingsError(
            f"the settings are in {shown_path(known)}, and {name} would hide them: take its table out first"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SettingsError(
            f"{name} cannot be written: its folder takes no files; name another by --compliance-config=FILE"
        )


def _uri(audit: Audit) -> str:
    """The store that a flag, the environment or settings further up name; else the one where MLflow itself puts it."""
    options, settings = audit.options, Settings()
    if not options.config:
        known = find_settings(options.workdir)
        settings = settings if known is None else load_settings(known)
    named = settings.store.wanted_uri(options.tracking_uri, settings.base)
    if named:
        return named
    for uri in _OF_MLFLOW:
        if (options.workdir / uri.removeprefix("sqlite:///")).exists():
            return StoreSettings(tracking_uri=uri).resolved_uri(options.workdir) or uri
    raise StoreError(
        "no store is named, and neither mlflow.db nor mlruns is in this folder: give --tracking-uri, or set "
        "MLFLOW_TRACKING_URI"
    )


def _read(audit: Audit, uri: str, folder: Path) -> Read:
    from mlflow_compliance.store.store import open_store

    settings = Settings(duplicates=DuplicateSettings(min_size=_NEVER))
    store = open_store(uri, settings, str(audit.options.rootdir), executor=audit.options.executor, hash_cache="off")
    snapshot, rows = store.read_rows(progress=audit.progress())
    snapshot, problem = _with_production(snapshot, store), ""
    if audit.options.metadata_only:
        problem = "--compliance-metadata-only was given"
    else:
        try:
            snapshot = store.walk(snapshot, rows, audit.progress())
        except StoreError as error:
            problem = str(error)
    return Read(uri, snapshot, folder, problem, _beside(folder))


def _with_production(snapshot: Snapshot, store: Store) -> Snapshot:
    """A snapshot that holds the runs behind the aliases of production in full."""
    found = candidates(Context(snapshot, Settings()))
    models = [(snapshot.registered_models[item.registered_model], item.alias) for item in found if item.alias]
    versions = [model.version(model.aliases.get(alias)) for model, alias in models]
    wanted = {version.run_id for version in versions if version is not None and version.run_id} - {*snapshot.runs}
    if not wanted:
        return snapshot
    runs, logged = store.details(wanted)
    return replace(snapshot, runs={**snapshot.runs, **runs}, logged_models={**snapshot.logged_models, **logged})


def _beside(folder: Path) -> Beside:
    """Pickled models, predictions and features of predicted rows in a folder and the ones in it."""
    models: list[str] = []
    predictions: list[str] = []
    features: list[str] = []
    with suppress(OSError):
        below = [
            path for path in sorted(folder.iterdir()) if path.is_dir() and not _NO_FILES_OF_PEOPLE.match(path.name)
        ]
        for place in (folder, *below):
            with suppress(OSError):
                for path in sorted(place.iterdir()):
                    name = str(path.relative_to(folder))
                    if path.suffix in (".pkl", ".pickle", ".joblib"):
                        models.append(name)
                    elif path.suffix == ".parquet" and "predict" in path.name.lower():
                        predictions.append(name)
                    elif path.suffix == ".parquet" and _FEATURES.search(path.name.lower()):
                        features.append(name)
    return Beside(tuple(models[:_FEW]), tuple(predictions[:_FEW]), tuple(features[:_FEW]))


def _write(path: Path, text: str) -> None:
    """Write a new file whole, or leave none behind."""
    from mlflow_compliance.store.storage.atomic_write import create, explained, write_bytes

    made = False
    try:
        with explained(str(path), "could not be written"), create(str(path)) as file:
            made = True
            write_bytes(file, text.encode())
            os.fsync(file)
    except ChangeError as error:
        if made:
            path.unlink(missing_ok=True)
        raise ComplianceError(str(error)) from error


def _command(audit: Audit, read: Read, target: Path) -> str:
    """What to run next in the folder where this was run."""
    words = [PROGRAM]
    if target.parent != audit.options.workdir or target.name != FILE:
        words.append(f"--compliance-config={shlex.quote(shown_path(target))}")
    if tracking_uri(read.uri, read.folder) is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        words.append("--tracking-uri=...")
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE") and read.snapshot.info.backend == "file":
        words.insert(0, "MLFLOW_ALLOW_FILE_STORE=true")
    return " ".join(words)
