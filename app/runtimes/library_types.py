"""Reviewed types of libraries beside scikit-learn, which a skops file may hold if the operator trusts the library.

Each type is an estimator or fitted state that runs no code from the file when it is built: none has a `__setstate__` or
`__reduce__` of its own, except the boosters, whose compiled code reads their own formats. A function is only named by a
file, and runs what its library defines. Left out are classes that fetch models or tables, and those that cannot be
held in a skops file.
"""

from __future__ import annotations

from collections.abc import Mapping

_XGBOOST = """
core.Booster callback.EarlyStopping callback.EvaluationMonitor callback.LearningRateScheduler sklearn.XGBClassifier
sklearn.XGBModel sklearn.XGBRanker sklearn.XGBRFClassifier sklearn.XGBRFRegressor sklearn.XGBRegressor
"""

_LIGHTGBM = "basic.Booster sklearn.LGBMClassifier sklearn.LGBMModel sklearn.LGBMRanker sklearn.LGBMRegressor"

_CATBOOST = "core.CatBoost core.CatBoostClassifier core.CatBoostRanker core.CatBoostRegressor"

_IMBLEARN = """
base.FunctionSampler combine._smote_enn.SMOTEENN combine._smote_tomek.SMOTETomek
ensemble._bagging.BalancedBaggingClassifier ensemble._easy_ensemble.EasyEnsembleClassifier
ensemble._forest.BalancedRandomForestClassifier ensemble._weight_boosting.RUSBoostClassifier
metrics.pairwise.ValueDifferenceMetric over_sampling._adasyn.ADASYN over_sampling._random_over_sampler.RandomOverSampler
over_sampling._smote.base.SMOTE over_sampling._smote.base.SMOTEN over_sampling._smote.base.SMOTENC
over_sampling._smote.cluster.KMeansSMOTE over_sampling._smote.filter.BorderlineSMOTE
over_sampling._smote.filter.SVMSMOTE pipeline.Pipeline
under_sampling._prototype_generation._cluster_centroids.ClusterCentroids
under_sampling._prototype_selection._condensed_nearest_neighbour.CondensedNearestNeighbour
under_sampling._prototype_selection._edited_nearest_neighbours.AllKNN
under_sampling._prototype_selection._edited_nearest_neighbours.EditedNearestNeighbours
under_sampling._prototype_selection._edited_nearest_neighbours.RepeatedEditedNearestNeighbours
under_sampling._prototype_selection._instance_hardness_threshold.InstanceHardnessThreshold
under_sampling._prototype_selection._nearmiss.NearMiss
under_sampling._prototype_selection._neighbourhood_cleaning_rule.NeighbourhoodCleaningRule
under_sampling._prototype_selection._one_sided_selection.OneSidedSelection
under_sampling._prototype_selection._random_under_sampler.RandomUnderSampler
under_sampling._prototype_selection._tomek_links.TomekLinks
"""

