"""Gives part of a store to another workspace."""

from __future__ import annotations

from stores import Lab


def give_away(lab: Lab, workspace: str, experiments: list[str], model: str = "") -> None:
    """Put rows and files where MLflow's server has them for another workspace."""
    lab.sql("INSERT OR IGNORE INTO workspaces (name) VALUES (?)", workspace)
    folder = lab.mlruns / "workspaces" / workspace
    folder.mkdir(parents=True, exist_ok=True)
    for key in experiments:
        lab.sql("UPDATE experiments SET workspace = ? WHERE experiment_id = ?", workspace, int(key))
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            lab.sql(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE experiment_id = ?",
                f"{lab.mlruns}/",
                f"{folder}/",
                int(key),
            )
        if (lab.mlruns / key).exists():
            (lab.mlruns / key).rename(folder / key)
    for table in (
        "registered_models",
        "model_versions",
        "registered_model_aliases",
        "registered_model_tags",
        "model_version_tags",
    ):
        lab.sql(f"UPDATE {table} SET workspace = ? WHERE name = ?", workspace, model)
