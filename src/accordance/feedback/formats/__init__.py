"""The formats of the outside world, one file each: a function that makes records of a row, under `@format`.

To add one: a file here with a function under ``@format("name", "the columns it needs")``, and a line below.
"""

from accordance.feedback.formats import (
    alpaca,
    community_alignment,
    helpsteer2,
    helpsteer3,
    hh_rlhf,
    icai,
    kto_tag,
    language_modelling,
    lmarena,
    multipref,
    oasst,
    own,
    pku_saferlhf,
    preference,
    prism,
    prompt_completion,
    prompt_only,
    sharegpt,
    stepwise,
    ultrafeedback,
    unpaired,
)
from accordance.feedback.formats.registry import FORMATS, Format, detect, format, named

__all__ = ["FORMATS", "Format", "detect", "format", "named"]

# Imported for what they register.
_ = (
    alpaca,
    community_alignment,
    helpsteer2,
    helpsteer3,
    hh_rlhf,
    icai,
    kto_tag,
    language_modelling,
    lmarena,
    multipref,
    oasst,
    own,
    pku_saferlhf,
    preference,
    prism,
    prompt_completion,
    prompt_only,
    sharegpt,
    stepwise,
    ultrafeedback,
    unpaired,
)
