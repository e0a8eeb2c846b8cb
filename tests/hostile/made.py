"""Hypothesis strategies for hostile inputs."""

from hypothesis import strategies as st

# Texts that a terminal, a path or a parser may misunderstand.
TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "-", "--", "=", "/", "..", "~", "\0", "\n", "\r", "\x1b[2J", "\u202e", "\udcff", "nan", "1e999"]
    ),
)

# Values that a JSON file or a recipe may hold in place of the expected one.
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.integers(-(10**40), 10**40), st.floats(), st.text(max_size=8)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
