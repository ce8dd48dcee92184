"""What an instrument asks of its files, and of their headers for the record. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from lpxfer.formats import fits_headers, validity
from lpxfer.formats.control import Control
from lpxfer.formats.fits_headers import Read
from lpxfer.formats.validity import FILEPATH_REJECT, Invalid


@dataclass(frozen=True)
class Validation:
    """What is asked; by default nothing."""

    whole: Sequence[str] = ()  # patterns: files of such names have to be whole FITS files
    scheme: Sequence[str] = ()  # patterns of names, with cards in them
    reject: Sequence[str] = ()  # patterns of paths at the telescope site
    keywords: Sequence[str] = ()  # of cards that go into the record

    def __bool__(self) -> bool:
        """Tell whether anything is asked."""
        return bool(self.whole or self.scheme or self.reject or self.keywords)

    def inspect(self, known: Control, read: Read) -> dict[str, str]:
        """Look at a file whose bytes `read` gives; return the cards for its record.

        A card is taken from the first header that has it. Raises Invalid, and what `read` does.
        """
        if validity.fits(known.path, self.reject):
            raise Invalid(FILEPATH_REJECT, "what comes from there is rejected")
        wanted = {*self.keywords, *validity.cards_of(self.scheme)}
        whole = validity.fits(known.name, self.whole)
        found: dict[str, str] = {}
        try:
            for header in fits_headers.headers(read, known.size):
                for card in wanted - found.keys():
                    if (value := header.value(card)) is not None:
                        found[card] = value
                if not whole and wanted == found.keys():
                    break
        except Invalid:
            if whole:
                raise
        if self.scheme:
            validity.check_name(known.name, self.scheme, found.get)
        return {card: found[card] for card in self.keywords if card in found}
