"""The base of everything that a manifest is made of."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a manifest: frozen, and strict about unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