_FEATURE_ENGINE = """
_prediction.target_mean_classifier.TargetMeanClassifier _prediction.target_mean_regressor.TargetMeanRegressor
creation.cyclical_features.CyclicalFeatures creation.decision_tree_features.DecisionTreeFeatures
creation.geo_features.GeoDistanceFeatures creation.math_features.MathFeatures
creation.relative_features.RelativeFeatures datetime.datetime.DatetimeFeatures datetime.datetime_ordinal.DatetimeOrdinal
datetime.datetime_subtraction.DatetimeSubtraction discretisation.arbitrary.ArbitraryDiscretiser
discretisation.decision_tree.DecisionTreeDiscretiser discretisation.equal_frequency.EqualFrequencyDiscretiser
discretisation.equal_width.EqualWidthDiscretiser discretisation.geometric_width.GeometricWidthDiscretiser
encoding.count_frequency.CountFrequencyEncoder encoding.decision_tree.DecisionTreeEncoder
encoding.mean_encoding.MeanEncoder encoding.one_hot.OneHotEncoder encoding.ordinal.OrdinalEncoder
encoding.rare_label.RareLabelEncoder encoding.similarity_encoder.StringSimilarityEncoder encoding.woe.WoEEncoder
imputation.arbitrary_number.ArbitraryNumberImputer imputation.categorical.CategoricalImputer
imputation.drop_missing_data.DropMissingData imputation.end_tail.EndTailImputer imputation.mean_median.MeanMedianImputer
imputation.missing_indicator.AddMissingIndicator imputation.random_sample.RandomSampleImputer
outliers.artbitrary.ArbitraryOutlierCapper outliers.trimmer.OutlierTrimmer outliers.winsorizer.Winsorizer
pipeline.pipeline.Pipeline preprocessing.match_categories.MatchCategories preprocessing.match_columns.MatchVariables
scaling.mean_normalization.MeanNormalizationScaler selection.drop_constant_features.DropConstantFeatures
selection.drop_correlated_features.DropCorrelatedFeatures selection.drop_duplicate_features.DropDuplicateFeatures
selection.drop_features.DropFeatures selection.drop_psi_features.DropHighPSIFeatures
selection.information_value.SelectByInformationValue selection.mrmr.MRMR
selection.probe_feature_selection.ProbeFeatureSelection selection.recursive_feature_addition.RecursiveFeatureAddition
selection.recursive_feature_elimination.RecursiveFeatureElimination selection.shuffle_features.SelectByShuffling
selection.single_feature_performance.SelectBySingleFeaturePerformance
selection.smart_correlation_selection.SmartCorrelatedSelection
selection.target_mean_selection.SelectByTargetMeanPerformance text.text_features.TextFeatures
timeseries.forecasting.expanding_window_features.ExpandingWindowFeatures timeseries.forecasting.lag_features.LagFeatures
timeseries.forecasting.window_features.WindowFeatures transformation.arcsin.ArcsinTransformer
transformation.arcsinh.ArcSinhTransformer transformation.boxcox.BoxCoxTransformer transformation.log.LogCpTransformer
transformation.log.LogTransformer transformation.power.PowerTransformer transformation.reciprocal.ReciprocalTransformer
transformation.yeojohnson.YeoJohnsonTransformer wrappers.wrappers.SklearnTransformerWrapper
"""

_SKRUB = """
_apply_to_cols.ApplyToCols _apply_to_each_col.ApplyToEachCol _apply_to_sub_frame.ApplyToSubFrame _cat_encoder.CatEncoder
_check_input.CheckInputDataFrame _clean_categories.CleanCategories _clean_null_strings.CleanNullStrings
_dataframe._common.is_any_date _dataframe._common.is_categorical _dataframe._common.is_numeric
_datetime_encoder.DatetimeEncoder _datetime_encoder._CircularEncoder _datetime_encoder._SplineEncoder
_drop_similar.DropSimilar _drop_uninformative.DropUninformative _duration_to_float.DurationToFloat
_gap_encoder.GapEncoder _minhash_encoder.MinHashEncoder _select_cols.Drop _select_cols.DropCols _select_cols.SelectCols
_similarity_encoder.SimilarityEncoder _squashing_scaler.SquashingScaler _squashing_scaler._MinMaxScaler
_string_encoder.StringEncoder _table_vectorizer.Cleaner _table_vectorizer.PassThrough _table_vectorizer.ShortReprDict
_table_vectorizer.TableVectorizer _table_vectorizer._created_by_predicate _to_categorical.ToCategorical
_to_datetime.ToDatetime _to_float.ToFloat _to_str.ToStr _utils.LRUDict _utils.PassThrough selectors._base.All
selectors._base.And selectors._base.Cols selectors._base.Filter selectors._base.Sub
selectors._selectors._cardinality_below
"""


def _below(package: str, names: str) -> frozenset[str]:
    return frozenset(f"{package}.{name}" for name in names.split())


LIBRARIES: Mapping[str, frozenset[str]] = {
    "xgboost": _below("xgboost", _XGBOOST),
    "lightgbm": _below("lightgbm", _LIGHTGBM),
    "catboost": _below("catboost", _CATBOOST),
    "imbalanced-learn": _below("imblearn", _IMBLEARN),
    "feature-engine": _below("feature_engine", _FEATURE_ENGINE),
    "skrub": _below("skrub", _SKRUB),
}
"""Library, as `repository.trusted_libraries` names it, to its reviewed types."""
