"""Pre-training: it learns, it repeats itself exactly, and it writes a checkpoint that transformers reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from accordance.core.errors import ConfigError
from accordance.lab.pretrain import pretrain

TINY = {
    "steps": 30,
    "batch_size": 8,
    "hidden_size": 32,
    "layers": 1,
    "vocab_size": 600,
    "tokenizer_chats": 500,
    "show_progress": False,
}


def test_a_few_steps_lower_the_loss_and_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    one = pretrain(tmp_path / "one", **TINY)
    two = pretrain(tmp_path / "two", **TINY)
    assert one.steps == 30 and not one.stopped_early
    assert one.loss[-1][1] < one.loss[0][1] - 0.5
    assert one.loss == two.loss and one.held_out_loss == two.held_out_loss
    weights = [AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "two")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    other = pretrain(tmp_path / "other", **TINY | {"seed": 1, "steps": 2})
    assert other.loss[0] != one.loss[0]

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert len(tokenizer) == 600 and tokenizer.eos_token == "<|end|>"
    card = (tmp_path / "one" / "README.md").read_text()
    assert f"{one.held_out_loss:.3f}" in card and f"{one.tokens:,}" in card


def test_the_time_limit_ends_it_with_a_checkpoint_that_says_so(tmp_path: Path) -> None:
    result = pretrain(tmp_path, **TINY | {"minutes": 0.0})
    assert result.stopped_early and result.steps == 1
    assert "time limit" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "model.safetensors").is_file()


def test_sizes_that_make_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        pretrain(tmp_path, **TINY | {"hidden_size": 33})
    with pytest.raises(ConfigError, match="at least 1"):
        pretrain(tmp_path, **TINY | {"steps": 0})
