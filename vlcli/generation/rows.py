"""What a generated row says of its origin: the column `generated_by`, the same of captions and of pictures.

    {"vlcli": "0.1.0", "models": {"decoder": HASH, …}, "seed": 0, …}

`models` has the hash of every checkpoint that took part, by the part it took; beside it stand the settings that the
result depends on. What does not change the result (batch size, device, paths) is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlcli import __version__

GENERATED_BY = "generated_by"


def generated_by(models: Mapping[str, str], **settings: Any) -> dict[str, Any]:
    """The value of the column for `models` (part → hash of its checkpoint) and what was asked of them; settings that
    are None are left out."""
    said = {name: value for name, value in settings.items() if value is not None}
    return {"vlcli": __version__, "models": dict(models), **said}
