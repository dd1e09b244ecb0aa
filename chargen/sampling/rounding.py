"""Where a text of about so many characters ends: at the end of a line, or else of a word."""

from dataclasses import dataclass

from chargen.data.vocabulary import Vocabulary

DEFAULT_LENGTH = 500
"""Characters of a text where no length is asked for."""
MAX_RECORD = 10_000
"""Characters at which a record is cut where no length is asked for."""
MAX_LINE = 120
"""Characters beyond the length in which the end of a line is looked for."""
MAX_WORD = 40
"""Characters beyond those in which the end of a word is looked for."""


def default_length(vocabulary: Vocabulary) -> int:
    """How long a text becomes where no length is asked for.

    Args:
        vocabulary: the model's.

    Returns:
        Characters: of a record at most.
    """
    return MAX_RECORD if vocabulary.records else DEFAULT_LENGTH


@dataclass(frozen=True)
class Rounding:
    """How far a text may go on beyond its length.

    Args:
        line: characters beyond the length in which the end of a line is looked for.
        word: characters beyond those in which any blank is looked for.
    """

    line: int = 0
    word: int = 0

    @classmethod
    def of(cls, vocabulary: Vocabulary, ban: str) -> "Rounding":
        """Look for ends of lines and words where a model can write what ends them.

        Args:
            vocabulary: the model's.
            ban: characters that are never written.

        Returns:
            A rounding that waits for nothing that cannot come; for records none, which have an end of their own.
        """
        if vocabulary.records:
            return cls()
        writable = set("\n " if vocabulary.byte_mode else vocabulary.characters) - set(ban)
        has_blank = any(character.isspace() for character in writable - {"\n"})
        return cls(MAX_LINE * ("\n" in writable), MAX_WORD * has_blank)

    @property
    def max_excess(self) -> int:
        """The characters that a text may be longer than its length."""
        return self.line + self.word

    def ends(self, character: str, excess: float) -> bool:
        """Whether a text ends with a character.

        Args:
            character: the last one so far.
            excess: characters that the text is longer than its length; below zero where it is shorter.

        Returns:
            True where the text is long enough and ends a line or a word, or may not grow.
        """
        if excess < 0:
            return False
        return excess == self.max_excess or character == "\n" or (excess >= self.line and character.isspace())
