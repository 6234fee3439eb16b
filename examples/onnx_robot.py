"""Ask an exported policy, on a computer with NumPy and ONNX Runtime alone: no torch, no wamkit.

    wamkit export demo/run policy.onnx --dataset demo/dataset      # where the run is
    python examples/onnx_robot.py policy.onnx                      # on the robot, beside policy.instructions.npz

Here the cameras show random pixels; replace `cameras` and `proprio` by those of your robot. docs/export.md says more.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime


class OnnxPolicy:
    """A file that `wamkit export` wrote. about: robot, hz, names of the actions, shapes of the inputs."""

    def __init__(self, path: str, threads: int = 1, seed: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["wamkit"])
        with np.load(Path(path).with_suffix(".instructions.npz")) as rows:
            self.rows = dict(rows)
        self.instructions = self.rows.pop("instructions").tolist()
        self.noise = np.random.default_rng(seed)

    def act(self, images: dict[str, np.ndarray], proprio: np.ndarray, instruction: str) -> np.ndarray:
        """images: uint8 RGB [h, w, 3] by camera. proprio: [p] in physical units. Returns actions [k, a], physical."""
        place = self.instructions.index(instruction)
        given = {f"views.{name}": image[None] for name, image in images.items()}
        given |= {"proprio": proprio[None].astype(np.float32)}
        given |= {name: rows[place : place + 1] for name, rows in self.rows.items()}
        for name, (kind, *shape) in self.about["inputs"].items():
            if name.startswith("drawn."):  # where a sampler begins
                given[name] = self.noise.standard_normal(shape).astype(kind)
        taken = [each.name for each in self.session.get_inputs()]
        return self.session.run(None, {name: given[name] for name in taken})[0][0]


if __name__ == "__main__":
    policy = OnnxPolicy(sys.argv[1])
    inputs = policy.about["inputs"]
    print(f"actions: {policy.about['actions']['names']} at {policy.about['hz']:g} Hz")
    for instruction in policy.instructions:
        cameras = {
            name.removeprefix("views."): np.random.randint(0, 256, shape[1:], np.uint8)
            for name, (_, *shape) in inputs.items()
            if name.startswith("views.")
        }
        proprio = np.zeros(inputs["proprio"][2], np.float32)
        began = time.perf_counter()
        actions = policy.act(cameras, proprio, instruction)
        print(f"{instruction}: {actions.shape[0]} actions in {1000 * (time.perf_counter() - began):.0f} ms")
