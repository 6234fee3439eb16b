"""GR00T's protocol (N1.5 to N1.7): msgpack maps with an `endpoint` and `data`, over ZeroMQ (serve/zeromq.py).

An observation is {"video": {view: uint8 [b, t, h, w, 3]}, "state": {key: [b, t, d]}, "language": {key: b x t texts}},
or the same flat, "video.VIEW"; N1.5's have no b. Of t the last is taken. The answer to get_action is a map of actions
[b, horizon, d] by name (before N1.6), or that and a map of further facts. Arrays are NumPy's file format in a map, or
msgpack-numpy's form; answers have the former, which every version reads. Nobody ends the server: `kill` is refused.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from wamkit_client.codec import pack
from wamkit_client.types import BadInput

from wamkit.serve.dialects.base import Client, Message, Reply
from wamkit.serve.layouts import Layout
from wamkit.serve.refusals import Refused
from wamkit.serve.served import Served

MODALITIES = ("video", "state", "language")
OPTIONS = ("policy", "embodiment", "seed")
MARK, DATA = "__ndarray_class__", "as_npy"
FILE = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|=]?[biuf][1248])', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,12}(?:, |,)?){0,32})\), \} *\n",
    re.DOTALL,
)
"""Where an array of NumPy's file format begins. Read so, and not by NumPy, which evaluates it."""
LAYOUT = "gr00t"


@dataclass(frozen=True)
class Gr00t:
    """A Dialect. groups: of an action's dimensions, by name; {}: each under its own name."""

    groups: Mapping[str, slice]
    name: str = "gr00t"

    def speaks(self, fields: Mapping[Any, Any]) -> bool:
        return True

    async def answer(self, message: Message, client: Client) -> Reply:
        endpoint, data = message.fields.get("endpoint", "get_action"), message.fields.get("data")
        match endpoint:
            case "ping":
                return Reply(pack({"status": "ok", "message": "Server is running"}))
            case "get_action":
                return Reply(pack(await self._act(_map(data, "data"), client)))
            case "reset":
                await client.reset(client.service.policies.find())
                return Reply(pack({}))
            case "get_modality_config":
                layouts = {layout.name: layout for layout in client.service.layouts}
                return Reply(pack(self._modalities(client.service.policies.find(), layouts[LAYOUT])))
            case other:
                raise BadInput(
                    f"'endpoint': expected ping, get_action, reset or get_modality_config, got {other!r:.100}; clients "
                    "do not end this server"
                )

    def refuse(self, message: Message, error: Refused) -> Reply:
        return Reply(pack({"error": error.told}))

    async def _act(self, data: Mapping[str, Any], client: Client) -> Any:
        positional = "observation" not in data  # N1.5
        options = {} if positional else _map(data.get("options") or {}, "options")
        asked = {key: options[key] for key in OPTIONS if key in options}
        sent = data if positional else _map(data["observation"], "observation")
        flat = not any(modality in sent for modality in MODALITIES)
        seen = _split(sent) if flat else {modality: sent.get(modality, {}) for modality in MODALITIES}
        batched, examples = _examples(seen)
        served = client.service.policies.find(Message(asked).name("policy"))
        observed = [client.observation(served, {**example, **asked}) for example in examples]
        answer = await client.ask(served, observed)
        chunks = np.stack([chunk.actions for chunk in answer.chunks]).astype(np.float32)
        actions = {
            ("action." if flat else "") + name: file_array(
                chunks[..., dims] if batched else chunks[0][:, dims]
            )
            for name, dims in self.groups_of(served).items()
        }
        return actions if positional else [actions, {"infer_ms": 1000 * answer.timing.called}]

    def groups_of(self, served: Served) -> Mapping[str, slice]:
        """Dimensions of an action by the name that clients know them under.

        Raises BadInput where they are not all of the policy's, one after the other.
        """
        names = served.facts.action_names
        if not self.groups:
            return {name: slice(at, at + 1) for at, name in enumerate(names)}
        taken = [at for dims in self.groups.values() for at in range(dims.start, dims.stop)]
        if sorted(taken) != list(range(len(names))):
            raise BadInput(
                f"--gr00t-actions: {', '.join(f'{name}={g.start}:{g.stop}' for name, g in self.groups.items())}; "
                f"expected each of the {len(names)} dimensions of {served.name}'s actions once ({', '.join(names)})"
            )
        return self.groups

    def _modalities(self, served: Served, layout: Layout) -> dict[str, Any]:
        """What the policy needs and gives, as N1.6's and N1.7's clients read it."""
        robot = served.facts.robots[0]
        keys = {
            "video": [layout.key(view).removeprefix("video/") for view in robot.views],
            "state": [key.removeprefix("state/").partition("[")[0] for key in layout.proprio],
            "language": ["task"],
        }
        now = {modality: _modality([0], names) for modality, names in keys.items() if names}
        return {**now, "action": _modality(list(range(robot.horizon)), list(self.groups_of(served)))}


