"""MLflow's ScoringServerClient: a DataFrame as dataframe_split, an array as inputs."""

from common import frame, job, run
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

given = job()
host, _, port = given["url"].removeprefix("http://").partition(":")


class Client(ScoringServerClient):
    """The stack serves several models; its URL names one."""

    def __init__(self, model):
        super().__init__(host, int(port))
        self.url_prefix = f"{self.url_prefix}/models/{model}"


def invoke(model, data):
    found = Client(model).invoke(data).get_predictions()
    return found.to_numpy().ravel().tolist()


run(
    given,
    {
        "ScoringServerClient, DataFrame": ("kinds", lambda table: invoke("kinds", frame(table))),
        "ScoringServerClient, DataFrame of text": ("notes", lambda table: invoke("notes", frame(table))),
        "ScoringServerClient, DataFrame of numbers": ("numbers", lambda table: invoke("numbers", frame(table))),
        "ScoringServerClient, array": ("numbers", lambda table: invoke("numbers", frame(table).to_numpy())),
    },
)
