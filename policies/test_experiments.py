"""Rules about experiments: one production experiment a product, no test ones, everything else classified."""

from __future__ import annotations

from difflib import get_close_matches

from mlflow_compliance.api import (
    DEFAULT,
    NOTE,
    By,
    Cause,
    Context,
    Experiment,
    Product,
    Settings,
    Severity,
    Snapshot,
    Violations,
    claimed_by,
    claims_in,
    guessed_by,
    is_archived,
    is_claimed,
    lines_of_tests,
    must_be_classified,
    policy,
    primary_of,
    production_runs,
    quoted,
    served,
    standing,
    unseen_marks,
    unseen_run,
)


@policy(
    "EXP001",
    "Exactly one production experiment per product",
    Severity.CRITICAL,
    advice='say in compliance.toml which one is in force, `primary = "EXPERIMENT_NAME"` under '
    '[[products]]; a mark comes off with `MlflowClient().set_experiment_tag("EXPERIMENT_ID", '
    '"stage", "superseded")`',
)
def test_product_has_exactly_one_production_experiment(
    product: Product, store: Snapshot, settings: Settings, context: Context, violations: Violations
) -> None:
    """With two of them nobody can say which run's threshold and metrics are the ones in force."""
    claimed, guessed = claimed_by(product, context), guessed_by(product, context)
    said = standing(product, claims_in(context))
    primary = primary_of(product, store.experiments, said)
    if product.primary is not None and primary is None:
        violations.add(
            "primary-missing",
            "the primary experiment that the settings name is not there",
            observed=product.primary,
            expected=f"an active experiment (primary: {settings.origin('primary', product)}){_near(product, store)}",
            advice=_ways_to_a_primary(product, store, claimed),
        )
    main = store.experiments.get(primary or "")
    if main is not None and (settings.is_test(main) or is_archived(settings, main)):
        violations.add(
            "primary-not-in-force",
            "its primary experiment is a test or archived one",
            entity=main.ref,
            expected="an experiment in force",
        )
    unseen = unseen_run(product, context)
    if unseen:
        violations.not_evaluated("no-production", unseen)
    elif not claimed and product.by_alias:
        violations.add(
            "no-production",
            f"no experiment holds a run that {product.loaded_as} leads to",
            observed=served(product, store).problem,
            expected="exactly 1",
            cause=Cause("RUN002", violations.subject),
        )
    elif not claimed:
        violations.add(
            "no-production",
            "no experiment is marked as production",
            observed="0 production experiments",
            expected="exactly 1",
        )
    elif primary is None and not product.by_alias and len(said) > 1:
        by_name = f", by production_names ({settings.origin('production_names', product)})" if guessed else ""
        names = ", ".join(repr(store.experiments[key].name) for key in said)
        violations.add(
            "several-productions",
            "more than one production experiment",
            observed=f"{names}{by_name}",
            expected="exactly 1",
        )
    _check_others(product, context, violations)
    if product.by_alias:
        for key in claimed:
            _check_home(store.experiments[key], primary, product, context, violations)
        return
    why = {claim.experiment_id: claim.by for claim in claims_in(context) if claim.product == product.name}
    for key in claimed:
        if primary is not None and key != primary and key not in guessed:
            violations.add(
                "rival",
                f"a second production experiment of product {product.name}",
                entity=store.experiments[key].ref,
                observed=f"{why[key].value} ({_origin(why[key], product, settings)})",
                expected=f"only {store.experiments[primary].name!r}",
            )
        elif key in guessed and key != primary and (primary is not None or key not in said):
            violations.add(
                "named-like-production",
                f"is named like production of product {product.name}",
                entity=store.experiments[key].ref,
                observed=f"production_names {', '.join(product.production_names)} "
                f"({settings.origin('production_names', product)})",
                expected="production_names in the settings that match it, or that do not",
                severity=Severity.LOW,
            )
        elif key in guessed and key == primary:
            name = store.experiments[key].name
            violations.note(
                f"{name!r} counts as production of product {product.name} for its name alone (production_names: "
                "built in)"
            )


def _meant(product: Product, store: Snapshot) -> list[str]:
    """The name that was probably meant by a primary one that is not there; none where nothing is like it."""
    names = {experiment.name.lower(): experiment.name for experiment in store.active_experiments()}
    return [names[name] for name in get_close_matches((product.primary or "").lower(), names, n=1)]


def _near(product: Product, store: Snapshot) -> str:
    return "".join(f"; did you mean {name!r}?" for name in _meant(product, store))


