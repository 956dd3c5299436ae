"""A trainer's module: an estimator around a small network, built like the wrappers of deep learning libraries.

The network is saved as bytes by its own functions, and holds what neither skops nor pickle can write. The tests copy
this file: it is own code, and not a module of the tests.
"""

import io
import threading

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


def load_network(content):
    with np.load(io.BytesIO(content)) as arrays:
        return Network([arrays[name] for name in arrays.files])


class Network:
    """Two dense layers, with a lock as a session of such a library has one."""

    def __init__(self, weights):
        self.weights = weights
        self.session = threading.Lock()
        self.activation = lambda x: np.maximum(x, 0.0)

    def __reduce__(self):
        out = io.BytesIO()
        np.savez(out, *self.weights)
        return load_network, (out.getvalue(),)

    def forward(self, x):
        with self.session:
            return 1 / (1 + np.exp(-(self.activation(x @ self.weights[0]) @ self.weights[1])))


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """Trains the network by gradient descent."""

    def __init__(self, units=8, epochs=100):
        self.units = units
        self.epochs = epochs

    def fit(self, X, y):
        X = np.asarray(X, dtype=float)
        self.classes_, target = np.unique(y, return_inverse=True)
        self.n_features_in_ = X.shape[1]
        chance = np.random.default_rng(0)
        first, second = chance.normal(size=(X.shape[1], self.units)), chance.normal(size=(self.units, 1))
        for _ in range(self.epochs):
            hidden = np.maximum(X @ first, 0)
            error = (1 / (1 + np.exp(-(hidden @ second))) - target[:, None]) / len(X)
            before = (error @ second.T) * (hidden > 0)
            second -= hidden.T @ error
            first -= X.T @ before
        self.network_ = Network([first, second])
        return self

    def predict_proba(self, X):
        chances = self.network_.forward(np.asarray(X, dtype=float))
        return np.hstack([1 - chances, chances])

    def predict(self, X):
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(int)]
