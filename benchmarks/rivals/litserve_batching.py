"""LitServe, as in its guide to batching, over the ONNX file; its only argument is the port."""

import sys
from typing import Any

import litserve

from benchmarks.rivals.model import PROCESSES, Model


class Classifier(litserve.LitAPI):
    """The exported model; LitServe combines requests, and their texts are one batch."""

    def setup(self, device: str) -> None:
        """Load the model in each worker process."""
        self.model = Model()

    def decode_request(self, request: dict[str, Any]) -> list[str]:
        """Return the texts of one request."""
        texts: list[str] = request["texts"]
        return texts

    def batch(self, inputs: list[list[str]]) -> list[list[str]]:
        """Return the requests unchanged; `predict` combines their texts."""
        return inputs

    def predict(self, requests: list[list[str]]) -> list[list[dict[str, object]]]:
        """Return the answers of each request."""
        found = iter(self.model.answers([text for texts in requests for text in texts]))
        return [[next(found) for _ in texts] for texts in requests]

    def unbatch(self, output: list[list[dict[str, object]]]) -> list[list[dict[str, object]]]:
        """Return the answers unchanged; `predict` has split them."""
        return output

    def encode_response(self, output: list[dict[str, object]]) -> dict[str, Any]:
        """Return the response to one request."""
        return {"results": output}


if __name__ == "__main__":
    api = Classifier(max_batch_size=32, batch_timeout=0.002, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=PROCESSES, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
