"""Bad input gets a clear error with a way out, and loses nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from tests.app.conftest import QUICK, Accord


def test_a_folder_with_another_run_is_left_alone(
    accord: Accord, model: str, feedback: str, tmp_path: Path
) -> None:
    args = ["align", "--model", model, "--records", feedback, "--output-dir", str(tmp_path / "run"), *QUICK]
    accord.json(*args)
    notes = tmp_path / "run" / "notes.txt"
    notes.write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    found = accord.error(*args)
    assert "another run" in found["problem"]
    assert all(way in found["remedy"] for way in ("--resume", "--overwrite", "--output-dir"))
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    accord.json(*args, "--overwrite")
    assert notes.read_text() == "mine"
    assert (tmp_path / "run" / "report.json").stat().st_mtime_ns > before[tmp_path / "run" / "report.json"]


def test_nothing_is_replaced_before_the_new_data_have_been_read(
    accord: Accord, model: str, feedback: str, tmp_path: Path
) -> None:
    args = ["align", "--model", model, "--output-dir", str(tmp_path / "run"), *QUICK]
    accord.json(*args, "--records", feedback)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": \n')
    found = accord.error(*args, "--records", str(broken), "--overwrite")
    assert "2" in found["where"]
    assert (tmp_path / "run" / "report.json").exists() and (tmp_path / "run" / "model.safetensors").exists()


def test_the_starting_model_is_not_written_over(accord: Accord, model: str, feedback: str) -> None:
    found = accord.error("align", "--model", model, "--records", feedback, "--output-dir", model, "--overwrite")
    assert "write over the model" in found["problem"]


@pytest.mark.parametrize("place", ["file", "proc"])
def test_an_unwritable_folder_is_found_before_any_work(
    accord: Accord, model: str, feedback: str, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "run") if place == "file" else "/proc/accord-run"
    found = accord.error("align", "--model", model, "--records", feedback, "--output-dir", out, *QUICK)
    assert "can't be written to" in found["problem"] and found["where"] == out


@pytest.mark.parametrize(("size", "expected"), [("160k", "no checkpoint"), ("700k", "checkpoint-2")])
def test_a_disk_that_fills_up_in_mid_training(
    accord: Accord, model: str, feedback: str, tmp_path: Path, size: str, expected: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk here")
    quick = [word for word in QUICK if not word.startswith("--max-steps")]
    args = ["--output-dir", str(disk / "run"), "--max-steps=4", "--save-steps=2", *quick]
    try:
        found = accord.json("align", "--model", model, "--records", feedback, *args, code=2)
        assert "disk is full" in found["problem"] and "--resume" in found["remedy"]
        assert expected in found["remedy"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_torchs_own_words_for_a_full_disk_are_understood_only_where_the_disk_is_full(tmp_path: Path) -> None:
    from accordance.app.folder import disk_errors

    with pytest.raises(RuntimeError, match="inline_container"), disk_errors(tmp_path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1 vs 2")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--objective", "dpoo"], ["unknown objective 'dpoo'", "did you mean 'dpo'?"]),
        (["--objective", "dpoo", "--beta", "0.1"], ["unknown objective 'dpoo'"]),
        (["--learning-rte", "1e-5"], ["unknown option 'learning_rte'", "did you mean 'learning_rate'?"]),
        (["--set", "sample=3"], ["unknown option 'sample'", "did you mean 'samples'?"]),
        (["--set", "beta"], ["name=value"]),
        (["stray"], ["no option", "--records"]),
        (["--beta", "0.1", "--set", "beta=0.2"], ["given twice"]),
        (["--beta", "much"], ["beta", "float"]),
        (["--held-out", "-1"], ["held_out"]),
        (["--seed", "tomorrow"], ["seed"]),
        (["--objective", "ipo", "--label-smoothing", "0.1"], ["no effect", "label_smoothing"]),
        (["--label-smoothing-factor", "0.1"], ["no effect", "label_smoothing"]),
        (["--lora-r", "4"], ["no effect", "use_peft"]),
        (["--parallel", "ddp"], ["no effect", "--num-processes"]),
        (["--samples", "0", "--max-new-tokens", "9"], ["no effect", "max_new_tokens"]),
        (["--held-out", "0", "--scorer", "population"], ["no effect", "scorer"]),
        (["--load-in-4bit"], ["quantised", "--use-peft"]),
        (["--scorer", "nowhere:reward"], ["nowhere", "scorer"]),
        (["--recipe", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--resume", "--overwrite"], ["not both"]),
    ],
)
def test_options_that_can_not_be_meant_are_named(
    accord: Accord, model: str, feedback: str, tmp_path: Path, args: list[str], words: list[str]
) -> None:
    out = tmp_path / "run"
    found = accord.error("align", "--model", model, "--records", feedback, "--output-dir", str(out), *args)
    said = " ".join(found.values())
    assert all(word in said for word in words), said
    assert not out.exists() or not list(out.iterdir())


def test_missing_model_and_wrong_paths_are_named(
    accord: Accord, model: str, feedback: str, tmp_path: Path
) -> None:
    out = ["--output-dir", str(tmp_path / "run")]
    assert "no model" in accord.error("align", "--records", feedback, *out)["problem"]
    found = accord.error("align", "--model", model, "--records", "nowhere.jsonl", *out)
    assert found["where"] == "nowhere.jsonl" and "path" in found["remedy"]
    found = accord.error("align", "--model", str(tmp_path), "--records", feedback, *out)
    assert found["error"] == "ModelError" and str(tmp_path) in found["where"]
    assert "lab:base" in accord.error("align", "--model", "lab:bas", "--records", feedback, *out)["remedy"]


def test_only_ties_are_nothing_to_learn_from(accord: Accord, model: str, tmp_path: Path) -> None:
    rows = [
        f'{{"model_a": "m", "model_b": "n", "winner": "tie", "conversation_a": [{{"role": "user", "content": "p{i}"}}, '
        f'{{"role": "assistant", "content": "x"}}], "conversation_b": [{{"role": "user", "content": "p{i}"}}, '
        '{"role": "assistant", "content": "y"}]}'
        for i in range(12)
    ]
    file = tmp_path / "ties.jsonl"
    file.write_text("\n".join(rows))
    found = accord.error(
        "align", "--model", model, "--records", str(file), "--output-dir", str(tmp_path / "run"), *QUICK
    )
    assert "nothing is left" in found["problem"] and "tie" in found["found"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_zero3_on_a_cpu_is_refused(
    accord: Accord, model: str, feedback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    args = ["--parallel", "zero3", "--output-dir", str(tmp_path / "run"), "--dry-run"]
    found = accord.error("align", "--model", model, "--records", feedback, *args)
    assert "zero3 needs GPUs" in found["problem"]
