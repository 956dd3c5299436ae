"""Fast backends: the arithmetic of fitted scikit-learn estimators, without the overhead of their methods.

scikit-learn validates, copies and wraps its input at every step of every call. For one row that takes milliseconds,
while the arithmetic takes microseconds. A fast backend runs the same operations in the same order on the same fitted
arrays. Publish compares its answers with the estimator's on more than ten thousand rows before it is used
(`tableside.publishing.equivalence`). The estimator itself computes whatever a backend does not support.
"""
