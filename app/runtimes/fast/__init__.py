"""scikit-learn's own fitted numbers, asked without its overhead.

Between a table and a tree or a product scikit-learn validates, copies and wraps at every step of every call: a row
costs milliseconds that take microseconds. Here the same operations run in the same order on the same fitted arrays.
That they are the same is not believed but proved, at publish and on many rows (`tableside.publishing.equivalence`);
what is not known here, and any row out of the ordinary, goes to the estimator itself.
"""
