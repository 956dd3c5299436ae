"""Predicts with the package that openapi-python-client has made: `python by_openapi_python_client.py < job`."""

import importlib
import json
import sys

from generated_client import Client

given, answers = json.load(sys.stdin), {}
client = Client(base_url=given["url"])
for model, rows in given["rows"].items():
    operation = importlib.import_module(f"generated_client.api.{model}.predict_{model}")
    row = getattr(importlib.import_module(f"generated_client.models.{model}_row"), f"{model.title()}Row")
    module = importlib.import_module(f"generated_client.models.{model}_predict_request_rows")
    body = getattr(module, f"{model.title()}PredictRequestRows")(instances=[row.from_dict(each) for each in rows])
    answer = operation.sync(client=client, body=body)
    assert type(answer).__name__ == f"{model.title()}RowsAnswer", answer
    answers[model] = answer.predictions
print(json.dumps(answers))
