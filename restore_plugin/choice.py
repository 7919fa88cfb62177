"""Whom to hide, of the people that a scan has named. Uncertain means hidden."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from restore_plugin.errors import InputError
from restore_plugin.types import Region


@dataclass(frozen=True)
class Choice:
    """Labels of people: hide `only` these, or all but the `spared` ones; everybody where both are empty."""

    only: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()

    def hides(self, region: Region) -> bool:
        """Who was not recognised may be anybody, and is hidden."""
        if self.only:
            return not region.label or not {region.label, *region.maybe}.isdisjoint(self.only)
        return region.label not in self.spared

    def of(self, regions: Collection[Region]) -> list[Region]:
        """The regions to hide."""
        return [region for region in regions if self.hides(region)]

    def check(self, labels: Collection[str], where: str) -> None:
        """Raises InputError for a label that is not among those in the video."""
        for label in (*self.only, *self.spared):
            if label not in labels:
                known = ", ".join(sorted(label for label in labels if label)) or "nobody"
                raise InputError(f"expected people out of {known} (as {where} names them), got {label}")
