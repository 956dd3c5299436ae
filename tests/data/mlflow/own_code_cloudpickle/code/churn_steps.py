"""A trainer's own module, which MLflow saves with the model because of `code_paths`."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class PerMonth(TransformerMixin, BaseEstimator):
    """Adds the spend of a month as a column."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        table = np.asarray(X, dtype=float)
        return np.column_stack([table, table[:, 0] / (1 + table[:, 1])])
