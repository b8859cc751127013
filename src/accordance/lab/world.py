"""The small world: instructions and answers whose attributes are known functions of the text.

In goes a seeded generator; out come prompts (`sample_prompt`), answers with chosen attributes (`write`, `best`)
and, for any text whatever, its attributes (`attributes`). What there is to know stands in `things`, `tasks` and
`talk`; a new kind of question is an entry in `questions.KINDS`, a core in `writer` and its acts in `acts`.
"""

from accordance.lab.acts import Act, Said, read, vocabulary
from accordance.lab.attributes import ATTRIBUTES, attributes
from accordance.lab.questions import KINDS, Question, parse, questions, sample_prompt, sentences
from accordance.lab.writer import MIXTURE, SETTABLE, best, write

__all__ = [
    "ATTRIBUTES",
    "KINDS",
    "MIXTURE",
    "SETTABLE",
    "Act",
    "Question",
    "Said",
    "attributes",
    "best",
    "parse",
    "questions",
    "read",
    "sample_prompt",
    "sentences",
    "vocabulary",
    "write",
]