def _ways_to_a_primary(product: Product, store: Snapshot, claimed: list[str]) -> str:
    """What people can do about a primary experiment that is not there: it may be deleted, or be called otherwise."""
    names = dict.fromkeys([*_meant(product, store), *(store.experiments[key].name for key in claimed)])
    lines = " or ".join(f"`primary = {quoted(name)}`" for name in [*names][:3]) or '`primary = "EXPERIMENT_NAME"`'
    way = f"name the one in force under [[products]] in compliance.toml: {lines}"
    for key, item in store.experiments.items():
        if item.name == product.primary:
            return f"it is deleted: `mlflow experiments restore --experiment-id {key}` brings it back; or {way}"
    return way


def _check_others(product: Product, context: Context, violations: Violations) -> None:
    """Whether a product that the settings name before this one claims the same experiment, and nothing tells them
    apart.
    """
    settings = context.settings
    own = {claim.experiment_id for claim in claims_in(context) if claim.product == product.name}
    for other in settings.products[: settings.products.index(product)]:
        if product.by_alias and other.by_alias:
            continue  # one run may log the models of several products
        theirs = {claim.experiment_id for claim in claims_in(context) if claim.product == other.name}
        runs = [run for run in production_runs(product, context) if run in production_runs(other, context)]
        by_tags = not (product.by_alias or other.by_alias)
        same = by_tags and product.production_tags.items() & other.production_tags.items()
        guessed = guessed_by(product, context) | guessed_by(other, context)
        both = {run.experiment_id for run in runs} | (own & theirs - guessed if same else set())
        for key in sorted(both):
            violations.add(
                "claimed-twice",
                f"it is production of two products, {other.name} and {product.name}",
                entity=context.snapshot.experiments[key].ref,
                observed=" and ".join(
                    f"experiments {', '.join(item.experiments)} ({settings.origin('experiments', item)})"
                    for item in (other, product)
                ),
                expected="`experiments` or `production_tags` that tell them apart",
                name=other.name,
                advice="narrow the patterns of one of them under [[products]] in compliance.toml, "
                f"`experiments = [{quoted(f'{product.name}*')}]`, or give each tags of its own, "
                f"`production_tags = {{ stage = {quoted(product.name)} }}`",
            )


def _check_home(
    home: Experiment, primary: str | None, product: Product, context: Context, violations: Violations
) -> None:
    """Whether the run that the alias names lies where the settings say that the product is."""
    settings = context.settings
    if primary is not None and primary != home.experiment_id:
        violations.add(
            "production-elsewhere",
            f"{product.loaded_as} names a run in it, and it is not the primary experiment",
            entity=home.ref,
            expected=f"a run in {product.primary!r} (primary: {settings.origin('primary', product)})",
        )
    elif not product.covers(home):
        violations.add(
            "production-elsewhere",
            f"{product.loaded_as} names a run in it, and the product does not cover it",
            entity=home.ref,
            expected=f"experiments {', '.join(product.experiments)} ({settings.origin('experiments', product)})",
        )


def _origin(by: By, product: Product, settings: Settings) -> str:
    """The setting by which an experiment claims to be production, and where that is said."""
    key = "production_names" if by is By.NAME else "production_tags"
    return f"{key}: {settings.origin(key, product)}"


@policy(
    "EXP002",
    "No test experiments",
    Severity.HIGH,
    advice="delete it, `mlflow experiments delete --experiment-id EXPERIMENT_ID` (`mlflow experiments "
    "restore` brings it back), or take its name out of `test_names` under [experiments] in "
    "compliance.toml",
)
def test_no_test_experiment_is_active(
    experiment: Experiment, settings: Settings, context: Context, violations: Violations
) -> None:
    """Scratch work beside production is picked up by name searches and misleads readers."""
    if settings.is_test(experiment):
        origins = ", ".join(f"{key}: {settings.origin(f'experiments.{key}')}" for key in ("test_names", "test_tags"))
        violations.add("test", "looks like a test", observed=experiment.name, expected=f"retired ({origins})")
    elif settings.looks_like_a_test(experiment) and not is_claimed(experiment, context):
        violations.add(
            "named-like-a-test",
            "looks like a test; say so in compliance.toml",
            observed=experiment.name,
            expected=f"a name that is not like {', '.join(settings.experiments.test_names)} (built in), or a word "
            "about what it is",
            severity=Severity.LOW,
            toml=lines_of_tests(context),
        )


