"""A model in the formats of other programs. The call is `chargen.export`, so no room can have that name."""
