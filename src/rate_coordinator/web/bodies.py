"""What requests may contain, checked."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rate_coordinator import Reason

LONGEST_SECONDS = 86_400.0 * 366
"""No call is under way, and nothing is held by hand, for longer."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Named(_Strict):
    """A backend, or one model of it. What names may be like is checked where they are used."""

    backend: str
    model: str | None = None


class Report(Named):
    """An upstream refused."""

    wait_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """How long to leave it alone."""
    job_id: str | None = None
    sheet_num: int | None = None
    reason: Reason = "rate_limit"
    call_age_seconds: Annotated[float, Field(ge=0, le=LONGEST_SECONDS)] | None = None
    """How long ago the refused call was sent."""


class Hold(Named):
    """A backend or a model is to be left alone by hand. How long the words may be is checked where they are used."""

    seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]
    """For how long from now on."""
    reason: str = ""
    """Why, for whoever asks."""


class Release(Named):
    """A hold is to end."""


class Clear(_Strict):
    """Limits are to be lifted: those of a backend and its models, of one model, or all there are."""

    backend: str | None = None
    model: str | None = None
    all: bool = False

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if self.all == (self.backend is not None):
            raise ValueError('either a backend, or "all": true')
        if self.model is not None and self.backend is None:
            raise ValueError("a model only with the backend that it belongs to")
        return self
