"""What every reader of a public data set gives: one row for each caption of each image."""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """A caption beside its image. Without `text` it is an image that nothing describes (a candidate, and no query);
    without `image` a query of which nobody says what it shows (a test set's).
    """

    id: str
    image: str | None  # a reference that can be opened from here
    image_id: str | None  # as the set calls it
    text: str | None
    lang: str
    text_id: int | str | None = None  # of the query, where the set's leaderboard asks for it
    label: int | None = None  # 1 where the text fits the image, 0 where not; of matching sets

    @property
    def is_pair(self) -> bool:
        return self.image is not None and self.text is not None

    def columns(self, split: str) -> dict[str, Any]:
        """The row of a table of pairs (design §2), nulls left out."""
        said = {**self._asdict(), "split": split}
        return {name: value for name, value in said.items() if value is not None}
