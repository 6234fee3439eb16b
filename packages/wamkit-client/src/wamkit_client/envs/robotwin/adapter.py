"""What RoboTwin and XPolicyLab import: their policy interfaces, in front of a policy that wamkit serves.

RoboTwin's evaluator from before August 2026 calls `get_model`, `eval` and `reset_model`; XPolicyLab's policy folders
need a `Model`. Both only pass messages on. The present evaluator needs neither: it speaks to the server directly.

Config keys: server ("ws://127.0.0.1:19000/TOKEN"), task_name; XPolicyLab also gives action_type.
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from typing import Any, Dict, List, Mapping, Optional, Sequence

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from wamkit_client.codec import LARGEST_MESSAGE
from wamkit_client.envs.robotwin.conventions import for_simulator, from_simulator
from wamkit_client.envs.robotwin.wire import ANSWERS, Frame, WireError, pack, unpack
from wamkit_client.types import BadInput

ANSWER_SECONDS = 600.0

Actions = List[Dict[str, Any]]  # by XPolicyLab's keys, one per control step


class Connection:
    """One evaluation's connection to the server. Raises BadInput where the server lets nobody in with this URL, and
    WireError with what it refused."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        for key in ("server", "task_name"):
            if not isinstance(config.get(key), str):
                raise BadInput(
                    f"the policy's config has no {key!r}; set it in deploy_policy.yml or deploy.yml "
                    '(server: "ws://127.0.0.1:19000/TOKEN", the `url` of what serves the policy)'
                )
        self._evaluation = str(uuid.uuid4())
        self._open = ExitStack()  # entering is the only way to connect that every version of websockets has
        try:
            self._socket = self._open.enter_context(
                connect(config["server"], max_size=LARGEST_MESSAGE, compression=None)
            )
        except InvalidStatus as error:
            raise BadInput(
                f"the policy server refuses this connection ({error}); 'server' must be its whole URL, with the token "
                "that it has since it was started: ws://HOST:PORT/TOKEN"
            ) from None
        self.ask("hello", {})

    def ask(self, message_type: str, payload: Mapping[str, Any]) -> Dict[str, Any]:
        """The payload of the server's answer."""
        frame = Frame(message_type, str(uuid.uuid4()), self._evaluation, dict(payload))
        self._socket.send(pack(frame))
        while True:
            message = self._socket.recv(timeout=ANSWER_SECONDS)
            if not isinstance(message, bytes):
                raise WireError(
                    "invalid_frame", "the server answered with text; is it another program's port?"
                )
            try:
                answer = unpack(message)
            except WireError:
                if message_type != "hello":
                    raise
                continue  # the greeting of a server that speaks other protocols too
            if answer.message_id != frame.message_id:
                continue  # of a question that was given up
            if answer.message_type == "error":
                raise WireError(str(answer.payload.get("code")), str(answer.payload.get("message")))
            if answer.message_type != ANSWERS[message_type]:
                raise WireError("invalid_frame", f"{message_type} was answered by {answer.message_type}")
            return answer.payload

    def infer(self, observation: Mapping[str, Any]) -> Actions:
        """The actions to execute now; the server says how many."""
        actions: Actions = self.ask("infer", {"observation": observation})["actions"]
        return actions


class Episodes:
    """The `model` of the older interface.

    reset_model says that an episode begins, but not which. So the server is told with the first query, by the number
    that the evaluator counts and prints; a reset that no query follows is no episode.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.connection = Connection(config)
        self.task = {"task_name": config["task_name"]}
        self.episode: Dict[str, Any] = {}  # as the server was told; {} before the first query


def get_model(usr_args: Mapping[str, Any]) -> Episodes:
    """Called once, with the contents of deploy_policy.yml."""
    return Episodes(usr_args)


def encode_obs(observation: Mapping[str, Any]) -> Dict[str, Any]:
    """The simulator's observation as it is sent, without the instruction."""
    return from_simulator(observation)


def reset_model(model: Episodes) -> None:
    """An episode begins."""
    model.episode = {}


def eval(task_env: Any, model: Episodes, observation: Mapping[str, Any]) -> None:
    """One query: executes everything the server sends, or less where the episode ends before."""
    if not model.episode:
        model.episode = {**model.task, "episode": int(task_env.test_num)}
        model.connection.ask("reset", model.episode)
    seen = {**encode_obs(observation), "instruction": str(task_env.get_instruction())}
    for action in model.connection.infer(seen):
        vector, word = for_simulator(action)
        task_env.take_action(vector, action_type=word)
        success, steps = bool(task_env.eval_success), int(task_env.take_action_cnt)
        if success or steps >= task_env.step_lim:
            model.connection.ask("trial_end", {**model.episode, "success": success, "steps": steps})
            return


class Model:
    """What XPolicyLab's policy server loads from policy/NAME/model.py; observations are sent as they come."""

    def __init__(self, model_cfg: Mapping[str, Any]) -> None:
        self._connection = Connection(model_cfg)
        self._task = {key: model_cfg[key] for key in ("task_name", "action_type") if model_cfg.get(key)}
        self._case: Dict[str, Any] = {}
        self._observations: List[Mapping[str, Any]] = []

    def prepare_case(self, case_meta: Mapping[str, Any]) -> None:
        """Before a reset: seed and instruction of the episode, which `reset` is not given."""
        self._case = dict(case_meta)
        self._connection.ask("prepare_case", self._case)

    def reset(self) -> None:
        self._observations = []
        self._connection.ask("reset", {**self._task, **self._case})

    def update_obs(self, obs: Mapping[str, Any]) -> None:
        self._observations = [obs]

    def update_obs_batch(self, obs_list: Sequence[Mapping[str, Any]]) -> None:
        self._observations = list(obs_list)

    def get_action(self) -> Actions:
        """For the newest observation. BadInput without one."""
        return self.get_action_batch([0])[0]

    def get_action_batch(self, env_idx_list: Optional[Sequence[int]] = None) -> List[Actions]:
        """Actions for each observation of the last `update_obs_batch`, in its order; env_idx_list may be omitted."""
        if not self._observations or len(env_idx_list or self._observations) != len(self._observations):
            raise BadInput(
                f"actions for environments {env_idx_list} are asked for, {len(self._observations)} were observed; "
                "call update_obs or update_obs_batch first"
            )
        return [self._connection.infer(observation) for observation in self._observations]

    def on_trial_end(self, result: Mapping[str, Any]) -> None:
        self._connection.ask("trial_end", {**self._task, **result})
