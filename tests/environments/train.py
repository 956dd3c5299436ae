"""Run by the Python of a training environment: trains models and saves them in every way. usage: train.py FOLDER

Compatible with Python 3.8 and scikit-learn 1.0.
"""

import gzip
import json
import pickle
import sys
import warnings
from pathlib import Path

import joblib
import sklearn
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tableside_contract import contract

warnings.simplefilter("ignore")
out = Path(sys.argv[1])
wine, diabetes = load_wine(as_frame=True), load_diabetes(as_frame=True)
one_vs_rest = make_pipeline(StandardScaler(), LogisticRegression(multi_class="ovr", max_iter=1000))
one_vs_rest.fit(wine.data, wine.target)
boosting = GradientBoostingRegressor(n_estimators=5, random_state=0).fit(diabetes.data, diabetes.target)
line = make_pipeline(StandardScaler(), LinearRegression()).fit(diabetes.data, diabetes.target)

wine.frame.to_csv(str(out / "wine.csv"), index=False)
diabetes.frame.to_csv(str(out / "diabetes.csv"), index=False)
for name, model in (("one_vs_rest", one_vs_rest), ("boosting", boosting), ("line", line)):
    joblib.dump(model, str(out / (name + ".joblib")))
for compression in ("zlib", "gzip", "bz2", "lzma", "xz"):
    joblib.dump(one_vs_rest, str(out / ("compressed." + compression)), compress=(compression, 3))
for protocol in (0, 1, 2, 3, 4, 5):
    (out / f"protocol{protocol}.pkl").write_bytes(pickle.dumps(one_vs_rest, protocol))
with gzip.open(str(out / "pickled.gz"), "wb") as file:
    pickle.dump(boosting, file)
try:
    import skops.io
except ImportError:
    pass
else:
    skops.io.dump(one_vs_rest, str(out / "one_vs_rest.skops"))
contract(one_vs_rest, wine.data, out / "wine_record")
contract(line, diabetes.frame, out / "line_record", target="target")
answers = {
    "release": sklearn.__version__,
    "predict": one_vs_rest.predict(wine.data).tolist(),
    "predict_proba": one_vs_rest.predict_proba(wine.data).tolist(),
}
(out / "answers.json").write_text(json.dumps(answers))