@policy(
    "EXP003",
    "Every other experiment is classified, development work is archived",
    Severity.MEDIUM,
    advice='say what it is: `MlflowClient().set_experiment_tag("EXPERIMENT_ID", "lifecycle", '
    '"archived")`, or development, staging, reference',
)
def test_experiment_is_classified(
    experiment: Experiment, store: Snapshot, settings: Settings, context: Context, violations: Violations
) -> None:
    """An experiment that does not say what it is gets used as if it were in force, or deleted as if it were scratch."""
    rules = settings.experiments
    runs = experiment.count()
    # Without a product PRD008 tells of them all, once.
    for mark in unseen_marks(experiment, context) if settings.products else ():
        violations.add(
            "production-of-no-product" if mark.exact else "mark-spelled-otherwise",
            "is marked as production, and no product counts it",
            entity=mark.owner,
            observed=f"tag {mark} {'in' if mark.owner.kind == 'run' else 'of'} experiment {experiment.name!r}",
            expected=_counted_where(settings),
            severity=Severity.HIGH,
        )
    if not must_be_classified(experiment, context):
        return
    value = experiment.tags.get(rules.lifecycle_tag)
    if settings.is_development(experiment) and value != "archived":
        violations.add(
            "development-not-archived",
            "development work that is not archived",
            observed=f"{rules.lifecycle_tag}={value}",
            expected=f"{rules.lifecycle_tag}=archived",
        )
    elif value not in rules.lifecycle_values:
        place = "real work in MLflow's Default experiment" if experiment.experiment_id == DEFAULT else "not classified"
        expected = (
            f"tag {rules.lifecycle_tag} with one of {', '.join(rules.lifecycle_values)} "
            f"({settings.origin('experiments.lifecycle_values')})"
        )
        held = f"{runs} runs, " if store.counted else ""
        violations.add("unclassified", place, observed=f"{held}{rules.lifecycle_tag}={value}", expected=expected)
    elif value == "production" and (settings.products or settings.says_products):
        # EXP001 counts those that a product claims: one more that says so would be seen by no rule.
        expected = (
            "a product in compliance.toml whose experiments and production_names cover it, or another "
            f"{rules.lifecycle_tag}"
        )
        violations.add(
            "production-of-no-product",
            "says that it is production, and is that of no product",
            observed=f"{rules.lifecycle_tag}={value}",
            expected=expected,
        )
    elif is_archived(settings, experiment) and "ARCHIVED" not in experiment.tags.get(NOTE, ""):
        violations.add(
            "archive-not-described",
            "archived, but the MLflow UI does not say so",
            expected="ARCHIVED in its description",
        )


@policy(
    "EXP004",
    "No deleted experiment holds a plain name",
    Severity.LOW,
    advice="if the name is wanted again, go on with that experiment: `mlflow experiments restore "
    "--experiment-id EXPERIMENT_ID`, which brings its runs back too",
)
def test_no_deleted_experiment_holds_a_plain_name(store: Snapshot, violations: Violations) -> None:
    """A deleted experiment keeps its name: nobody can make one of that name, and few know why."""
    for experiment in store.experiments.values():
        # Default is not made anew but restored: see EXP005.
        if not experiment.active and experiment.experiment_id != DEFAULT and experiment.name != experiment.retired_name:
            violations.add(
                "name-taken",
                "it is deleted and keeps its name taken",
                entity=experiment.ref,
                observed=experiment.name,
                expected="a name that nobody needs, such as a retirement gives",
            )


@policy(
    "EXP005",
    "The Default experiment is active",
    Severity.LOW,
    advice="`mlflow experiments restore --experiment-id 0`, which brings its runs back too",
)
def test_default_is_active(store: Snapshot, violations: Violations) -> None:
    """Whoever logs without naming an experiment logs to Default, and fails where that is deleted."""
    default = store.experiments.get(DEFAULT)
    if default is None:
        # MLflow makes it anew when it opens a database; that of another workspace is not this one's.
        violations.not_applicable("this store or workspace has no Default experiment (id 0)")
    if not default.active:
        violations.add(
            "default-deleted",
            "what is logged without naming an experiment fails",
            entity=default.ref,
            observed="deleted",
            expected="active",
        )


def _counted_where(settings: Settings) -> str:
    """Which tags count as production, and where that is said."""
    said = [
        f"the run behind {product.loaded_as} (production_by: {settings.origin('production_by', product)})"
        for product in settings.products
        if product.by_alias
    ]
    said += [
        f"{key}={value} in the experiments of {product.name} (production_tags: "
        f"{settings.origin('production_tags', product)}, "
        f"experiments: {settings.origin('experiments', product)})"
        for product in settings.products
        if not product.by_alias
        for key, value in sorted(product.production_tags.items())
    ]
    return f"only {' or '.join(said)}"
