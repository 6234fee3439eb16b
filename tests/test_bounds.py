"""A value that cannot be is refused by name, and before anything is written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from wamkit_client.types import BadInput

from wamkit.cli import main
from wamkit.config import from_json, to_json
from wamkit.recipes import recipe

WRONG = """
--train.learning-rate nan     train.learning_rate: expected a finite number above 0, got nan
--train.learning-rate inf     train.learning_rate: expected a finite number above 0, got inf
--train.learning-rate 0       train.learning_rate: expected a finite number above 0, got 0.0
--train.betas 2 3             train.betas: expected of each a number from 0 to below 1, got (2.0, 3.0)
--train.betas 0.9 nan         train.betas: expected of each a number from 0 to below 1, got (0.9, nan)
--train.seed -1               train.seed: expected at least 0, got -1
--train.prefetch -1           train.prefetch: expected at least 0, got -1
--train.eps 0                 train.eps: expected a finite number above 0, got 0.0
--train.clip-norm nan         train.clip_norm: expected a finite number above 0, or "none" to clip nothing, got nan
--train.weight-decay -1       train.weight_decay: expected a finite number, at least 0, got -1.0
--train.average-decay 1       train.average_decay: expected a number from 0 to below 1, got 1.0
--train.warmup-start 2        train.warmup_start: expected a number from 0 to 1, got 2.0
--train.final-fraction nan    train.final_fraction: expected a number from 0 to 1, got nan
--train.steps 40              train.warmup_steps: expected at most train.steps, 40, got 100
--eval.replan-steps 17        eval.replan_steps: expected at most the 16 actions of a chunk
--eval.replan-steps 12 --eval.executor async --eval.delay-ms 60  eval.replan_steps: expected at most the 16 actions of
--eval.executor guided         eval.executor: a light_wam policy makes a chunk from what the robot sees alone
--eval.executor async --eval.delay-ms 105  the delay is 9 steps but replan_steps is 8
--eval.delay-ms -1            eval.delay_ms: expected at least 0, got -1
--eval.processes 0            eval.processes: expected at least 1, got 0
--eval.record-episodes -1     eval.record_episodes: expected at least 0, got -1
--eval.answer-seconds 0       eval.answer_seconds: expected a finite number above 0, got 0.0
--data.hz 0                   data.hz: expected a finite number above 0, got 0.0
--data.hz nan                 data.hz: expected a finite number above 0, got nan
--data.hz 75                   data.frame_times: 0.1 s is 7.5 control steps
--data.chunk-seconds -1       data.chunk_seconds: expected a finite number above 0, got -1.0
--data.chunk-seconds 0.03     data.chunk_seconds: 0.03 s is 2.4 control steps at data.hz 80, expected a
--data.chunk-seconds 1e-6     data.chunk_seconds: 1e-06 s is 8e-05 control steps at data.hz 80, expected a
--data.frame-times 0 0.2 0.1  data.frame_times: expected 0 and then later times, ascending, got (0.0, 0.2, 0.1)
--data.frame-times 0.1 0.2    data.frame_times: expected 0 and then later times, ascending, got (0.1, 0.2)
--data.views                  data.views: expected at least one camera, each once, got ()
--data.views a a              data.views: expected at least one camera, each once, got ('a', 'a')
--data.view-height 0          data.view_height: expected at least 1, got 0
--policy.adapters.layers 1 3 50  policy.adapters.layers: expected block numbers from 0 to 5, ascending, got (1, 3, 50)
--policy.adapters.layers 3 1 5   policy.adapters.layers: expected block numbers from 0 to 5, ascending, got (3, 1, 5)
--policy.adapters.layers -1 3 5  policy.adapters.layers: expected block numbers from 0 to 5, ascending, got (-1, 3, 5)
--policy.adapters.layers 3 3 5   policy.adapters.layers: expected block numbers from 0 to 5, ascending, got (3, 3, 5)
--policy.step-weights.prefix 0   policy.step_weights.prefix: expected at least 1, got 0
--policy.step-weights.tail nan   policy.step_weights.tail: expected a finite number, at least 0, got nan
--policy.video-weight nan        policy.video_weight: expected a finite number, at least 0, got nan
--policy.expert.heads 7          policy.expert.heads: 7 do not divide the video model's width 128
--policy.expert.queries 0        policy.expert.queries: expected at least 1, got 0
--policy.size.head-dim 31        policy.size.head_dim: expected an even number with an even third
--policy.text.width 32           policy.text.width: expected policy.size.text_dim, 64, got 32
--policy.codec.keeps whole       policy.size.channels: expected 192, what policy.codec gives, got 27
"""
CASES = [[part.strip() for part in line.split("  ", 1)] for line in WRONG.strip().splitlines()]


@pytest.mark.parametrize(("flags", "says"), CASES, ids=[flags for flags, _ in CASES])
def test_a_wrong_value_is_refused_by_name_before_anything_is_written(tmp_path, capsys, flags, says):
    words = ["train", "metaworld3", "--out", str(tmp_path / "run"), *flags.split()]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {says}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("collect metaworld3 --episodes 0", "collect.episodes: expected at least 1, got 0"),
        ("collect metaworld3 --workers 0", "collect.workers: expected at least 1, got 0"),
        ("collect metaworld3 --noise nan", "collect.noise: expected a finite number, at least 0, got nan"),
        ("demo --smoke --episodes -3", "collect.episodes: expected at least 1, got -3"),
        ("demo --smoke --train.seed 3", "--train.seed: the seed of this command is given by --seed"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_is_written(tmp_path, capsys, words, says):
    assert main([*words.split(), "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {says}")
    assert not list(tmp_path.iterdir())


def test_the_times_of_another_rate_are_named(capsys):
    assert main(["train", "real_robot", "--plan", "--data.hz", "30"]) == 2
    assert capsys.readouterr().err == (
        "error: data.frame_times: 0.08 s is 2.4 control steps at data.hz 30, expected a whole number; "
        "give 0.06666667 or 0.1 s (multiples of 0.03333333 s), or another data.hz\n"
    )
    times = [str(step * 4 / 30) for step in range(9)]
    fitting = ["--data.hz", "30", "--data.chunk-seconds", str(32 / 30), "--data.frame-times", *times]
    assert main(["train", "--plan", *fitting[:4], "real_robot", *fitting[4:]]) == 0


def test_a_wrong_value_in_a_saved_run_is_named():
    text = to_json(recipe("metaworld3")).replace('"learning_rate": 0.0009', '"learning_rate": -1.0')
    with pytest.raises(
        BadInput, match=r"run\.json: .*train\.learning_rate: expected a finite number above 0, got -1"
    ):
        from_json(text, "run.json")


def test_a_run_that_never_left_its_warm_up_is_still_read():
    run = recipe("metaworld3")
    short = replace(run, train=replace(run.train, steps=2))
    assert short.train.warmup_steps > 2
    assert from_json(to_json(short), "run.json") == short
