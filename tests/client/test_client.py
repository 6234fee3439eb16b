"""RemotePolicy against servers that answer, that do not, that lie and that die: real sockets, scripted answers.

tests/serve has it against wamkit's own server.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from wamkit_client import client as client_module
from wamkit_client.client import NoAnswer, PolicyFailed, RemotePolicy
from wamkit_client.codec import pack, unpack
from wamkit_client.protocol import PROTOCOL, Unreadable, to_chunks
from wamkit_client.rollout import EpisodeConfig, rollout
from wamkit_client.types import BadInput, Observation
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from tests.client.toy import Reacher, Toy, ToyConfig, toy_suite
from tests.ports import lasting_port

GREETING = pack({"protocol": PROTOCOL})
SEEN = Observation({"eye": np.zeros((4, 4, 3), np.uint8)}, np.zeros(1, np.float32), "reach", "toy_hand", 7)

Frames = Sequence[bytes | str]
Answer = Callable[[dict[str, Any]], Frames]


def answers(question: dict[str, Any]) -> list[bytes]:
    """As a server of a Reacher."""
    name = question["request_id"]
    if "observations" not in question:
        return [pack({"request_id": name, **({"about": "{}"} if "about" in question else {"reset": True})})]
    seen = [
        Observation(one["images"], one["proprio"], one["prompt"], one["embodiment"])
        for one in question["observations"]
    ]
    chunks = [{"actions": chunk.actions, "seed": 7} for chunk in Reacher().act(seen)]
    return [pack({"request_id": name, "chunks": chunks, "server_timing": {"infer_ms": 1.5}})]


def refuses(reason: str, message: str) -> Answer:
    return lambda question: [
        pack({"request_id": question["request_id"], "error": {"reason": reason, "message": message}})
    ]


class Scripted:
    """A server whose questions are answered by `script`, one entry each, and then by `answers`.

    An answer of no frames ends the connection. asked: the questions, by connection. loading: how many connections are
    told to come later.
    """

    def __init__(
        self, *script: Answer, greeting: bytes | str = GREETING, key: str = "", loading: int = 0
    ) -> None:
        self.script, self.greeting, self.key, self.loading = list(script), greeting, key, loading
        self.asked: list[list[dict[str, Any]]] = []

    def talk(self, connection: ServerConnection) -> None:
        self.asked.append([])
        asked = self.asked[-1]
        connection.send(self.greeting)
        for message in connection:
            asked.append(unpack(message))
            frames = (self.script.pop(0) if self.script else answers)(asked[-1])
            for frame in frames:
                connection.send(frame)
            if not frames:
                connection.socket.close()  # without goodbye, as when the process is killed
                return

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.loading:
            self.loading -= 1
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "policies are being loaded\n")
        wrong = self.key and request.headers.get("Authorization") != f"Api-Key {self.key}"
        return connection.respond(HTTPStatus.UNAUTHORIZED, "no\n") if wrong else None


@contextmanager
def serving(scripted: Scripted, port: int = 0) -> Iterator[str]:
    """Its URL, while it is served."""
    server: Server = serve(
        scripted.talk, "127.0.0.1", port, process_request=scripted.admit, compression=None, max_size=None
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SHORTEST_WAIT", 0.01)


def test_a_served_policy_is_that_policy() -> None:
    """Chunks of one observation and of several, and whole episodes, are those of the policy itself."""
    scripted = Scripted()
    with serving(scripted) as url, RemotePolicy(url) as policy:
        (chunk,) = policy.act([SEEN])
        np.testing.assert_array_equal(chunk.actions, Reacher().act([SEEN])[0].actions)
        assert chunk.info == {"seed": 7, "server_timing": {"infer_ms": 1.5}}
        assert len(policy.act([SEEN, SEEN, SEEN])) == 3
        env = Toy(ToyConfig(), toy_suite("reach").tasks[0])
        config = EpisodeConfig(replan_steps=3, max_steps=40)
        assert rollout(policy, env, 0, config) == rollout(Reacher(), env, 0, config)
    assert len(scripted.asked) == 1, "one connection"
    sent = scripted.asked[0][0]["observations"][0]
    assert (
        sent["seed"] == 7 and "steps" not in sent and scripted.asked[0][-1]["observations"][0]["steps"] == 3
    )
    assert sent["prompt"] == "reach"


def test_every_question_has_a_name_of_its_own() -> None:
    scripted = Scripted()
    with serving(scripted) as url, RemotePolicy(url, policy="lift") as one, RemotePolicy(url) as other:
        for policy in (one, other):
            policy.reset()
            policy.act([SEEN])
    names = [question["request_id"] for asked in scripted.asked for question in asked]
    assert len(set(names)) == 4
    assert [asked[0]["policy"] for asked in scripted.asked] == ["lift", ""]


def stale(question: dict[str, Any]) -> list[bytes]:
    """The answer to another question first, whose actions would be wrong."""
    wrong = {"actions": np.full((6, 1), 99, np.float32)}
    return [pack({"request_id": "another", "chunks": [wrong]}), *answers(question)]


def test_stale_answers_are_passed_over() -> None:
    with serving(Scripted(stale)) as url, RemotePolicy(url) as policy:
        assert policy.act([SEEN])[0].actions.max() < 99


def late(question: dict[str, Any]) -> list[bytes]:
    time.sleep(0.5)
    return answers(question)


def test_a_late_answer_is_given_up_and_never_taken_for_the_next() -> None:
    scripted = Scripted(late)
    with serving(scripted) as url, RemotePolicy(url, answer_seconds=0.1) as policy:
        with pytest.raises(NoAnswer, match=r"no answer within 0\.1 s"):
            policy.act([SEEN])
        policy.answer_seconds = 10.0
        policy.act([SEEN])
    assert [len(asked) for asked in scripted.asked] == [1, 1], "the next question takes another connection"
    assert scripted.asked[0][0]["deadline_ms"] == 100


def test_a_lost_question_is_asked_again_unchanged() -> None:
    scripted = Scripted(lambda question: [])
    with serving(scripted) as url, RemotePolicy(url) as policy:
        chunk = policy.act([SEEN])[0]
    np.testing.assert_array_equal(chunk.actions, Reacher().act([SEEN])[0].actions)
    (first,), (second,) = scripted.asked
    assert first["request_id"] == second["request_id"] and first["observations"][0]["seed"] == 7


def test_an_episode_survives_the_server() -> None:
    """It goes away in mid-episode and another comes back on its port a moment later."""
    env = Toy(ToyConfig(), toy_suite("reach").tasks[0])
    config = EpisodeConfig(replan_steps=3, max_steps=40)
    port = lasting_port()
    with serving(Scripted(), port) as url:
        policy = RemotePolicy(url)
        policy.act([SEEN])
    again = threading.Event()

    def come_back() -> None:
        time.sleep(0.3)
        with serving(Scripted(), port):
            again.wait()

    thread = threading.Thread(target=come_back)
    thread.start()
    try:
        assert rollout(policy, env, 0, config) == rollout(Reacher(), env, 0, config)
    finally:
        policy.close()
        again.set()
        thread.join()


def test_patience_ends() -> None:
    with serving(Scripted(), lasting_port()) as url:
        policy = RemotePolicy(url, patience_seconds=0.2)
        policy.act([SEEN])
    with pytest.raises(NoAnswer, match=r"no answer for 0\.2 s: no connection"):
        policy.act([SEEN])


def test_a_server_that_was_never_there_is_soon_given_up() -> None:
    """As of a mistyped port; a server that was there is waited for all the same."""
    port = lasting_port()
    policy = RemotePolicy(f"ws://127.0.0.1:{port}", patience_seconds=1e6, first_seconds=0.2)
    with pytest.raises(
        NoAnswer, match=r"no policy server was found at ws://.* for 0\.2 s: .*Check host and port"
    ):
        policy.act([SEEN])
    with serving(Scripted(), port), policy:
        policy.act([SEEN])
    policy.patience_seconds = 0.4
    with pytest.raises(NoAnswer, match=r"no answer for 0\.4 s"):
        policy.act([SEEN])


def test_a_server_that_is_still_loading_is_waited_for() -> None:
    scripted = Scripted(loading=3)
    with serving(scripted) as url, RemotePolicy(url, first_seconds=0.0) as policy:
        policy.act([SEEN])
    assert scripted.loading == 0


@pytest.mark.parametrize("reason", ["busy", "rate", "superseded", "stopping"])
def test_what_passes_is_tried_again_on_the_same_connection(reason: str) -> None:
    scripted = Scripted(refuses(reason, "later"), refuses(reason, "later"))
    with serving(scripted) as url, RemotePolicy(url) as policy:
        policy.act([SEEN])
    assert [len(asked) for asked in scripted.asked] == [3]


@pytest.mark.parametrize(
    ("reason", "raised"),
    [("bad_request", BadInput), ("malformed", BadInput), ("failed", PolicyFailed), ("late", NoAnswer)],
)
def test_errors_tell_whose_fault_it_is(reason: str, raised: type[Exception]) -> None:
    """And the connection can be used afterwards."""
    scripted = Scripted(refuses(reason, "camera 'eye' is missing"))
    with serving(scripted) as url, RemotePolicy(url) as policy:
        with pytest.raises(raised, match="camera 'eye' is missing"):
            policy.act([SEEN])
        policy.act([SEEN])
    assert [len(asked) for asked in scripted.asked] == [2]


def one(**answer: Any) -> Answer:
    return lambda question: [pack({"request_id": question["request_id"], **answer})]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda question: ["Traceback: it broke"], "it broke"),
        (lambda question: [b"\xc1"], "no message"),
        (lambda question: [pack([1])], "a list, expected a map"),
        (one(), "expected 1 chunks, got None"),
        (one(chunks=[]), "expected 1 chunks"),
        (one(chunks=[{"actions": [1.0]}]), r"expected actions \[k, a\]"),
        (one(chunks=[{"actions": np.zeros(3, np.float32)}]), r"float32 \[3\]"),
        (one(chunks=[{"action": np.zeros((3, 1), np.float32)}]), "a map with 'actions'"),
        (one(error="text"), "text"),
    ],
)
def test_what_is_no_answer_is_the_servers_fault(answer: Answer, said: str) -> None:
    with (
        serving(Scripted(answer)) as url,
        RemotePolicy(url) as policy,
        pytest.raises(PolicyFailed, match=said),
    ):
        policy.act([SEEN])


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (pack({"protocol": "wamkit/2"}), "speaks wamkit/2, this client wamkit/1; install"),
        (pack({}), "speaks another protocol"),
    ],
)
def test_servers_of_another_version(greeting: bytes, said: str) -> None:
    scripted = Scripted(greeting=greeting)
    with serving(scripted) as url, RemotePolicy(url) as policy, pytest.raises(BadInput, match=said):
        policy.act([SEEN])


def test_who_may_ask() -> None:
    scripted = Scripted(key="secret")
    with serving(scripted) as url:
        with pytest.raises(BadInput, match="does not let this client in"):
            RemotePolicy(url, key="wrong").reset()
        with RemotePolicy(url, key="secret") as policy:
            policy.reset()
    for wrong in ("http://127.0.0.1:1", "127.0.0.1:1", "ws://"):
        with pytest.raises(BadInput, match="ws://HOST:PORT"):
            RemotePolicy(wrong).reset()


def test_about_is_what_the_server_says() -> None:
    facts = {"recipe": "toy", "demonstrated": [{"task": "reach", "seed": 1, "vector": [0.5]}]}
    with serving(Scripted(one(about=json.dumps(facts)))) as url, RemotePolicy(url) as policy:
        assert policy.about() == facts


def test_an_observation_that_cannot_be_sent_is_named() -> None:
    with serving(Scripted()) as url, RemotePolicy(url) as policy:
        wrong = Observation({"eye": np.array([object()])}, SEEN.proprio, "reach", "toy_hand")
        with pytest.raises(BadInput, match="cannot be sent"):
            policy.act([wrong])


def newer(question: dict[str, Any]) -> list[bytes]:
    """As a server of a later version answers: with keys that this client does not know."""
    answer = unpack(answers(question)[0])
    for chunk in answer.get("chunks", []):
        chunk["confidence"] = np.ones(3, np.float32)
    return [pack({**answer, "trace": {"id": 1}})]


def test_a_newer_server_may_say_more() -> None:
    greeting = pack({"protocol": PROTOCOL, "features": ["x"], "policies": {"one": {"later": 1}}})
    with serving(Scripted(newer, newer, greeting=greeting)) as url, RemotePolicy(url) as policy:
        chunk = policy.act([SEEN])[0]
        policy.reset()
    np.testing.assert_array_equal(chunk.actions, Reacher().act([SEEN])[0].actions)
    np.testing.assert_array_equal(chunk.info["confidence"], np.ones(3))


def test_an_older_server_may_say_less() -> None:
    """What an answer must have is its actions."""

    def older(question: dict[str, Any]) -> list[bytes]:
        chunks = [{"actions": chunk["actions"]} for chunk in unpack(answers(question)[0])["chunks"]]
        return [pack({"request_id": question["request_id"], "chunks": chunks})]

    with serving(Scripted(older)) as url, RemotePolicy(url) as policy:
        np.testing.assert_array_equal(policy.act([SEEN])[0].actions, Reacher().act([SEEN])[0].actions)


@pytest.mark.parametrize("said", ["xyz", [0, 4], [-1], [0.0], [True]])
def test_displacements_are_numbers_of_dimensions(said: object) -> None:
    chunk = {"actions": np.zeros((3, 4), np.float32), "displacements": said}
    with pytest.raises(Unreadable, match="displacements"):
        to_chunks({"chunks": [chunk]}, 1)
