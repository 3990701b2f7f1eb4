"""The online half: a straight path from a posted image to an answer."""
