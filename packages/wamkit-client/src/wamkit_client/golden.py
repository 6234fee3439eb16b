"""Golden observations: recorded ones with the chunks that a policy answered, which it must answer elsewhere, too.

    python -m wamkit_client.golden golden.msgpack ws://robot-pc:8000

asks a server about them, from the machine that the robot will ask from. `wamkit golden` writes the file. What robots
send besides is not checked: a camera's image that is upside down is answered like another.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import List, Sequence

import numpy as np

from wamkit_client.client import NoAnswer, PolicyFailed, RemotePolicy
from wamkit_client.codec import Malformed, pack, unpack
from wamkit_client.files import replace_file
from wamkit_client.types import BadInput, Observation, Policy

TOLERANCE = 0.01
FORM = "wamkit golden/1"


@dataclass(frozen=True)
class Golden:
    """observations, and of each the chunk [k, a].  names, spread: of each action dimension, and largest minus smallest
    value in training, physical units.  answered_by: which policy and weights, on what, for people."""

    observations: Sequence[Observation]
    chunks: Sequence[np.ndarray]
    names: Sequence[str]
    spread: np.ndarray
    answered_by: str

    def save(self, path: str) -> None:
        """Replaces a file, at once. NotSaved, and the file as it was, where the disk refuses."""
        content = {**vars(self), "form": FORM, "observations": [vars(seen) for seen in self.observations]}
        replace_file(path, pack(content))

    @classmethod
    def load(cls, path: str) -> Golden:
        """BadInput for a file that is missing, damaged or something else."""
        try:
            with open(path, "rb") as file:
                content = unpack(file.read())
        except (OSError, Malformed) as error:
            raise BadInput(f"{path}: no golden observations ({error}); `wamkit golden` writes them") from None
        if type(content) is not dict or content.pop("form", "") != FORM:
            raise BadInput(f"{path}: expected a file of {FORM!r}, which `wamkit golden` writes")
        seen = [Observation(**fields) for fields in content.pop("observations")]
        return cls(observations=seen, **content)


@dataclass(frozen=True)
class Difference:
    """Where an answer differs most from the golden one. share: of the spread; infinite for another shape."""

    observation: int
    share: float
    where: str


def differences(policy: Policy, golden: Golden) -> List[Difference]:
    """One for each observation, which are asked about one after the other. Raises what the policy raises."""
    policy.reset()
    return [
        _difference(number, policy.act([seen])[0].actions, expected, golden)
        for number, (seen, expected) in enumerate(zip(golden.observations, golden.chunks))
    ]


def _difference(number: int, actions: np.ndarray, expected: np.ndarray, golden: Golden) -> Difference:
    if actions.shape != expected.shape:
        return Difference(number, float("inf"), f"{list(actions.shape)}, expected {list(expected.shape)}")
    apart = np.abs(actions.astype(np.float64) - expected)
    shares = apart / golden.spread
    step, dim = divmod(int(np.argmax(shares)), shares.shape[1])
    where = (
        f"{golden.names[dim]} of action {step}: {actions[step, dim]:.6g}, expected {expected[step, dim]:.6g}"
    )
    return Difference(number, float(shares[step, dim]), where)


def main() -> int:
    """0: every answer was as expected. 1: one was not. 2: the file or the server cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m wamkit_client.golden", description=__doc__.splitlines()[0]
    )
    parser.add_argument("file", help="what `wamkit golden` wrote")
    parser.add_argument("url", help="of the server, ws://HOST:PORT")
    parser.add_argument("--served", default="", help="the policy's name, where the server has several")
    parser.add_argument("--key", default="", help="what the server lets in")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="share of an action's range that answers may differ by",
    )
    args = parser.parse_args()
    try:
        golden = Golden.load(args.file)
        with RemotePolicy(args.url, args.served, args.key) as policy:
            found = differences(policy, golden)
    except (BadInput, NoAnswer, PolicyFailed) as error:
        print(error, file=sys.stderr)
        return 2
    wrong = [one for one in found if not one.share <= args.tolerance]
    print(f"expected: as {golden.answered_by}")
    for one in found:
        print(f"observation {one.observation}: {one.share:.3%} apart at most ({one.where})")
    print(
        f"{len(wrong)} of {len(found)} answers are not those expected"
        if wrong
        else "every answer is as expected"
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
