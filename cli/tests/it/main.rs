//! Tests of the built command, one module per theme.
