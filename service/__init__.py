"""The online half: from a posted image to an answer."""
