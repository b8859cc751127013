"""One tokenisation: prompts once per group, responses behind them, checked rather than assumed.

A prompt is rendered by the model's own chat template with the generation prompt, as it will be at inference;
a response is what the template adds to that when the answer is there. Both are tokenised apart, in batches. Where
a tokenizer would have merged across the seam (checked for every response), the two are tokenised together.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jinja2 import TemplateError

from accordance.core.errors import ModelError
from accordance.core.record import TEXT, Message, Record, Response
from accordance.models.packing import Group

#: How many characters before and after the seam between prompt and response are tokenised together to check it.
_BEFORE, _AFTER = 12, 16

#: Templates for models that come with none, by name.
TEMPLATES: dict[str, str] = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "plain": (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}Assistant: {{ m['content'] }}{{ eos_token }}"
        "{% else %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}Assistant: {% endif %}"
    ),
}


Row = tuple[Sequence[Message], Sequence[Response], Mapping[str, Any]]


class Encoded(NamedTuple):
    """Token ids of one prompt and its responses."""

    prompt_ids: list[int]
    response_ids: list[list[int]]


@dataclass
class Encoder:
    """Turns records into groups of token ids.

    Args:
        tokenizer: a transformers tokenizer.
        end_ids: tokens that end a turn; by default the tokenizer's end token.
        prefix: token ids that stand before every prompt (who is asking; see `accordance.models.users`).

    Attributes:
        notes: what had to be done to which number of responses (joint tokenisation, end token added).
    """

    tokenizer: Any
    end_ids: frozenset[int] = frozenset()
    notes: Counter[str] = field(default_factory=Counter)
    prefix: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no end-of-sequence token; a model trained without one never stops",
                where=str(self.tokenizer.name_or_path),
                remedy="load_policy(..., eos_token='</s>') names the token that ends a turn",
            )
        self.end_ids = self.end_ids | {self.tokenizer.eos_token_id}

    def encode(
        self,
        prompt: Sequence[Message],
        responses: Sequence[Response],
        extras: Mapping[str, Any] | None = None,
    ) -> Encoded:
        """Token ids of one prompt and its responses; see `encode_many`."""
        return self.encode_many([(prompt, responses, extras or {})])[0]

    def groups(self, records: Iterable[Record]) -> list[Group]:
        """One group per record, with all its responses."""
        rows = [(record.prompt, record.responses, record.extras) for record in records]
        return [Group(*encoded) for encoded in self.encode_many(rows)]

    def encode_many(self, rows: Sequence[Row]) -> list[Encoded]:
        """Token ids of many prompts and their responses, tokenised in batches.

        Args:
            rows: prompt, responses and extras (`tools`, `chat_template_kwargs`) of each group.

        Raises:
            ModelError: messages are to be rendered and the tokenizer has no chat template, or it fails.
        """
        plain = [_is_plain(prompt, responses) for prompt, responses, _ in rows]
        prompts, answers = self._render(rows, plain)
        prompt_ids = self._prompts(prompts, plain)
        flat = [answer for texts in answers for answer in texts]
        owner = [index for index, texts in enumerate(answers) for _ in texts]
        flat_ids = self._responses(prompts, plain, prompt_ids, flat, owner)
        out = [Encoded([*self.prefix, *ids], []) for ids in prompt_ids]
        for index, ids in zip(owner, flat_ids):
            out[index].response_ids.append(ids)
        return out

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of some tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=not special)

    def _render(self, rows: Sequence[Row], plain: Sequence[bool]) -> tuple[list[str], list[list[str]]]:
        """Text of each prompt and of each of its responses."""
        end = self.tokenizer.eos_token
        prompts, wholes = [""] * len(rows), [[""] * len(responses) for _, responses, _ in rows]
        jobs: dict[str, list[tuple[int, int | None, list[Message]]]] = {}
        for index, (prompt, responses, extras) in enumerate(rows):
            if plain[index]:
                prompts[index] = "".join(message.content for message in prompt)
                texts = (r.text for r in responses)
                wholes[index] = [text if text.endswith(end) else text + end for text in texts]
                continue
            options = {name: extras[name] for name in ("tools", "chat_template_kwargs") if extras.get(name)}
            batch = jobs.setdefault(json.dumps(options, sort_keys=True), [])
            if prompt:
                batch.append((index, None, list(prompt)))
            batch += [(index, n, [*prompt, *r.messages]) for n, r in enumerate(responses)]
        for options, batch in jobs.items():
            # One call for all that the template treats alike: (is it a prompt, does an answer stand open).
            kinds = [(number is None, turns[-1].role == "assistant") for _, number, turns in batch]
            for kind in sorted(set(kinds)):
                some = [job for job, own in zip(batch, kinds) if own == kind]
                rendered = self._template([turns for _, _, turns in some], json.loads(options), *kind)
                for (index, number, _), text in zip(some, rendered):
                    if number is None:
                        prompts[index] = text
                    else:
                        wholes[index][number] = text
        for index, (_, responses, _) in enumerate(rows):
            if not plain[index]:
                wholes[index] = [
                    self._after(prompts[index], whole, r) for whole, r in zip(wholes[index], responses)
                ]
        return prompts, wholes

    def _after(self, head: str, whole: str, response: Response) -> str:
        """What the template adds to the prompt for a response."""
        if whole.startswith(head):
            return whole[len(head) :]
        self.notes["the template renders the prompt differently before an answer: text and end token"] += 1
        return response.text + self.tokenizer.eos_token

    def _template(
        self, dialogues: list[list[Message]], options: Mapping[str, Any], prompts: bool, open_answer: bool
    ) -> list[str]:
        """Dialogues through the chat template; prompts with an answer begun, or with the turn open for one."""
        if not self.tokenizer.chat_template:
            raise ModelError(
                "the records are conversations and the tokenizer has no chat template",
                where=str(self.tokenizer.name_or_path),
                remedy="load_policy(..., chat_template='plain' | 'chatml' | a template | a path to one); on the "
                "command line --chat-template",
            )
        turns = [[{"role": m.role, "content": m.content} for m in dialogue] for dialogue in dialogues]
        try:
            return self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=prompts and not open_answer,
                continue_final_message=prompts and open_answer,
                tools=options.get("tools"),
                **options.get("chat_template_kwargs", {}),
            )
        except (TemplateError, ValueError) as error:
            if len(dialogues) > 1:  # find the one that it refuses
                for dialogue in dialogues:
                    self._template([dialogue], options, prompts, open_answer)
            raise ModelError(
                f"the chat template refuses a conversation: {error}",
                where=str(self.tokenizer.name_or_path),
                found=" / ".join(message.role for message in dialogues[0]),
                remedy="check the order of roles, or pass another template with chat_template=",
            ) from error

    def _tokens(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        if not texts:
            return []
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return self.tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
        backend.no_truncation()
        backend.no_padding()
        return [row.ids for row in backend.encode_batch_fast(list(texts), add_special_tokens=special)]

    def _prompts(self, prompts: Sequence[str], plain: Sequence[bool]) -> list[list[int]]:
        unique: dict[tuple[str, bool], list[int]] = {}
        for raw in (False, True):
            texts = list(dict.fromkeys(text for text, flag in zip(prompts, plain) if flag is raw and text))
            for text, ids in zip(texts, self._tokens(texts, special=raw)):
                opened = raw and ids and ids[-1] == self.tokenizer.eos_token_id
                unique[text, raw] = ids[:-1] if opened and not text.endswith(self.tokenizer.eos_token) else ids
        return [unique.get((text, raw), []) for text, raw in zip(prompts, plain)]

    def _responses(
        self,
        prompts: Sequence[str],
        plain: Sequence[bool],
        prompt_ids: Sequence[list[int]],
        flat: Sequence[str],
        owner: Sequence[int],
    ) -> list[list[int]]:
        alone = [index for index, o in enumerate(owner) if not prompts[o] and plain[o]]
        ids = self._tokens(flat)
        for index, whole in zip(alone, self._tokens([flat[i] for i in alone], special=True)):
            ids[index] = whole
        for index in self._seams(prompts, flat, owner):
            whole = self._tokens([prompts[owner[index]] + flat[index]], special=plain[owner[index]])[0]
            head = prompt_ids[owner[index]]
            if whole[: len(head)] == head:
                self.notes["tokenised together with the prompt: a token would span the seam otherwise"] += 1
                ids[index] = whole[len(head) :]
            else:
                self.notes["a token would span prompt and response: split as generation sees it"] += 1
        for row in ids:
            if not self.end_ids.intersection(row[-3:]):
                self.notes["end-of-turn token added: the template leaves it out"] += 1
                row.append(self.tokenizer.eos_token_id)
        return ids

    def _seams(self, prompts: Sequence[str], flat: Sequence[str], owner: Sequence[int]) -> list[int]:
        """Responses whose tokens depend on the prompt before them."""
        tails = [prompts[o][-_BEFORE:] for o in owner]
        heads = [text[:_AFTER] for text in flat]
        seams = {(tail, head) for tail, head in zip(tails, heads) if tail}
        pairs = list(seams)
        parts = list(dict.fromkeys(text for pair in pairs for text in pair))
        known = dict(zip(parts, self._tokens(parts)))
        merged = {
            (tail, head)
            for (tail, head), whole in zip(pairs, self._tokens([tail + head for tail, head in pairs]))
            if whole != known[tail] + known[head]
        }
        return [index for index, seam in enumerate(zip(tails, heads)) if seam in merged]


def _is_plain(prompt: Sequence[Message], responses: Sequence[Response]) -> bool:
    """Whether a record is plain text, which no template renders."""
    return any(m.role == TEXT for m in prompt) or any(m.role == TEXT for r in responses for m in r.messages)


def fit(group: Group, max_length: int | None) -> tuple[Group | None, str]:
    """Cut a group to a length, and say what was done.

    Responses are cut at the end; a prompt is never cut, since that would change what was asked.

    Args:
        group: prompt and responses.
        max_length: largest number of tokens of prompt and one response together; None for no limit.

    Returns:
        The group and an empty string; the cut group and what was cut; or None and why it can't be used.
    """
    if max_length is None or len(group.prompt) + max(map(len, group.responses)) <= max_length:
        return group, ""
    room = max_length - len(group.prompt)
    if room < 1:
        return None, "prompt as long as max_length or longer"
    return Group(group.prompt, [response[:room] for response in group.responses]), "response cut at max_length"