def file_array(array: np.ndarray) -> dict[str, Any]:
    """An array as every version of GR00T's clients reads it."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return {MARK: True, DATA: file.getvalue()}


def arrays(value: Any) -> Any:
    """A message with the arrays that are in it as NumPy's files. Raises BadInput for damaged ones."""
    if isinstance(value, dict):
        return (
            _array(value[DATA])
            if value.get(MARK) and DATA in value
            else {k: arrays(v) for k, v in value.items()}
        )
    return [arrays(one) for one in value] if isinstance(value, list) else value


def parsed_groups(groups: Mapping[str, str]) -> dict[str, slice]:
    """Groups of an action's dimensions as the command line has them, "FIRST:END". Raises BadInput."""
    found = {}
    for name, text in groups.items():
        numbers = re.fullmatch(r"(\d+):(\d+)", text)
        if not numbers or not int(numbers[1]) < int(numbers[2]):
            raise BadInput(f"--gr00t-actions {name}={text}: expected NAME=FIRST:END, as in single_arm=0:5")
        found[name] = slice(int(numbers[1]), int(numbers[2]))
    return found


def _array(data: Any) -> np.ndarray:
    begins = FILE.match(data) if isinstance(data, bytes) else None
    if not begins:
        raise BadInput("an array: expected NumPy's file format, version 1.0, of numbers or truth values")
    shape = [int(size) for size in begins[3].decode().replace(",", " ").split()]
    dtype = np.dtype(begins[1].decode())
    if len(data) - begins.end() != dtype.itemsize * math.prod(shape):
        raise BadInput(f"an array: {len(data) - begins.end()} bytes for {dtype} {shape}")
    flat = np.frombuffer(data, dtype, offset=begins.end())
    return flat.reshape(shape, order="F" if begins[2] == b"True" else "C")


def _map(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{key!r}: expected a map, got {type(value).__name__}")
    return value


def _split(sent: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """An observation whose modalities stand in its keys."""
    seen: dict[str, dict[str, Any]] = {modality: {} for modality in MODALITIES}
    for key, value in sent.items():
        modality, _, name = str(key).partition(".")
        if modality in ("video", "state"):
            seen[modality][name] = value
        else:
            seen["language"][str(key)] = value
    return seen


def _examples(seen: Mapping[str, Any]) -> tuple[bool, list[dict[str, Any]]]:
    """Whether an observation has a batch's dimension, and its examples, each at the last of its times."""
    video, state, language = (_map(seen[modality], modality) for modality in MODALITIES)
    ranks = {_rank(value, f"video/{name}") for name, value in video.items()}
    if len(ranks) != 1:
        raise BadInput(
            f"'video': expected images, all [b, t, h, w, 3] or all [t, h, w, 3], got {sorted(ranks)} dims"
        )
    batched = ranks == {5}
    size = len(next(iter(video.values()))) if batched else 1
    last = {
        "video": {name: _last(value, batched, size, f"video/{name}") for name, value in video.items()},
        "state": {name: _last(value, batched, size, f"state/{name}") for name, value in state.items()},
    }
    texts = {name: _texts(value, size, name) for name, value in language.items()}
    if len(texts) != 1:
        raise BadInput(f"'language': expected one instruction, got {', '.join(texts) or 'none'}")
    examples = []
    for at in range(size):
        one: dict[str, Any] = {kind: {name: v[at] for name, v in own.items()} for kind, own in last.items()}
        words = {name: text[at] for name, text in texts.items()}
        examples.append({**one, "language": words, "prompt": next(iter(words.values()))})
    return batched, examples


def _rank(value: Any, key: str) -> int:
    if not isinstance(value, np.ndarray) or value.ndim not in (4, 5):
        what = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise BadInput(f"{key!r}: expected uint8 [b, t, h, w, 3] or [t, h, w, 3], got {what}")
    return value.ndim


def _last(value: Any, batched: bool, size: int, key: str) -> np.ndarray:
    """Of each example the last of its times."""
    least = 2 + batched
    if not isinstance(value, np.ndarray) or value.ndim < least or 0 in value.shape:
        what = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise BadInput(f"{key!r}: expected {'[b, t, ..]' if batched else '[t, ..]'}, got {what}")
    examples = value if batched else value[None]
    if len(examples) != size:
        raise BadInput(f"{key!r}: {len(examples)} examples, the first image has {size}")
    last: np.ndarray = examples[:, -1]
    return last


def _texts(value: Any, size: int, key: str) -> list[Any]:
    """Of each example the last of its times."""
    examples = [value] if isinstance(value, str) else value
    if not isinstance(examples, list) or len(examples) != size:
        raise BadInput(f"{key!r}: expected {size} instructions, got {value!r:.100}")
    return [one[-1] if isinstance(one, list) and one else one for one in examples]


def _modality(times: list[int], names: list[str]) -> dict[str, Any]:
    return {"__ModalityConfig_class__": True, "as_json": {"delta_indices": times, "modality_keys": names}}
