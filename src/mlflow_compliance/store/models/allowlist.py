"""What models are made of: the only names that a model file may bring into a process without being asked about."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple


class Name(NamedTuple):
    """Something in a module, as a pickle names it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def _names(table: Mapping[str, str]) -> frozenset[Name]:
    return frozenset(Name(module, name) for module, names in table.items() for name in names.split())


CALLED = _names(
    {
        # Containers and numbers: they allocate, iterate and hash.
        "builtins": "bytearray bytes complex frozenset range set slice",
        "collections": "OrderedDict defaultdict",
        # Looks a codec up by name, in the package `encodings` alone, and gives bytes or text. Protocols before 3 write
        # bytes with it.
        "_codecs": "encode",
        # Arrays, their types and single numbers, from bytes. NumPy 1 says core, NumPy 2 _core.
        "numpy": "dtype",
        "numpy.core.multiarray": "_reconstruct scalar",
        "numpy.core.numeric": "_frombuffer",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy._core.numeric": "_frombuffer",
        # Random states: they call the bit generator they are given, with at most its name, which the pickle could do
        # itself.
        "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
        "numpy.random.bit_generator": "__pyx_unpickle_SeedSequence",
        # Index and frame, and the Arrow text in them: arrays in, arrays out.
        "pandas.core.indexes.base": "_new_Index",
        "pandas._libs.internals": "_unpickle_block",
        "pandas.core.internals.managers": "BlockManager",
        "pandas": "StringDtype",
        "pandas.core.arrays.string_": "StringDtype",
        "pyarrow.lib": "_restore_array py_buffer type_for_alias",
        # Compiled objects of numbers: three arguments, or one, or none, all of them checked numbers and arrays.
        "sklearn.tree._tree": "Tree",
        "sklearn._loss._loss": (
            "CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss "
            "CyHalfPoissonLoss CyHalfSquaredError"
            " CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss"
        ),
        "sklearn.linear_model._sgd_fast": (
            "EpsilonInsensitive Hinge Huber Log ModifiedHuber SquaredEpsilonInsensitive SquaredHinge SquaredLoss"
        ),
    }
)
"""May be called with any arguments: none of them imports, evaluates, opens or sends anything, or calls more than
the pickle itself may call.
"""

