"""Ask a server with the real openpi client, as its LIBERO example does: python ask_openpi.py URL KEY; prints JSON."""

from __future__ import annotations

import json
import sys

import numpy as np
from openpi_client import action_chunk_broker, msgpack_numpy, websocket_client_policy
from websockets.exceptions import ConnectionClosedError

URL, KEY = sys.argv[1:]


def seen(number: float) -> dict[str, object]:
    image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    return {
        "observation/image": image,
        "observation/wrist_image": np.ascontiguousarray(image[::-1]),
        "observation/state": np.full(8, number),
        "prompt": "lift",
    }


def main() -> None:
    host, _, port = URL.rpartition(":")
    client = websocket_client_policy.WebsocketClientPolicy(host, int(port), api_key=KEY)
    told = client.get_server_metadata()
    first, second = client.infer(seen(1.0)), client.infer(seen(2.0))
    client.reset()
    broker = action_chunk_broker.ActionChunkBroker(client, action_horizon=2)
    steps = [broker.infer(seen(number))["actions"].tolist() for number in (3.0, 4.0, 5.0)]
    refused = closed = ""
    try:
        client.infer({"prompt": "lift"})
    except RuntimeError as error:
        refused = str(error)
    try:
        client.infer(seen(1.0))
    except ConnectionClosedError as error:
        closed = str(error)
    values = {
        "a": np.float32(0.5),
        "b": np.zeros((0, 2)),
        "c": np.arange(6).reshape(2, 3).T,
        "d": [1, None, "x"],
    }
    print(
        json.dumps(
            {
                "protocol": told["protocol"],
                "shape": list(first["actions"].shape),
                "dtype": str(first["actions"].dtype),
                "first": first["actions"][0].tolist(),
                "second": second["actions"][0].tolist(),
                "timing": sorted(second["server_timing"]),
                "steps": steps,
                "refused": refused,
                "closed": closed,
                "packed": msgpack_numpy.packb(values).hex(),
            }
        )
    )


if __name__ == "__main__":
    main()
