"""What teams put into their CI is what its judges accept, and does what it says: Action, GitLab template, hooks,
Containerfile, and the check of settings alone.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import linters
import pytest
import yaml
from doc_shell import Shell
from gates import CHECKOUT, SETTINGS, LabMaker, make_messy
from stores import Lab

ACTION = CHECKOUT / "action.yml"
TEMPLATE = CHECKOUT / "ci" / "gitlab" / "mlflow-gate.yml"
CONTAINERFILE = CHECKOUT / "Containerfile"
HOOKS = CHECKOUT / ".pre-commit-hooks.yaml"
EXPRESSION = re.compile(r"\$\{\{ inputs\.([\w-]+) \}\}")
WRONG = '[gate]\nrequire_evidense = "high"\n'
TOLD = "compliance.toml:2: gate.require_evidense: unknown key; did you mean 'require_evidence'?"


def yaml_of(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.fixture
def messy_folder(make_lab: LabMaker) -> Lab:
    """A folder with a store in disorder, and settings that name it."""
    lab: Lab = make_lab()
    make_messy(lab)
    (lab.folder / "compliance.toml").write_text(SETTINGS.format(uri=f'"{lab.uri}"'), "utf-8")
    return lab


# What the judges say.


def test_the_action_is_one() -> None:
    assert linters.schema("github-actions", ACTION) == []


def test_nothing_can_be_injected_into_the_action_and_what_it_uses_is_pinned() -> None:
    assert linters.zizmor(ACTION) == []
    for step in yaml_of(ACTION)["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_the_template_is_a_gitlab_job() -> None:
    assert linters.schema("gitlab-ci", TEMPLATE) == []


@pytest.mark.parametrize("file", [ACTION, TEMPLATE, HOOKS, CHECKOUT / "mkdocs.yml"], ids=lambda path: path.name)
def test_yaml_is_in_order(file: Path) -> None:
    assert linters.yamllint(file) == []


def test_the_containerfile_is_in_order() -> None:
    assert linters.hadolint(CONTAINERFILE) == []


def test_the_hooks_are_a_manifest() -> None:
    assert linters.pre_commit("validate-manifest", str(HOOKS)) == []
    assert linters.pre_commit("validate-config", str(CHECKOUT / ".pre-commit-config.yaml")) == []


@pytest.mark.parametrize(
    ("judge", "file", "wrong"),
    [
        ("schema", "action.yml", "name: x\nruns: {using: composite, steps: [{run: ls}]}\n"),
        ("yamllint", "x.yml", "a: 1\na: 2\n"),
        ("hadolint", "Containerfile", "FROM python\nRUN cd /tmp\n"),
    ],
)
def test_the_judges_judge(judge: str, file: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(wrong, "utf-8")
    asked = getattr(linters, judge)
    assert asked("github-actions", tmp_path / file) if judge == "schema" else asked(tmp_path / file)


# What they do.


def step_of(name: str, given: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The commands of a step of the action, and their environment, where a caller gives these inputs."""
    action = yaml_of(ACTION)
    assert not given.keys() - action["inputs"].keys()
    inputs = {key: given.get(key, said["default"]) for key, said in action["inputs"].items()}
    step = next(step for step in action["runs"]["steps"] if step["name"] == name)
    filled = {key: EXPRESSION.sub(lambda found: inputs[found[1]], value) for key, value in step["env"].items()}
    return step["run"], filled | {"CHECKOUT": str(CHECKOUT)}


def run_gate(folder: Path, given: dict[str, str]) -> tuple[int, str, str, str]:
    """Exit code of the action's gate, what it printed, the summary of the job, and its outputs."""
    text, environment = step_of("Gate", given)
    shell = Shell(folder, "")
    for name in ("temp", "output"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "summary.md").write_text("earlier\n", "utf-8")
    runner = {"RUNNER_TEMP": str(folder / "temp"), "GITHUB_OUTPUT": str(folder / "output" / "values")}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],  # as runners start it
        cwd=folder,
        env=shell.environment | environment | runner,
        capture_output=True,
        text=True,
    )
    summary = (folder / "summary.md").read_text("utf-8")
    return done.returncode, done.stdout + done.stderr, summary, (folder / "output" / "values").read_text("utf-8")


def test_the_action_writes_what_was_asked_and_fails_where_findings_remain(messy_folder: Lab) -> None:
    given = {"tracking-uri": messy_folder.uri, "sarif": "audit.sarif", "junit": "audit.xml"}
    given |= {"args": "--compliance-rules='EXP00?' -k 'not nothing such'", "config": "compliance.toml"}
    code, printed, summary, output = run_gate(messy_folder.folder, given)
    assert (code, output) == (1, "exit-code=1\n"), printed
    assert summary.startswith("earlier\n")
    assert "EXP001" in summary
    assert "ART001" not in printed
    assert "::error" in printed
    for name in ("audit.html", "audit.sarif", "audit.xml"):
        assert (messy_folder.folder / name).stat().st_size > 0


def test_the_action_without_reports_tells_what_cannot_be_used(messy_folder: Lab) -> None:
    """An empty input asks for nothing; a word of `args` is never run as a command."""
    given = {
        "html": "",
        "summary": "false",
        "annotations": "false",
        "args": "--compliance-rules='NO*' \"$(touch made)\"",
    }
    code, printed, summary, output = run_gate(messy_folder.folder, given)
    assert (code, output, summary) == (4, "exit-code=4\n", "earlier\n"), printed
    assert not (messy_folder.folder / "made").exists()
    assert not (messy_folder.folder / "audit.html").exists()


