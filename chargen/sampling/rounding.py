"""Where a text of about so many characters ends: at the end of a line, or else of a word."""

from dataclasses import dataclass

from chargen.data.vocabulary import Vocabulary

LENGTH = 500
"""Characters of a text that nobody gave a length."""
LINE = 120
"""Characters more in which a line may end."""
WORD = 40
"""Characters more, after that, in which a word may end."""


@dataclass(frozen=True)
class Rounding:
    """How far a text may go on beyond its length.

    Args:
        line, word: characters more in which the end of a line is looked for, and after that any blank.
    """

    line: int = 0
    word: int = 0

    @classmethod
    def of(cls, vocabulary: Vocabulary, ban: str) -> "Rounding":
        """Lines and words are waited for where a model can write what ends them."""
        written = set("\n " if vocabulary.byte_mode else vocabulary.characters) - set(ban)
        return cls(LINE * ("\n" in written), WORD * any(one.isspace() for one in written - {"\n"}))

    @property
    def most(self) -> int:
        """Characters more than the length."""
        return self.line + self.word

    def ends(self, character: str, more: int) -> bool:
        """Whether a text that is `more` characters longer than its length, below zero where shorter, ends with this."""
        if more < 0:
            return False
        return more == self.most or character == "\n" or (more >= self.line and character.isspace())
