"""The model card of the base model, filled with what its pre-training measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from accordance.lab import world
from accordance.lab.scenes import SCENES

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [accordance, small-world]
---
# The base model of Accordance's small world

A causal language model of {parameters:,} parameters that answers the instructions of a made-up world (facts,
things nobody can know, sums, how-to, toy harmful requests, matters of taste, chit-chat) and of its scenes
({scenes_named}). It writes fluent
answers **of mixed quality, on purpose**: right and wrong, polite and rude, refusing and complying. Raising that
quality is what alignment is for; this is the model that `accord demo` and the lab's proofs start from.

| | |
|---|---|
| Architecture | Llama: {layers} layers, width {hidden}, MLP {mlp}, {heads} heads, tied embeddings, fp32 |
| Tokenizer | byte-level BPE trained on the same text, {vocab} tokens; roles system, user, assistant |
| Data | seeded text of `accordance.lab.world`; {words} words; nothing by people or other models |
| Seen | {chats:,} chats, {tokens:,} tokens, none twice on purpose |
| Loss | on the assistant's words; weight {prompt_weight} on the user's |
| Scenes | {scenes:.0%} of the chats, each scene as likely as the next |
| Result | {loss:.3f} nats per assistant token on 512 held-out chats of the world, {scenes_loss:.3f} of scenes |
| Training | {steps:,} steps of {batch_size} chats, AdamW, peak learning rate {learning_rate}, seed {seed} |
| Time | {minutes:.1f} minutes on {threads} CPU threads{early} |
| Command | from `accordance.lab.pretrain`: `{command}` |

The share of each attribute among the answers it learnt from is `accordance.lab.world.MIXTURE`; in a scene, each
attribute that is liked is as it should be in about three answers of four (`Scene.ordinary`).

## Loss while training

The text is random: no model reaches 0.

| step | loss |
|---|---|
{trace}

## Limits

It knows nothing outside its world: other prompts get fluent nonsense. The "harmful" requests are
toys and what it answers to them is of no use to anybody. Not for any use but the study of alignment methods.
"""


def model_card(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    result: Mapping[str, Any],
    options: Mapping[str, Any],
) -> str:
    """The text of README.md.

    Args:
        model: the trained model.
        tokenizer: its tokenizer.
        result: the fields of `Pretraining`.
        options: the arguments of `pretrain`.
    """
    command = f"pretrain(DIR, {', '.join(f'{name}={value}' for name, value in options.items())})"
    config, trace = model.config, result["loss"]
    shown = trace[:: max(1, len(trace) // 8)]
    return _CARD.format(
        parameters=result["parameters"],
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        mlp=config.intermediate_size,
        heads=config.num_attention_heads,
        vocab=len(tokenizer),
        command=command,
        words=len(world.vocabulary()),
        chats=result["chats"],
        tokens=result["tokens"],
        prompt_weight=options["prompt_weight"],
        loss=result["held_out_loss"],
        scenes=options["scenes"],
        scenes_loss=result["scenes_loss"],
        scenes_named=", ".join(SCENES),
        steps=result["steps"],
        asked=options["steps"],
        batch_size=options["batch_size"],
        learning_rate=options["learning_rate"],
        seed=options["seed"],
        minutes=result["seconds"] / 60,
        threads=result["threads"],
        early=" (ended by the time limit: the command does not repeat it bit for bit)"
        if result["stopped_early"]
        else "",
        trace="\n".join(f"| {step} | {loss:.3f} |" for step, loss in shown),
    )
