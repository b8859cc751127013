"""The documentation's configuration; tables and API pages are drawn from the code by `_ext/from_code.py`."""

import sys
from pathlib import Path

import accordance

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Accordance"
author = "the Accordance authors"
copyright = "the Accordance authors, Apache-2.0"
version = release = accordance.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser", "from_code"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# "Attributes:" of a class are its fields: listed with the class, not as entries of their own.
napoleon_use_ivar = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
# Docstrings write names of code in single backticks.
default_role = "code"

html_theme = "furo"
html_extra_path = ["extra"]
html_title = f"Accordance {release}"
html_show_sphinx = False
