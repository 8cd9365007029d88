//! Integration tests of the library, one module per theme.
