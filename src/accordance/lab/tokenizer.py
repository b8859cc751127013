"""The tokenizer of the small world: byte-level BPE, so that any text goes in and comes out as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from accordance.core.record import Message
from accordance.lab import world
from accordance.lab.scenes import SCENES
from accordance.lab.scenes.base import Conversation

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant")

#: Each turn is its role, its text as it stands and the end token; what the assistant is to write begins after
#: its role, so that the prompt's tokens are a prefix of the whole conversation's.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('the chat template knows system, user and assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer(
    *, vocab_size: int = 2048, seed: int = 0, chats: int = 20_000, scenes: float = 0.4
) -> PreTrainedTokenizerFast:
    """Train the tokenizer on text of the world.

    Args:
        vocab_size: tokens, the 256 bytes and the special tokens included.
        seed: of the text it is trained on.
        chats: how many conversations that is.
        scenes: the share of them that are of the world's scenes.

    Returns:
        A fast tokenizer with a chat template; its end token closes every turn.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, END, *(f"<|{role}|>" for role in ROLES)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, chats, scenes), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=special[2:],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def some_chat(rng: random.Random, scenes: float) -> tuple[Conversation, str]:
    """What was said, and what an unaligned assistant answers: of the world, or of one of its scenes.

    Args:
        rng: the only source of randomness.
        scenes: the share of conversations that are of `accordance.lab.scenes`, each as likely as the next.
    """
    if rng.random() < scenes:
        scene = rng.choice(list(SCENES.values()))
        asked = scene.ask(rng)
        return asked, scene.ordinary(asked, rng)
    prompt = world.sample_prompt(rng)
    return (Message("user", prompt),), world.write(prompt, rng)


def _texts(seed: int, chats: int, scenes: float) -> Iterator[str]:
    rng = random.Random(f"tokenizer {seed}")
    for _ in range(chats):
        asked, answer = some_chat(rng, scenes)
        yield from (turn.content for turn in asked)
        yield answer