def test_the_action_installs_its_own_checkout_with_extras() -> None:
    """Not the package of the index: what runs is what was named by the caller's `uses`."""
    text, environment = step_of("Install", {"extras": "s3,mysql"})
    words = subprocess.run(
        ["bash", "-c", text.replace("python -m pip", "printf '%s\\n'")], env=environment, capture_output=True, text=True
    )
    assert words.stdout.split() == ["install", "--quiet", f"{CHECKOUT}[s3,mysql]"]


def test_the_template_runs_the_gate(messy_folder: Lab) -> None:
    job = yaml_of(TEMPLATE)[".mlflow-gate"]
    shell = Shell(messy_folder.folder, messy_folder.uri)
    (script,) = job["script"]
    assert shell.problems(script, job["variables"] | {"MLFLOW_GATE_ARGS": "--compliance-rules=EXP*"}) == []
    reports = job["artifacts"]["reports"]
    for name in (*job["artifacts"]["paths"], reports["junit"], reports["codequality"]):
        assert (messy_folder.folder / name).stat().st_size > 0


def test_the_container_is_made_of_what_is_here_and_runs_the_gate_as_no_root(messy_folder: Lab) -> None:
    """No container engine is asked: its words are."""
    lines = CONTAINERFILE.read_text("utf-8").splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("COPY") and "--from" not in line]
    sources = [word for one in words for word in one[1:-1]]
    assert all((CHECKOUT / name).exists() for name in sources)
    allowed = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"}
    assert allowed == {*sources}
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users
    assert users[-1] not in ("0", "root")
    assert {line.split()[1].partition(":")[2] for line in lines if line.startswith("FROM")}.isdisjoint({"", "latest"})
    entry = yaml.safe_load(next(line for line in lines if line.startswith("ENTRYPOINT")).partition(" ")[2])
    shell = Shell(messy_folder.folder, messy_folder.uri)
    said = f"{shlex.join(entry)} --tracking-uri={messy_folder.uri} --compliance-rules=EXP002"
    assert shell.problems(said) == []


# The hook for settings.


def check(folder: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_compliance.settings.check", *words], cwd=folder, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_settings_are_checked_without_a_store(tmp_path: Path) -> None:
    good = tmp_path / "good" / "compliance.toml"
    good.parent.mkdir()
    good.write_text('[store]\ntracking_uri = "sqlite:////no/such/store.db"\n', "utf-8")
    (tmp_path / "compliance.toml").write_text(WRONG, "utf-8")
    assert check(tmp_path, str(good)) == (0, "", "")
    assert check(tmp_path, str(good), "compliance.toml") == (1, f"{TOLD}\n", "")
    assert check(tmp_path, "missing.toml") == (1, "missing.toml: there is no such settings file\n", "")
    (tmp_path / "compliance.toml").write_bytes(b"[gate\n\x1b[31m")
    code, told, _ = check(tmp_path, "compliance.toml")
    assert (code, told.startswith("compliance.toml:1: this is not TOML: "), "\x1b" in told) == (1, True, False)


def test_a_pyproject_is_checked_only_where_it_holds_settings(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "x"\n', "utf-8")
    assert check(tmp_path, "pyproject.toml") == (0, "", "")
    path.write_text("[tool.mlflow-compliance.gate]\nrequire_evidense = 1\n", "utf-8")
    code, told, _ = check(tmp_path, "pyproject.toml")
    assert (code, told.startswith("pyproject.toml:2: gate.require_evidense: unknown key")) == (1, True)


@pytest.mark.parametrize(("words", "code"), [((), 4), (("--fix",), 4), (("--help",), 0)])
def test_the_check_says_how_it_is_called(words: tuple[str, ...], code: int, tmp_path: Path) -> None:
    done, out, told = check(tmp_path, *words)
    assert (done, out, told.startswith("usage: ")) == (code, "", True)


@pytest.mark.parametrize(("text", "code"), [("[gate]\n", 0), (WRONG, 1)])
def test_pre_commit_runs_the_hook_for_settings(text: str, code: int, tmp_path: Path) -> None:
    """With the environment that is here: pre-commit's own would install MLflow anew."""
    hooks, user = tmp_path / "hooks", tmp_path / "user"
    commits = {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "PRE_COMMIT_HOME": str(tmp_path / "home"),
    }
    commits |= {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **commits, "PATH": here}

    def git(folder: Path, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=folder, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    for folder in (hooks, user):
        folder.mkdir()
        git(folder, "init", "--quiet")
    (hooks / HOOKS.name).write_bytes(HOOKS.read_bytes())
    git(hooks, "add", ".")
    git(hooks, "commit", "--quiet", "--message=hooks")
    repository = {"repo": str(hooks), "rev": git(hooks, "rev-parse", "HEAD")}
    chosen = {"id": "mlflow-compliance-settings", "language": "system"}
    (user / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [{**repository, "hooks": [chosen]}]}))
    (user / "compliance.toml").write_text(text, "utf-8")
    (user / "other.toml").write_text("no toml", "utf-8")
    git(user, "add", ".")
    told = linters.pre_commit("run", "--all-files", "--color=never", folder=user, environment=environment)
    assert bool(told) == bool(code)
    assert code == 0 or TOLD in told[0]
