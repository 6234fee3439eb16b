"""Ask a server with XPolicyLab's real client, two episodes as its evaluators do: python ask_xpolicylab.py URL; prints
JSON. Runs with the folder of its repository on PYTHONPATH.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout

import numpy as np
from client_server.ws import WsError, WsModelClient

CAMERAS = ("cam_head", "cam_left_wrist", "cam_right_wrist")


def seen(number: float) -> dict[str, object]:
    color = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    camera = {"color": color, "depth": np.zeros((24, 32), np.float32), "shape": (24, 32)}
    state: dict[str, object] = {"mobile": {"base_pose": [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]}}
    for arm in ("left", "right"):
        state |= {f"{arm}_arm_joint_state": np.full(6, number, np.float32), f"{arm}_ee_pose": np.ones(7)}
        state |= {f"{arm}_ee_joint_state": np.full(1, number, np.float32)}
    told = {"instruction": "place the fan", "additional_info": {"frequency": 30}, "env_idx": 0}
    return {
        "vision": {name: camera for name in CAMERAS},
        "state": state,
        "data_format_version": "v1.0",
        **told,
    }


def main() -> None:
    found: dict[str, list[object]] = {"steps": [], "batch": [], "refused": []}
    for trial in ("trial-0", "trial-1"):
        asked = {"evaluation_id": "ev", "trial_id": trial, "action_case_id": "place_fan", "repeat_index": 0}
        with WsModelClient(url=sys.argv[1], **asked) as client:
            client.call("prepare_case", {"task": "place_fan"})
            client.call("reset")
            for number in (0.25, 0.5):
                client.call("update_obs", seen(number))
                actions = client.call("get_action")
                found["steps"].append([action["left_arm_joint_state"].tolist() for action in actions])
            client.call("update_obs_batch", [seen(0.75), seen(1.0)])
            for actions in client.call("get_action_batch"):
                found["batch"].append(actions[0]["right_ee_joint_state"].tolist())
            try:
                client.call("get_action", {"vision": {}})
            except WsError as error:
                found["refused"].append([error.code.value, error.message])
            client.call("trial_end", {"success": trial == "trial-0", "steps": 12})
    sys.__stdout__.write(json.dumps(found))


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # the client reports to stdout how it connects
        main()