MADE = _names(
    {
        # Named as types of columns and arrays.
        "builtins": "bool float int object str",
        "numpy": "bool_ float32 float64 int32 int64 ndarray object_ str_",
        "numpy.random._mt19937": "MT19937",
        "numpy.random._pcg64": "PCG64",
        "numpy.random.bit_generator": "SeedSequence",
        "pandas": "DataFrame Index RangeIndex Series",
        "pandas.arrays": "ArrowStringArray",
        "pandas.core.arrays.string_arrow": "ArrowStringArray",
        "pandas.core.frame": "DataFrame",
        "pandas.core.indexes.base": "Index",
        "pandas.core.indexes.range": "RangeIndex",
        "pandas.core.internals.managers": "SingleBlockManager",
        "pandas.core.series": "Series",
        # Boosters parse their model text or bytes, and open no file: that takes arguments.
        "lightgbm.basic": "Booster",
        "lightgbm.sklearn": "LGBMClassifier LGBMRanker LGBMRegressor",
        "xgboost.core": "Booster",
        "xgboost.sklearn": "XGBClassifier XGBRFClassifier XGBRFRegressor XGBRanker XGBRegressor",
        # Estimators take their attributes as they are.
        "sklearn._loss.link": "HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit",
        "sklearn._loss.loss": (
            "AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss HalfPoissonLoss "
            "HalfSquaredError"
            " HalfTweedieLoss HalfTweedieLossIdentity HuberLoss PinballLoss"
        ),
        "sklearn.calibration": "CalibratedClassifierCV _CalibratedClassifier _SigmoidCalibration",
        "sklearn.compose._column_transformer": "ColumnTransformer make_column_selector",
        "sklearn.compose._target": "TransformedTargetRegressor",
        "sklearn.decomposition._pca": "PCA",
        "sklearn.dummy": "DummyClassifier DummyRegressor",
        "sklearn.ensemble._bagging": "BaggingClassifier BaggingRegressor",
        "sklearn.ensemble._forest": (
            "ExtraTreesClassifier ExtraTreesRegressor RandomForestClassifier RandomForestRegressor"
        ),
        "sklearn.ensemble._gb": "GradientBoostingClassifier GradientBoostingRegressor",
        "sklearn.ensemble._hist_gradient_boosting.binning": "_BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": (
            "HistGradientBoostingClassifier HistGradientBoostingRegressor"
        ),
        "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
        "sklearn.ensemble._iforest": "IsolationForest",
        "sklearn.ensemble._stacking": "StackingClassifier StackingRegressor",
        "sklearn.ensemble._voting": "VotingClassifier VotingRegressor",
        "sklearn.ensemble._weight_boosting": "AdaBoostClassifier AdaBoostRegressor",
        "sklearn.impute._base": "MissingIndicator SimpleImputer",
        "sklearn.impute._knn": "KNNImputer",
        "sklearn.isotonic": "IsotonicRegression",
        "sklearn.linear_model._base": "LinearRegression",
        "sklearn.linear_model._bayes": "ARDRegression BayesianRidge",
        "sklearn.linear_model._coordinate_descent": "ElasticNet ElasticNetCV Lasso LassoCV",
        "sklearn.linear_model._glm.glm": "GammaRegressor PoissonRegressor TweedieRegressor",
        "sklearn.linear_model._huber": "HuberRegressor",
        "sklearn.linear_model._logistic": "LogisticRegression LogisticRegressionCV",
        "sklearn.linear_model._perceptron": "Perceptron",
        "sklearn.linear_model._quantile": "QuantileRegressor",
        "sklearn.linear_model._ridge": "Ridge RidgeCV RidgeClassifier RidgeClassifierCV",
        "sklearn.linear_model._stochastic_gradient": "SGDClassifier SGDRegressor",
        "sklearn.pipeline": "FeatureUnion Pipeline",
        "sklearn.preprocessing._data": (
            "Binarizer MaxAbsScaler MinMaxScaler Normalizer PowerTransformer QuantileTransformer RobustScaler "
            "StandardScaler"
        ),
        "sklearn.preprocessing._discretization": "KBinsDiscretizer",
        "sklearn.preprocessing._encoders": "OneHotEncoder OrdinalEncoder",
        "sklearn.preprocessing._function_transformer": "FunctionTransformer",
        "sklearn.preprocessing._label": "LabelBinarizer LabelEncoder MultiLabelBinarizer",
        "sklearn.preprocessing._polynomial": "PolynomialFeatures",
        "sklearn.preprocessing._target_encoder": "TargetEncoder",
        "sklearn.svm._classes": "LinearSVC LinearSVR",
        "sklearn.tree._classes": "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor",
        "sklearn.utils._bunch": "Bunch",
    }
)
"""May be named, made empty and given attributes, but not called with arguments: a Booster would open the file that
it is given.
"""


# Left out on purpose: copyreg._reconstructor calls the `__init__` of a class of the pickle's choice, and only protocols
# 0 and 1 need it.


def is_known(name: Name) -> bool:
    """Whether a name stands in one of the tables."""
    return name in CALLED or name in MADE


def objections(names: Collection[Name], allowed_globals: Collection[str]) -> dict[Name, str]:
    """Each name that the settings do not allow -> why not, as the end of a sentence that begins with the name; the
    worst come first.
    """
    dangerous = _dangerous(names)
    found = dict.fromkeys(
        sorted(dangerous),
        "would run on load, and is known to run commands or code or to reach files: it cannot be allowed",
    )
    for name in sorted(set(names) - dangerous):
        if str(name) not in allowed_globals or "." in name.name:
            found[name] = "would run on load: name it in allowed_globals under [models] if you know that it is harmless"
    return found


def _dangerous(names: Collection[Name]) -> set[Name]:
    """Those on picklescan's list of what harms."""
    from io import BytesIO

    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    texts = [[text.encode("utf-8", "surrogatepass") for text in name] for name in names]
    imports = b"".join(
        b"".join(b"X" + len(text).to_bytes(4, "little") + text for text in pair) + b"\x930" for pair in texts
    )
    result = scan_pickle_bytes(BytesIO(b"\x80\x04" + imports + b"N."), "names")
    return {Name(found.module, found.name) for found in result.globals if found.safety is SafetyLevel.Dangerous}
