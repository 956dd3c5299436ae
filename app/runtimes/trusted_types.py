"""Types that a skops file may hold, beyond those that skops itself trusts.

The list is reviewed by hand. An operator adds types with `repository.trusted_types`; an artifact cannot add any. Each
type is fitted state of scikit-learn, numpy or scipy that runs no code from the file when it is built; a partial calls
only a function that is on a list itself. The node arrays of a tree can be forged so that it reads out of bounds.
Therefore an artifact's hash is compared with its contract before the artifact is loaded, and
`tableside.contracts.artifact_checks` checks the arrays of what was loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tableside.errors import ContractBroken, FailureKind
from tableside.runtimes.library_types import LIBRARIES

_SKLEARN = """
_loss.link.HalfLogitLink _loss.link.IdentityLink _loss.link.Interval _loss.link.LogLink _loss.link.LogitLink
_loss.link.MultinomialLogit _loss.loss.AbsoluteError _loss.loss.ExponentialLoss _loss.loss.HalfBinomialLoss
_loss.loss.HalfGammaLoss _loss.loss.HalfMultinomialLoss _loss.loss.HalfPoissonLoss _loss.loss.HalfSquaredError
_loss.loss.HalfTweedieLoss _loss.loss.HalfTweedieLossIdentity _loss.loss.HuberLoss _loss.loss.PinballLoss
calibration._CalibratedClassifier calibration._SigmoidCalibration calibration._TemperatureScaling
cluster._bisect_k_means._BisectingTree cluster._kmeans._kmeans_single_elkan cluster._kmeans._kmeans_single_lloyd
compose._column_transformer.make_column_selector ensemble._hist_gradient_boosting.predictor.TreePredictor
feature_selection._mutual_info.mutual_info_classif feature_selection._mutual_info.mutual_info_regression
feature_selection._univariate_selection.chi2 feature_selection._univariate_selection.f_classif
feature_selection._univariate_selection.f_regression gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace
gaussian_process.kernels.CompoundKernel gaussian_process.kernels.ConstantKernel gaussian_process.kernels.DotProduct
gaussian_process.kernels.ExpSineSquared gaussian_process.kernels.Exponentiation gaussian_process.kernels.Matern
gaussian_process.kernels.Product gaussian_process.kernels.RBF gaussian_process.kernels.RationalQuadratic
gaussian_process.kernels.Sum gaussian_process.kernels.WhiteKernel metrics._classification.accuracy_score
metrics._classification.balanced_accuracy_score metrics._classification.f1_score
metrics._dist_metrics.ChebyshevDistance64 metrics._dist_metrics.EuclideanDistance64
metrics._dist_metrics.ManhattanDistance64 metrics._dist_metrics.MinkowskiDistance64 metrics._scorer._CurveScorer
metrics._scorer._PassthroughScorer metrics._scorer._Scorer model_selection._split.GroupKFold
model_selection._split.KFold model_selection._split.LeaveOneOut model_selection._split.PredefinedSplit
model_selection._split.RepeatedKFold model_selection._split.RepeatedStratifiedKFold
model_selection._split.ShuffleSplit model_selection._split.StratifiedGroupKFold model_selection._split.StratifiedKFold
model_selection._split.StratifiedShuffleSplit model_selection._split.TimeSeriesSplit multiclass._ConstantPredictor
neighbors._ball_tree.BallTree neighbors._kd_tree.KDTree neural_network._stochastic_optimizers.AdamOptimizer
neural_network._stochastic_optimizers.SGDOptimizer tree._tree.Tree utils._bunch.Bunch
utils._metadata_requests.MetadataRequest utils._metadata_requests.MethodMetadataRequest utils.validation.check_array
"""

_SCORERS = """
metrics._classification.brier_score_loss metrics._classification.d2_brier_score
metrics._classification.d2_log_loss_score metrics._classification.jaccard_score metrics._classification.log_loss
metrics._classification.matthews_corrcoef metrics._classification.precision_score
metrics._classification.recall_score metrics._ranking.average_precision_score metrics._ranking.roc_auc_score
metrics._ranking.top_k_accuracy_score metrics._regression.d2_absolute_error_score
metrics._regression.explained_variance_score metrics._regression.max_error metrics._regression.mean_absolute_error
metrics._regression.mean_absolute_percentage_error metrics._regression.mean_gamma_deviance
metrics._regression.mean_poisson_deviance metrics._regression.mean_squared_error
metrics._regression.mean_squared_log_error metrics._regression.median_absolute_error metrics._regression.r2_score
metrics._regression.root_mean_squared_error metrics._regression.root_mean_squared_log_error
metrics._scorer.negative_likelihood_ratio metrics._scorer.positive_likelihood_ratio
metrics.cluster._supervised.adjusted_mutual_info_score metrics.cluster._supervised.adjusted_rand_score
metrics.cluster._supervised.completeness_score metrics.cluster._supervised.fowlkes_mallows_score
metrics.cluster._supervised.homogeneity_score metrics.cluster._supervised.mutual_info_score
metrics.cluster._supervised.normalized_mutual_info_score metrics.cluster._supervised.rand_score
metrics.cluster._supervised.v_measure_score
"""
"""What a search keeps of `scoring="roc_auc"` and the like: functions that compute with two arrays."""

_OLDER = """
_loss._loss.CyAbsoluteError _loss._loss.CyExponentialLoss _loss._loss.CyHalfBinomialLoss _loss._loss.CyHalfGammaLoss
_loss._loss.CyHalfMultinomialLoss _loss._loss.CyHalfPoissonLoss _loss._loss.CyHalfSquaredError
_loss._loss.CyHalfTweedieLoss _loss._loss.CyHalfTweedieLossIdentity _loss._loss.CyHuberLoss _loss._loss.CyPinballLoss
_loss.glm_distribution.DistributionBoundary _loss.glm_distribution.GammaDistribution
_loss.glm_distribution.InverseGaussianDistribution _loss.glm_distribution.NormalDistribution
_loss.glm_distribution.PoissonDistribution _loss.glm_distribution.TweedieDistribution
compose._column_transformer._RemainderColsList covariance._graph_lasso._DictWithDeprecatedKeys
ensemble._gb_losses.BinomialDeviance ensemble._gb_losses.ExponentialLoss ensemble._gb_losses.HuberLossFunction
ensemble._gb_losses.LeastAbsoluteError ensemble._gb_losses.LeastSquaresError ensemble._gb_losses.MultinomialDeviance
ensemble._gb_losses.QuantileLossFunction ensemble._hist_gradient_boosting.binning._BinMapper
ensemble._hist_gradient_boosting.loss.BinaryCrossEntropy
ensemble._hist_gradient_boosting.loss.CategoricalCrossEntropy
ensemble._hist_gradient_boosting.loss.LeastAbsoluteDeviation ensemble._hist_gradient_boosting.loss.LeastSquares
ensemble._hist_gradient_boosting.loss.Poisson impute._iterative._ImputerTriplet linear_model._glm.link.IdentityLink
linear_model._glm.link.LogLink linear_model._glm.link.LogitLink metrics._dist_metrics.ChebyshevDistance
metrics._dist_metrics.EuclideanDistance metrics._dist_metrics.ManhattanDistance
metrics._dist_metrics.MinkowskiDistance metrics._scorer._PredictScorer metrics._scorer._ProbaScorer
metrics._scorer._ThresholdScorer metrics._scorer._passthrough_scorer
"""
"""Types of scikit-learn 1.0 to 1.7, or as skops of that time names them, which run in environments of their own."""

_OTHERS = """
collections.OrderedDict functools.partial numpy.bool_ numpy.dtype numpy.floating numpy.integer numpy.mean numpy.median
numpy.number scipy._lib.array_api_compat.numpy._aliases.asarray scipy.interpolate._bsplines.BSpline
scipy.interpolate._bsplines._BSpline scipy.interpolate._interpolate.interp1d scipy.sparse._coo.coo_matrix
scipy.sparse._csc.csc_matrix scipy.sparse._csr.csr_matrix
"""

_OWN = "tableside.runtimes.onnx_model.OnnxClassifier tableside.runtimes.onnx_model.OnnxRegressor"

TRUSTED: frozenset[str] = frozenset(f"sklearn.{name}" for name in (_SKLEARN + _SCORERS + _OLDER).split()) | frozenset(
    (_OTHERS + " " + _OWN).split()
)


def expand(types: Iterable[str], libraries: Iterable[str]) -> tuple[str, ...]:
    """Return the types that the operator trusts: single ones, and the reviewed types of libraries.

    types, libraries: the lists `repository.trusted_types` and `repository.trusted_libraries`.
    """
    return (*types, *(kind for library in libraries for kind in sorted(LIBRARIES.get(library, ()))))


def check(file: str, found: Iterable[str], allowed: Collection[str]) -> None:
    """Raise ContractBroken for a skops file with a type that is not in `allowed`.

    found: the types that skops does not trust by itself.
    """
    unknown = sorted(set(found) - set(allowed))
    if unknown:
        raise ContractBroken(_refusal(file, unknown, allowed), FailureKind.UNTRUSTED)


def _refusal(file: str, unknown: Collection[str], allowed: Collection[str]) -> str:
    """Return the error text with the lines that trust these types."""
    needed = {library for library, types in LIBRARIES.items() for kind in unknown if kind in types}
    others = [kind for kind in unknown if not any(kind in types for types in LIBRARIES.values())]
    text = f"{file} holds types that are not trusted: {', '.join(unknown)}"
    if needed:
        names = sorted(needed | {library for library, types in LIBRARIES.items() if types <= set(allowed)})
        quoted = ", ".join(f'"{name}"' for name in names)
        text += (
            f". If you trust {' and '.join(sorted(needed))}, write below [repository] in tableside.toml: "
            f"trusted_libraries = [{quoted}]; or set TABLESIDE__REPOSITORY__TRUSTED_LIBRARIES={','.join(names)}"
        )
    if others:
        them = f"also trust {', '.join(others)}" if needed else "trust them"
        text += f". If you {them}, add them to repository.trusted_types"
    return text
