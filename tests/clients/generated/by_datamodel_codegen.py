"""Checks requests and answers with the pydantic models of datamodel-code-generator: `python ... < job`."""

import importlib
import json
import sys
import urllib.request

given, answers = json.load(sys.stdin), {}
for model, rows in given["rows"].items():
    types = importlib.import_module(f"generated_models.{model}")
    body = types.PredictRequest.model_validate({"instances": rows})
    assert all(isinstance(types.Row.model_validate(row), types.Row) for row in rows)
    text = body.model_dump_json(by_alias=True, exclude_unset=True).encode()
    headers = {"Content-Type": "application/json"}
    sent = urllib.request.Request(f"{given['url']}/v1/models/{model}:predict", text, headers)
    with urllib.request.urlopen(sent, timeout=60) as answer:
        found = types.RowsAnswer.model_validate_json(answer.read())
    answers[model] = json.loads(found.model_dump_json())["predictions"]
print(json.dumps(answers))
