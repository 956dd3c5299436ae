"""The service people write by hand: load the joblib file, `model.predict` in a view."""

import os

import joblib
import numpy as np
import pandas as pd
from flask import Flask, jsonify, request

app = Flask(__name__)
model = joblib.load(os.environ["BENCH_MODEL"])
to_input = pd.DataFrame if os.environ["BENCH_KIND"] == "table" else np.asarray


@app.post("/predict")
def predict():
    rows = request.get_json()["instances"]
    return jsonify(predictions=model.predict(to_input(rows)).tolist())
