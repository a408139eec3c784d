"""Triton's Python backend for ONNX files: what the embedded profile runs inside Triton.

Each model's `model.py` asks `model_beside` for its class. Names, types and shapes come from
`model.onnx`, as they do with Triton's onnxruntime backend. It runs in Triton's own process and
is never imported by the client.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton  # exists only inside Triton

from wanwu.embedded import GPU_MEMORY_VARIABLE, THREADS_VARIABLE
from wanwu.embedded.cuda import MEMORY_MB, cuda_session

_TRITON_TYPES = {
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(string)": "TYPE_STRING",
}


def model_beside(model_py: str) -> type[OnnxModel]:
    """Give the class Triton looks for, bound to the `model.onnx` beside a `model.py`."""
    path = Path(model_py).with_name("model.onnx")
    return type("TritonPythonModel", (OnnxModel,), {"path": path})


class OnnxModel:
    """Runs one ONNX file, on the device of the instance that Triton makes."""

    path: Path

    @classmethod
    def auto_complete_config(cls, config: Any) -> Any:
        """Fill in inputs and outputs from the ONNX file, so that no config repeats them."""
        # Optimising here would be thrown away: this session only tells names and shapes.
        session = _session(cls.path, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
        batched = config.as_dict()["max_batch_size"] > 0
        for tensor in session.get_inputs():
            config.add_input(_describe(tensor, batched))
        for tensor in session.get_outputs():
            config.add_output(_describe(tensor, batched))
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the ONNX file; on a GPU, or not at all, where the instance is one of a GPU."""
        self._batched = json.loads(args["model_config"])["max_batch_size"] > 0
        if args["model_instance_kind"] == "GPU":
            self._session = _cuda_session(self.path, int(args["model_instance_device_id"]))
        else:
            self._session = _session(self.path, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests that Triton's scheduler put together: one run where they batch."""
        if not self._batched:
            return [self._respond(request) for request in requests]
        return self._respond_together(requests)

    def _respond(self, request: Any) -> Any:
        names = request.requested_output_names()
        try:
            outputs = self._session.run(names, self._feed([request]))
        except Exception as error:
            return _failure(error)
        return _response(names, outputs)

    def _respond_together(self, requests: list[Any]) -> list[Any]:
        names = sorted({name for request in requests for name in request.requested_output_names()})
        try:
            outputs = self._session.run(names, self._feed(requests))
        except Exception as error:
            if len(requests) == 1:
                return [_failure(error)]
            # One bad request must not fail the others of its batch.
            return [self._respond_together([request])[0] for request in requests]
        responses, first = [], 0
        for request in requests:
            last = first + _rows(request, self._inputs[0])
            wanted = request.requested_output_names()
            rows = [outputs[names.index(name)][first:last] for name in wanted]
            responses.append(_response(wanted, rows))
            first = last
        return responses

    def _feed(self, requests: list[Any]) -> dict[str, Any]:
        feed = {}
        for name in self._inputs:
            parts = [_input(request, name) for request in requests]
            feed[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return feed


def _input(request: Any, name: str) -> Any:
    return triton.get_input_tensor_by_name(request, name).as_numpy()


def _rows(request: Any, name: str) -> int:
    return int(_input(request, name).shape[0])


def _response(names: list[str], outputs: list[Any]) -> Any:
    tensors = [triton.Tensor(name, array) for name, array in zip(names, outputs, strict=True)]
    return triton.InferenceResponse(output_tensors=tensors)


def _failure(error: Exception) -> Any:
    return triton.InferenceResponse(error=triton.TritonError(str(error)))


def _session(path: Path, level: Any) -> Any:
    options = _options()
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _cuda_session(path: Path, device_id: int) -> Any:
    memory_mb = int(os.environ.get(GPU_MEMORY_VARIABLE, MEMORY_MB))
    return cuda_session(path, _options(), device_id=device_id, memory_mb=memory_mb)


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get(THREADS_VARIABLE, "1"))
    options.inter_op_num_threads = 1
    # Spinning threads starve the stub that carries the tensors: 1 request in 20 took 0.5 s.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _describe(tensor: Any, batched: bool) -> dict[str, Any]:
    shape = tensor.shape[1:] if batched else tensor.shape
    dims = [size if isinstance(size, int) else -1 for size in shape]
    return {"name": tensor.name, "data_type": _TRITON_TYPES[tensor.type], "dims": dims}
