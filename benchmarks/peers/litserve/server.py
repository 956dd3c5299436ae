"""LitServe with its batching: rows of waiting requests go to `predict` together."""

import os

import joblib
import litserve
import numpy as np
import pandas as pd

TABLE = os.environ["BENCH_KIND"] == "table"


class Served(litserve.LitAPI):
    def setup(self, device):
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    def decode_request(self, request):
        return request["instances"]

    def batch(self, inputs):
        rows = [row for rows in inputs for row in rows]
        return [len(rows) for rows in inputs], pd.DataFrame(rows) if TABLE else np.asarray(rows)

    def predict(self, batch):
        counts, data = batch
        answers, at = self.model.predict(data).tolist(), 0
        split = []
        for count in counts:
            split.append(answers[at : at + count])
            at += count
        return split

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"predictions": output}


if __name__ == "__main__":
    api = Served(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        num_api_servers=2,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
