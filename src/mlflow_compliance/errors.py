"""The one exception root of the program; the plugin is the one place that catches it."""

from mlflow_compliance.safe_text import without_secrets


def first_line(error: BaseException) -> str:
    """What somebody else's exception says, in one line."""
    lines = (line.strip() for line in str(error).splitlines())
    # SQLAlchemy puts a hint for the programmer before what happened.
    return next(
        (line for line in lines if line and not line.startswith("(raised as a result of")), type(error).__name__
    )


class ComplianceError(Exception):
    """Something that the user can mend. The message is one sentence that names the thing and the way out, and holds
    no secret.
    """

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))


class SettingsError(ComplianceError):
    """compliance.toml (or the table in pyproject.toml) cannot be used as it is."""


class StoreError(ComplianceError):
    """The store cannot be read or written: missing, locked, foreign, of another schema."""


class NotAskedError(StoreError):
    """Nobody could be asked what a tracking server gives, through no fault of the store."""


class ChangeError(ComplianceError):
    """One change cannot be written: what it was planned on is no longer so, or the system refused."""


class PlanError(ComplianceError):
    """A plan that must not be applied: too large, or one that does not settle."""


class BaselineError(ComplianceError):
    """A file of known findings that cannot be read, is for another store, or cannot be written."""
