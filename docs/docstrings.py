"""Makes the reference show a docstring's `Example:` as code. griffe knows the section as `Examples:` alone."""

import re
from typing import Any

from griffe import Extension, Object


class ExamplesAsCode(Extension):
    """Renames the section before the docstring is parsed."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """See `griffe.Extension`."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
