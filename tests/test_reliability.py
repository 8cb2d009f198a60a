"""A part of `make reliability` with fixed seeds: killed trainings, faults of the command line, broken and hostile files. In a process of its own, since it forks and kills."""
import json
import os
import subprocess
import sys

import pytest

FOUR = ("DDPM", "SeSAMI", "semi-supervised", "self-supervised")


@pytest.fixture(scope="module")
def cells(root, tmp_path_factory):
    "{row: cell} of a small run"
    out = tmp_path_factory.mktemp("reliability")
    env = {k: v for k, v in os.environ.items() if k != "SEMIML_DATA"}  # real files are for the full run
    done = subprocess.run([sys.executable, root/"tools"/"reliability.py", "--out", out, "--kills", "2", "--faults", "1", "--fuzz", "600", "--seed",
                           "7"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {c["row"]: c for c in (json.loads(p.read_text()) for p in out.glob("*.json"))}


@pytest.mark.parametrize("training", FOUR)
def test_kill_9_at_random_moments(cells, training):
    c = cells[f"kill and resume {training}"]
    assert c["metrics"]["lost"] == 0, c["lost"]
    assert len(c["kills"]) == c["metrics"]["tried"] >= 2


@pytest.mark.parametrize("training", FOUR)
def test_faults_end_in_one_sentence_and_lose_nothing(cells, training):
    c = cells[f"faults {training}"]
    assert c["metrics"]["lost"] == 0, c["faults"]
    assert set(c["faults"]) == {"disk full", "read-only folder", "two at once", "Ctrl-C", "image larger than the memory"}


@pytest.mark.parametrize("files", ["images", "masks", "settings", "checkpoints", "archives", "hostile"])
def test_broken_files_end_in_a_result_or_one_sentence(cells, files):
    c = cells[f"fuzz {files}"]
    assert c["metrics"]["lost"] == 0, c["lost"]
    assert c["metrics"]["refused"] > .2 * c["metrics"]["tried"]  # else nothing was spoiled
    assert c["metrics"]["results"] > 0 or files == "hostile"
