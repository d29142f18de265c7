"""LitServe, as its guide to batching has it, over the ONNX file; its one argument is the port."""

import sys
from typing import Any

import litserve

from benchmarks.rivals.model import PROCESSES, Model


class Classifier(litserve.LitAPI):
    """The exported model; LitServe puts requests together, and their texts are one batch."""

    def setup(self, device: str) -> None:
        """Load the model in each process that answers."""
        self.model = Model()

    def decode_request(self, request: dict[str, Any]) -> list[str]:
        """The texts of one request."""
        texts: list[str] = request["texts"]
        return texts

    def batch(self, inputs: list[list[str]]) -> list[list[str]]:
        """Requests stay apart until their texts are put together."""
        return inputs

    def predict(self, requests: list[list[str]]) -> list[list[dict[str, object]]]:
        """Answers of each request."""
        found = iter(self.model.answers([text for texts in requests for text in texts]))
        return [[next(found) for _ in texts] for texts in requests]

    def unbatch(self, output: list[list[dict[str, object]]]) -> list[list[dict[str, object]]]:
        """They are apart already."""
        return output

    def encode_response(self, output: list[dict[str, object]]) -> dict[str, Any]:
        """The answer to one request."""
        return {"results": output}


if __name__ == "__main__":
    api = Classifier(max_batch_size=32, batch_timeout=0.002, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=PROCESSES, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
